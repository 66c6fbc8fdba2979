//! What the system's errors mean at each step, and what to do about them.

use std::io;

use crate::source::SourceError;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Opening the node.
    Open,
    /// Asking what it is.
    Ask,
    /// Listing formats, sizes and rates.
    List,
    /// Setting the format; whether the configuration names one or a size.
    Format {
        /// Whether it does.
        asked: bool,
    },
    /// Setting the rate.
    Rate,
    /// Asking for buffers.
    Request,
    /// Mapping them and giving them to the driver.
    Buffers,
    /// Starting the stream.
    Start,
    /// Waiting for pictures and taking them.
    Read,
}

impl Step {
    fn verb(self) -> &'static str {
        match self {
            Self::Open => "opening it",
            Self::Ask => "asking what it is",
            Self::List => "listing its formats",
            Self::Format { .. } => "setting its format",
            Self::Rate => "setting its rate",
            Self::Request => "making buffers",
            Self::Buffers => "using its buffers",
            Self::Start => "starting the stream",
            Self::Read => "reading a picture",
        }
    }
}

const GONE: &str = "no such device; plug the camera in, or check the path";
const WENT: &str = "it went away; check its plug and cable";
/// The cause of a camera that this user may not open.
pub const DENIED: &str = "permission denied; add this user to the group 'video' (in a systemd unit: \
                      SupplementaryGroups=video)";
/// The cause of a camera that is taken.
pub const BUSY: &str = "another program uses it; end that one";
const NO_CAMERA: &str = "this is no V4L2 device; give a camera like /dev/video0";
const BANDWIDTH: &str = "its USB bus has too little bandwidth left; set [source] format = \"mjpeg\" or a smaller \
                         size or fps, or use another port";
const PIPELINE: &str = "its pipeline is not set up; a camera on a ribbon cable needs rpicam-vid, whose output \
                        --source - reads";
const NO_BUFFERS: &str = "its driver gives no mapped buffers; use another camera";
const NO_FORMAT: &str = "it refuses the format or size; see 'ghostlight doctor' for what it has, or leave [source] \
                         format, width and height out";

/// The error of a step on the device `name`.
///
/// What may pass is [`SourceError::Absent`]: udev gives a node that was just plugged in its group a moment
/// late, another program ends, a bus gets free.
pub fn fault(name: &str, step: Step, error: io::Error) -> SourceError {
    let absent = |cause: &str| SourceError::Absent { name: name.to_owned(), cause: cause.to_owned() };
    let unfit = |cause: &str| SourceError::Unfit { name: name.to_owned(), cause: cause.to_owned() };
    match (error.raw_os_error(), step) {
        (Some(libc::ENOENT | libc::ENODEV | libc::ENXIO), Step::Open) => absent(GONE),
        (Some(libc::ENODEV | libc::ENXIO | libc::ESHUTDOWN), _) => absent(WENT),
        (Some(libc::EACCES | libc::EPERM), Step::Open) => absent(DENIED),
        (Some(libc::EBUSY), _) => absent(BUSY),
        // ENOSYS is what an emulator or a sandbox says of a request that it does not pass on.
        (Some(libc::ENOTTY | libc::EINVAL | libc::ENOSYS), Step::Ask) => unfit(NO_CAMERA),
        (Some(libc::EINVAL), Step::Format { asked: true }) => unfit(NO_FORMAT),
        (Some(libc::EINVAL), Step::Request) => unfit(NO_BUFFERS),
        (Some(libc::ENOSPC), Step::Start) => absent(BANDWIDTH),
        (Some(libc::ENOLINK), Step::Start) => unfit(PIPELINE),
        _ => {
            let cause = format!("{}: {error}; unplug the camera and plug it in", step.verb());
            SourceError::Read { name: name.to_owned(), error: io::Error::new(error.kind(), cause) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_it_means_there() {
        const ASKED: Step = Step::Format { asked: true };
        let cases = [
            (Step::Open, libc::ENOENT, "Absent", "check the path"),
            (Step::Open, libc::ENODEV, "Absent", "plug the camera in"),
            (Step::Open, libc::ENXIO, "Absent", "plug the camera in"),
            (Step::Open, libc::EACCES, "Absent", "group 'video'"),
            (Step::Open, libc::EBUSY, "Absent", "another program"),
            (Step::Open, libc::EIO, "Read", "opening it"),
            (Step::Ask, libc::ENOTTY, "Unfit", "no V4L2 device"),
            (Step::Ask, libc::ENOSYS, "Unfit", "no V4L2 device"),
            (Step::List, libc::ENODEV, "Absent", "went away"),
            (ASKED, libc::EINVAL, "Unfit", "refuses the format"),
            (ASKED, libc::EBUSY, "Absent", "another program"),
            (Step::Format { asked: false }, libc::EINVAL, "Read", "setting its format"),
            (Step::Rate, libc::EIO, "Read", "setting its rate"),
            (Step::Request, libc::EBUSY, "Absent", "another program"),
            (Step::Request, libc::EINVAL, "Unfit", "no mapped buffers"),
            (Step::Request, libc::ENOMEM, "Read", "making buffers"),
            (Step::Buffers, libc::EINVAL, "Read", "using its buffers"),
            (Step::Start, libc::ENOSPC, "Absent", "bandwidth"),
            (Step::Start, libc::ENOLINK, "Unfit", "rpicam-vid"),
            (Step::Start, libc::EINVAL, "Read", "starting the stream"),
            (Step::Start, libc::EIO, "Read", "starting the stream"),
            (Step::Read, libc::EIO, "Read", "reading a picture"),
            (Step::Read, libc::ENODEV, "Absent", "went away"),
            (Step::Read, libc::ESHUTDOWN, "Absent", "went away"),
        ];
        for (step, errno, kind, words) in cases {
            let error = fault("/dev/video7", step, io::Error::from_raw_os_error(errno));
            let text = error.to_string();
            assert!(text.starts_with("/dev/video7: ") && text.contains(words), "{step:?} {errno}: {text}");
            assert!(format!("{error:?}").starts_with(kind), "{step:?} {errno}: {error:?}");
            assert_eq!(error.may_recover(), kind != "Unfit");
        }
    }
}
