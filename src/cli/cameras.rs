//! Which V4L2 cameras there are, and what they offer.

use std::io;
use std::path::PathBuf;

use crate::source::v4l2::{self, FormatOffer, Offers};

/// A video device that captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// Its name as the driver gives it.
    pub name: String,
    /// Formats with their sizes: `MJPG 1280x720 640x480`.
    pub formats: Vec<String>,
}

/// All `/dev/videoN`, by number, with what is known of each; `None` for a device that captures no video.
pub fn list() -> Vec<(PathBuf, io::Result<Option<Camera>>)> {
    v4l2::nodes()
        .into_iter()
        .map(|path| {
            let camera = v4l2::ask(&path).map(|offers| offers.map(Camera::from));
            (path, camera)
        })
        .collect()
}

impl From<Offers> for Camera {
    fn from(offers: Offers) -> Self {
        Self { name: offers.card, formats: offers.formats.iter().map(format_text).collect() }
    }
}

fn format_text(offer: &FormatOffer) -> String {
    let sizes = offer.sizes.iter().map(ToString::to_string);
    std::iter::once(offer.fourcc.to_string()).chain(sizes).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::v4l2::{FourCc, SizeOffer};
    use crate::vision::Size;

    #[test]
    fn a_camera_in_words() {
        let size = |width, height| Size { width, height };
        let range = SizeOffer::Range { min: size(16, 16), max: size(1920, 1080), step: size(2, 2) };
        let discrete = [size(1280, 720), size(640, 480)].map(SizeOffer::Discrete);
        let offers = Offers {
            card: "Cam".into(),
            formats: vec![
                FormatOffer { fourcc: FourCc(*b"MJPG"), sizes: discrete.into() },
                FormatOffer { fourcc: FourCc(*b"YUYV"), sizes: vec![range] },
                FormatOffer { fourcc: FourCc(*b"Y16 "), sizes: Vec::new() },
            ],
        };
        let camera = Camera::from(offers);
        assert_eq!(camera.name, "Cam");
        assert_eq!(camera.formats, ["MJPG 1280x720 640x480", "YUYV 16x16..1920x1080", "Y16"]);
    }
}
