//! Which of a camera's formats, sizes and rates is asked for.
//!
//! - What the configuration names goes first: that format and no other, and the sizes nearest to that width
//!   and height.
//! - Of the sizes, the smallest that need not be enlarged for the network (as wide or as high as its input),
//!   else the largest. Of a range, a size of the shape of its largest.
//! - Of the rates, the slowest that reaches the wanted one; where none is wanted, the fastest up to
//!   [`MOST_FPS`].
//! - Of the formats, those come first that have such a size, then those that reach the wanted rate
//!   ([`LEAST_FPS`], where none is wanted) or come nearest to it, then those that cost least to read
//!   ([`ORDER`]). So a camera gives raw pictures unless only its MJPEG is large or fast enough.

use std::cmp::{Ordering, Reverse};

use super::CameraOptions;
use super::driver::{FourCc, Interval, IntervalOffer, SizeOffer};
use crate::frame::PixelFormat;
use crate::vision::Size;

/// Formats, the cheapest to read first; one plane of grey is the last resort.
const ORDER: [PixelFormat; 8] = [
    PixelFormat::Nv12,
    PixelFormat::Yuyv,
    PixelFormat::Yu12,
    PixelFormat::Uyvy,
    PixelFormat::Rgb3,
    PixelFormat::Bgr3,
    PixelFormat::Mjpeg,
    PixelFormat::Grey,
];
/// Rate that a raw format must reach to go before MJPEG. Detectors on boards are slower than this.
const LEAST_FPS: f64 = 15.0;
/// More than this is not asked for unless it is wanted: each picture costs a copy.
const MOST_FPS: f64 = 30.0;
/// 29.97 counts as 30.
const TOLERANCE: f64 = 0.01;

/// A format with the sizes that it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatOffer {
    /// V4L2's name of it.
    pub fourcc: FourCc,
    /// Its sizes; empty where the driver lists none.
    pub sizes: Vec<SizeOffer>,
}

/// What is asked of the camera in a format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// The format.
    pub fourcc: FourCc,
    /// The same as frames have it.
    pub format: PixelFormat,
    /// The size.
    pub size: Size,
    /// Time from one picture to the next; `None` leaves it to the driver.
    pub interval: Option<Interval>,
}

/// Why no format fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMode {
    /// The camera lists nothing.
    #[error(
        "it offers no format; a camera on a ribbon cable needs rpicam-vid, whose output --source - reads"
    )]
    Nothing,
    /// None of its formats is read here.
    #[error("it offers only {offered}, which are not read here; use another camera or a stream")]
    Unknown {
        /// What it lists.
        offered: String,
    },
    /// The wanted one is not among them.
    #[error("it has no {wanted}; set [source] format to one of {offered}, or leave it out")]
    Format {
        /// What was asked for.
        wanted: PixelFormat,
        /// What it lists, of what is read here.
        offered: String,
    },
}

/// A mode for each format that may be asked for. Rates are listed by size: they come with [`best`].
///
/// # Errors
/// There is none.
pub fn modes(offers: &[FormatOffer], options: &CameraOptions) -> Result<Vec<Mode>, NoMode> {
    if offers.is_empty() {
        return Err(NoMode::Nothing);
    }
    let readable: Vec<(&FormatOffer, PixelFormat)> =
        offers.iter().filter_map(|offer| Some((offer, offer.fourcc.format()?))).collect();
    if readable.is_empty() {
        return Err(NoMode::Unknown { offered: names(offers.iter().map(|offer| offer.fourcc.to_string())) });
    }
    let modes: Vec<Mode> = readable
        .iter()
        .filter(|(_, format)| options.format.is_none_or(|wanted| wanted == *format))
        .map(|&(offer, format)| {
            let size = best_size(&offer.sizes, options);
            Mode { fourcc: offer.fourcc, format, size, interval: None }
        })
        .collect();
    match options.format {
        Some(wanted) if modes.is_empty() => Err(NoMode::Format {
            wanted,
            offered: names(readable.iter().map(|(_, format)| format.to_string())),
        }),
        _ => Ok(modes),
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = names.collect();
    all.dedup();
    all.join(", ")
}

/// The best of [`modes`], each with the intervals that are offered for it.
pub fn best(modes: Vec<(Mode, Vec<IntervalOffer>)>, options: &CameraOptions) -> Option<Mode> {
    modes
        .into_iter()
        .map(|(mode, offers)| {
            let (interval, fps) = best_interval(&offers, options.fps);
            (Mode { interval, ..mode }, fps)
        })
        .min_by(|(a, a_fps), (b, b_fps)| compare((a, *a_fps), (b, *b_fps), options))
        .map(|(mode, _)| mode)
}

/// Whether a picture need not be enlarged for the network, which keeps its shape.
fn covers(size: Size, network: Size) -> bool {
    size.width >= network.width || size.height >= network.height
}

fn compare(a: (&Mode, f64), b: (&Mode, f64), options: &CameraOptions) -> Ordering {
    // Past the wanted rate, faster is no better.
    let enough = options.fps.unwrap_or(LEAST_FPS) * (1.0 - TOLERANCE);
    let order = |mode: &Mode| ORDER.iter().position(|&format| format == mode.format);
    let size = |mode: &Mode| (distance(mode.size, options), !covers(mode.size, options.network));
    size(a.0)
        .cmp(&size(b.0))
        .then(b.1.min(enough).total_cmp(&a.1.min(enough)))
        .then(order(a.0).cmp(&order(b.0)))
}

/// How far a size is from what was asked for.
fn distance(size: Size, options: &CameraOptions) -> usize {
    let width = options.width.map_or(0, |width| width.abs_diff(size.width));
    let height = options.height.map_or(0, |height| height.abs_diff(size.height));
    width.saturating_add(height)
}

fn best_size(offers: &[SizeOffer], options: &CameraOptions) -> Size {
    let network = options.network;
    let unlisted = Size {
        width: options.width.unwrap_or(network.width),
        height: options.height.unwrap_or(network.height),
    };
    let sizes: Vec<Size> = offers
        .iter()
        .map(|offer| match *offer {
            SizeOffer::Discrete(size) => size,
            SizeOffer::Range { min, max, step } => fit(min, max, step, options),
        })
        .filter(|size| size.width > 0 && size.height > 0)
        .collect();
    let nearest = sizes.iter().map(|&size| distance(size, options)).min();
    let sizes = || sizes.iter().copied().filter(|&size| Some(distance(size, options)) == nearest);
    let pixels = |size: &Size| size.width as u64 * size.height as u64;
    sizes()
        .filter(|&size| covers(size, network))
        .min_by_key(pixels)
        .or_else(|| sizes().min_by_key(|size| Reverse(pixels(size))))
        .unwrap_or(unlisted)
}

/// A size of a range: as wide and high as asked for, where that is not said of the largest one's shape.
fn fit(min: Size, max: Size, step: Size, options: &CameraOptions) -> Size {
    let network = options.network;
    let scaled = |side: usize, by: usize, of: usize| {
        (side as u64 * by as u64).div_ceil(of.max(1) as u64).try_into().unwrap_or(usize::MAX)
    };
    let height_of = |width| scaled(width, max.height, max.width);
    let width_of = |height| scaled(height, max.width, max.height);
    let (width, height) = match (options.width, options.height) {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, height_of(width)),
        (None, Some(height)) => (width_of(height), height),
        // The side that is reached first makes the smaller picture.
        (None, None) if width_of(network.height) >= network.width => {
            (network.width, height_of(network.width))
        }
        (None, None) => (width_of(network.height), network.height),
    };
    Size {
        width: on_grid(width, min.width, max.width, step.width),
        height: on_grid(height, min.height, max.height, step.height),
    }
}

/// `side` rounded up to `min` and whole steps, as far as `max` allows.
fn on_grid(side: usize, min: usize, max: usize, step: usize) -> usize {
    let (max, step) = (max.max(min), step.max(1));
    let steps = side.clamp(min, max).abs_diff(min).div_ceil(step).min((max - min) / step);
    min + steps * step
}

/// The interval to ask for and the rate that it gives. Of a driver that lists none, the best is thought.
fn best_interval(offers: &[IntervalOffer], wanted: Option<f64>) -> (Option<Interval>, f64) {
    let target = wanted.unwrap_or(MOST_FPS);
    let mut rates: Vec<(Interval, f64)> = offers
        .iter()
        .filter_map(|offer| {
            let interval = match *offer {
                IntervalOffer::Discrete(interval) => interval,
                IntervalOffer::Range { shortest, longest } => within(target, shortest, longest)?,
            };
            Some((interval, interval.fps()?))
        })
        .collect();
    rates.sort_by(|a, b| a.1.total_cmp(&b.1));
    let best = match wanted {
        Some(fps) => rates.iter().find(|rate| rate.1 >= fps * (1.0 - TOLERANCE)).or(rates.last()),
        None => rates.iter().rfind(|rate| rate.1 <= MOST_FPS * (1.0 + TOLERANCE)).or(rates.first()),
    };
    match best {
        Some(&(interval, fps)) => (Some(interval), fps),
        None => (wanted.map(Interval::of), f64::INFINITY),
    }
}

fn within(target: f64, shortest: Interval, longest: Interval) -> Option<Interval> {
    let (most, least) = (shortest.fps()?, longest.fps()?);
    Some(match target {
        fps if fps >= most => shortest,
        fps if fps <= least => longest,
        fps => Interval::of(fps),
    })
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
