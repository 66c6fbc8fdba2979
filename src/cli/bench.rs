//! `ghostlight bench`: how fast this model is here.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use image::RgbImage;
use serde::Serialize;

use super::args::{ModelArgs, parse_threads};
use super::backend::{self, LayerTime, Runner};
use super::error::CliError;
use super::{Outcome, model_path};
use crate::vision::{NmsOptions, Pixels, decode_image};

/// Frames before the measurement: caches fill, clocks rise.
const WARM_UP: usize = 3;

/// Measure this model's latency on this machine
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight bench\n  ghostlight bench --threads 1 --profile\n  ghostlight bench --simulate 1,2,4\n  ghostlight bench --picture picture.jpg"
)]
pub struct Args {
    /// Frames to measure
    #[arg(long, value_name = "N", default_value = "50")]
    pub iters: NonZeroUsize,
    /// Time this picture as `detect` computes it: boxes only where a class passes. Without it every box is computed, so
    /// that the time is the longest that a picture can take
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Also show each layer's time with every box computed, and its share of what the kernels reach at best on this machine
    #[arg(long)]
    pub profile: bool,
    /// Also reckon what so many threads would take, whether this machine has them or not: each tile of work is timed
    /// on one thread and dealt out to them
    #[arg(long, value_name = "THREADS", value_delimiter = ',', value_parser = parse_threads)]
    pub simulate: Vec<NonZeroUsize>,
    /// Print JSON lines: the layers where --profile asks for them, the summary last
    #[arg(long)]
    pub json: bool,
    /// Which model, and what runs it.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    /// Median milliseconds of the network.
    median_ms: f64,
    /// Least milliseconds of the network.
    min_ms: f64,
    kernel: &'a str,
    threads: usize,
    /// Largest resident memory of this process, in MB (10^6 bytes).
    peak_rss_mb: f64,
    model: &'a str,
    /// The network's input, height and width: for a picture the smallest rectangle, as `detect` has it.
    imgsz: [usize; 2],
    /// What was looked at; without it every box was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
    iters: usize,
    /// Median milliseconds from a picture of the input's size to the network's input.
    preprocess_ms: f64,
    /// Median milliseconds from heads to boxes.
    postprocess_ms: f64,
    /// What the kernels reach at best on this machine; only with `--profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_gmac_per_s: Option<f64>,
    /// The network's multiply-accumulates over what that many threads could do in its median time, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_share: Option<f64>,
    /// Only with `--simulate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    simulated: Vec<Simulated>,
}

/// The network on threads that are reckoned with, not run.
#[derive(Debug, Serialize)]
struct Simulated {
    threads: usize,
    /// Median milliseconds of the network.
    median_ms: f64,
}

#[derive(Debug, Serialize)]
struct Layer<'a> {
    layer: &'a str,
    ms: f64,
    gmac_per_s: f64,
    peak_share: Option<f64>,
}

impl<'a> Layer<'a> {
    /// `peak` in GMAC/s.
    fn new(layer: &'a LayerTime, peak: Option<f64>) -> Self {
        let rate = gmac_per_s(layer.macs, layer.ms);
        // Without multiplications there is no share to speak of.
        let peak = peak.filter(|_| layer.macs > 0);
        Self {
            layer: &layer.name,
            ms: thousandths(layer.ms),
            gmac_per_s: thousandths(rate),
            peak_share: peak.map(|peak| thousandths(rate / peak)),
        }
    }
}

/// Opens the model and measures it.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let path = model_path::find(args.model.model.as_deref())?;
    let mut runner = backend::open(&path, &args.model)?;
    let image = match &args.picture {
        Some(path) => Some(decode_image(path).map_err(|e| CliError::picture(path, &e))?),
        None => None,
    };
    measure(args, image.as_ref(), runner.as_mut(), out)
}

fn measure(
    args: &Args,
    image: Option<&RgbImage>,
    runner: &mut dyn Runner,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let mut size = runner.input();
    let bytes = gradient(size.width, size.height);
    let picture = image.map_or(Pixels::rgb(size, &bytes), Pixels::from);
    runner.compute_every_box(image.is_none());
    let options = NmsOptions::default();
    for _ in 0..WARM_UP {
        runner.detect(picture, &options)?;
    }
    let mut stages: [Vec<f64>; 3] = Default::default();
    for _ in 0..args.iters.get() {
        let answer = runner.detect(picture, &options)?;
        size = answer.input;
        for (times, ms) in
            stages.iter_mut().zip([answer.inference_ms, answer.preprocess_ms, answer.postprocess_ms])
        {
            times.push(ms);
        }
    }
    let (layers, peak) =
        if args.profile { (runner.profile(picture)?, runner.peak()?) } else { (Vec::new(), None) };
    let peak = peak.map(|macs_per_second| macs_per_second / 1e9);
    // The other engines' memory is not this one's.
    let peak_rss_mb = peak_rss_mb();
    let mut simulated = Vec::with_capacity(args.simulate.len());
    for &threads in &args.simulate {
        let times = runner.reckon(picture, threads.get(), WARM_UP + args.iters.get())?;
        let warm = sorted(times.into_iter().skip(WARM_UP).collect());
        simulated.push(Simulated { threads: threads.get(), median_ms: thousandths(median(&warm)) });
    }
    let [inference, preprocess, postprocess] = stages.map(sorted);
    let summary = Summary {
        median_ms: thousandths(median(&inference)),
        min_ms: thousandths(inference[0]),
        kernel: runner.kernel(),
        threads: runner.threads(),
        peak_rss_mb,
        model: runner.model(),
        imgsz: [size.height, size.width],
        picture: args.picture.as_ref().map(|path| path.display().to_string()),
        iters: args.iters.get(),
        preprocess_ms: thousandths(median(&preprocess)),
        postprocess_ms: thousandths(median(&postprocess)),
        peak_gmac_per_s: peak.map(thousandths),
        // For a picture, not all of the layers' work is in the median.
        peak_share: peak
            .filter(|_| image.is_none())
            .map(|peak| thousandths(gmac_per_s(all_macs(&layers), median(&inference)) / peak)),
        simulated,
    };
    let layers: Vec<Layer<'_>> = layers.iter().map(|layer| Layer::new(layer, peak)).collect();
    if args.json {
        write_json(out, &layers, &summary)?
    } else {
        write_text(out, &layers, &summary)?
    }
    Ok(Outcome::Done)
}

fn write_json(out: &mut dyn Write, layers: &[Layer<'_>], summary: &Summary<'_>) -> Result<(), CliError> {
    let mut line = |value: serde_json::Result<String>| -> Result<(), CliError> {
        let value = value.map_err(|error| CliError::Internal(error.to_string()))?;
        Ok(writeln!(out, "{value}")?)
    };
    for layer in layers {
        line(serde_json::to_string(layer))?;
    }
    line(serde_json::to_string(summary))
}

fn write_text(out: &mut dyn Write, layers: &[Layer<'_>], summary: &Summary<'_>) -> Result<(), CliError> {
    if !layers.is_empty() {
        let widest = layers.iter().map(|layer| layer.layer.chars().count()).max().unwrap_or(0).max(5);
        writeln!(out, "{:widest$}  {:>8}  {:>8}  {:>7}", "layer", "ms", "GMAC/s", "of peak")?;
        for layer in layers {
            let share = match layer.peak_share {
                Some(share) => format!("{:.0} %", share * 100.0),
                None => "-".into(),
            };
            let Layer { layer, ms, gmac_per_s, .. } = layer;
            writeln!(out, "{layer:widest$}  {ms:>8.3}  {gmac_per_s:>8.1}  {share:>7}")?;
        }
        writeln!(out)?;
    }
    let s = summary;
    writeln!(out, "model       {} at {}x{}", s.model, s.imgsz[0], s.imgsz[1])?;
    writeln!(out, "kernel      {}, {} threads", s.kernel, s.threads)?;
    match &s.picture {
        Some(picture) => writeln!(out, "picture     {picture}")?,
        None => writeln!(out, "picture     none: every box is computed")?,
    }
    writeln!(out, "network     {:.2} ms median, {:.2} ms least of {}", s.median_ms, s.min_ms, s.iters)?;
    if let (Some(peak), Some(share)) = (s.peak_gmac_per_s, s.peak_share) {
        writeln!(out, "of peak     {:.0} % of {peak:.0} GMAC/s, measured here", share * 100.0)?;
    }
    for Simulated { threads, median_ms } in &s.simulated {
        writeln!(out, "simulated   {median_ms:.2} ms median on {threads} threads")?;
    }
    writeln!(out, "letterbox   {:.2} ms median", s.preprocess_ms)?;
    writeln!(out, "boxes       {:.2} ms median", s.postprocess_ms)?;
    Ok(writeln!(out, "peak memory {:.1} MB", s.peak_rss_mb)?)
}

/// A picture without objects but with every grey level.
fn gradient(width: usize, height: usize) -> Vec<u8> {
    (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, (x + y) as u8])).collect()
}

fn gmac_per_s(macs: u64, ms: f64) -> f64 {
    if ms > 0.0 { macs as f64 / ms / 1e6 } else { 0.0 }
}

fn all_macs(layers: &[LayerTime]) -> u64 {
    layers.iter().map(|layer| layer.macs).sum()
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

/// Median of sorted times, of which there is at least one.
fn median(times: &[f64]) -> f64 {
    let middle = times.len() / 2;
    if times.len().is_multiple_of(2) { (times[middle - 1] + times[middle]) / 2.0 } else { times[middle] }
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// `VmHWM` of this process; 0 where the system does not tell.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok());
    (kib.unwrap_or(0.0) * 1.024 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::backend::Answer;
    use crate::vision::Size;

    struct Fake(f64);

    impl Runner for Fake {
        fn model(&self) -> &str {
            "fake@0"
        }

        fn classes(&self) -> &[String] {
            &[]
        }

        fn input(&self) -> Size {
            Size { width: 64, height: 32 }
        }

        fn kernel(&self) -> &str {
            "scalar"
        }

        fn threads(&self) -> usize {
            2
        }

        fn detect(&mut self, picture: Pixels<'_>, _: &NmsOptions) -> Result<Answer, CliError> {
            assert_eq!(picture.bytes.len(), 64 * 32 * 3);
            self.0 += 1.0;
            Ok(Answer { inference_ms: self.0, preprocess_ms: 0.25, input: picture.size, ..Answer::default() })
        }

        fn profile(&mut self, _: Pixels<'_>) -> Result<Vec<LayerTime>, CliError> {
            Ok(vec![LayerTime { name: "model.0".into(), ms: 2.0, macs: 4_000_000 }])
        }

        fn reckon(&mut self, _: Pixels<'_>, threads: usize, frames: usize) -> Result<Vec<f64>, CliError> {
            Ok((0..frames).map(|frame| (frame * 12 / threads) as f64).collect())
        }

        fn peak(&mut self) -> Result<Option<f64>, CliError> {
            Ok(Some(4e9))
        }
    }

    fn bench(json: bool, profile: bool) -> String {
        let model = ModelArgs {
            model: None,
            imgsz: None,
            threads: None,
            engine: crate::cli::args::EngineKind::Auto,
            kernel: None,
        };
        let four = NonZeroUsize::MIN.saturating_add(3);
        let simulate = if profile { vec![four] } else { Vec::new() };
        let args = Args { iters: four, picture: None, profile, simulate, json, model };
        let mut out = Vec::new();
        measure(&args, None, &mut Fake(0.0), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_last_json_line_is_the_summary() {
        let text = bench(true, true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["layer"], "model.0");
        assert_eq!((&lines[0]["gmac_per_s"], &lines[0]["peak_share"]), (&2.0.into(), &0.5.into()));
        // 4 million in 5.5 ms, of 4 G a second.
        assert_eq!((&lines[1]["peak_gmac_per_s"], &lines[1]["peak_share"]), (&4.0.into(), &0.182.into()));
        // Three frames warm up; four are measured: 4, 5, 6, 7 ms.
        assert_eq!((&lines[1]["median_ms"], &lines[1]["min_ms"]), (&5.5.into(), &4.0.into()));
        assert_eq!((&lines[1]["kernel"], &lines[1]["threads"]), (&"scalar".into(), &2.into()));
        assert!(lines[1]["peak_rss_mb"].as_f64().unwrap() > 1.0);
        // The first three of seven warm up: 9, 12, 15, 18 ms.
        assert_eq!(lines[1]["simulated"], serde_json::json!([{"threads": 4, "median_ms": 13.5}]));
    }

    #[test]
    fn people_get_words() {
        let text = bench(false, true);
        assert!(text.contains("model.0     2.000       2.0     50 %"), "{text}");
        assert!(text.contains("18 % of 4 GMAC/s"), "{text}");
        assert!(text.contains("5.50 ms median, 4.00 ms least of 4"), "{text}");
        assert!(text.contains("simulated   13.50 ms median on 4 threads"), "{text}");
    }

    #[test]
    fn what_was_not_asked_for_is_not_there() {
        let summary: serde_json::Value = serde_json::from_str(&bench(true, false)).unwrap();
        assert_eq!((summary.get("simulated"), summary.get("peak_share")), (None, None));
        assert!(!bench(false, false).contains("simulated"));
    }
}
