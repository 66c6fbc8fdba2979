//! The kernel's V4L2, call by call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::driver::{
    Capability, Driver, Filled, FourCc, Interval, IntervalOffer, Layout, Mapping, Ready, SizeOffer,
};
use crate::vision::Size;

/// Pictures of one plane from a device.
const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
/// Memory of the driver's, mapped.
const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

/// A structure that the kernel reads and writes.
///
/// # Safety
/// - Any bytes are a value of it, zeros included.
/// - With [`CAPTURE`] and [`MMAP`] as its types the kernel follows no pointer in it.
unsafe trait Plain {}

macro_rules! plain {
    ($($structure:ty),*) => {
        $(
            // SAFETY: integers, and unions of integers and pointers that only other types of buffers use.
            unsafe impl Plain for $structure {}
        )*
    };
}

plain!(
    sys::v4l2_capability,
    sys::v4l2_fmtdesc,
    sys::v4l2_frmsizeenum,
    sys::v4l2_frmivalenum,
    sys::v4l2_format,
    sys::v4l2_streamparm,
    sys::v4l2_requestbuffers,
    sys::v4l2_buffer,
    libc::c_int
);

fn zeroed<T: Plain>() -> T {
    // SAFETY: any bytes are a value of a `Plain`.
    unsafe { std::mem::zeroed() }
}

/// Bytes of the structure that a request is for, as its number says.
const fn structure_bytes(request: vidioc::_IOC_TYPE) -> usize {
    (request as u32 >> 16 & 0x3fff) as usize
}

/// An open device node.
#[derive(Debug)]
pub struct Device {
    file: File,
}

impl Device {
    /// Opens a node. It never blocks, and no child inherits it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The standard library adds O_CLOEXEC.
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file })
    }

    fn call<const REQUEST: vidioc::_IOC_TYPE, T: Plain>(&self, argument: &mut T) -> io::Result<()> {
        const { assert!(structure_bytes(REQUEST) == size_of::<T>(), "the request is for another structure") };
        loop {
            // SAFETY: the descriptor is open; the kernel reads and writes as many bytes as the request says,
            // which is the structure's size; the structure is `Plain`.
            let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), REQUEST, &raw mut *argument) };
            if answer != -1 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn buffer(index: u32) -> sys::v4l2_buffer {
        sys::v4l2_buffer { index, type_: CAPTURE, memory: MMAP, ..zeroed() }
    }
}

impl Driver for Device {
    type Mapping = Mapped;

    fn capability(&self) -> io::Result<Capability> {
        let mut answer: sys::v4l2_capability = zeroed();
        self.call::<{ vidioc::VIDIOC_QUERYCAP }, _>(&mut answer)?;
        let node = answer.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0;
        let flags = if node { answer.device_caps } else { answer.capabilities };
        let needed = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING;
        Ok(Capability {
            card: text(&answer.card),
            captures: flags & needed == needed,
            multi_planar: flags & sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0,
        })
    }

    fn format(&self, index: u32) -> io::Result<FourCc> {
        let mut answer = sys::v4l2_fmtdesc { index, type_: CAPTURE, ..zeroed() };
        self.call::<{ vidioc::VIDIOC_ENUM_FMT }, _>(&mut answer)?;
        Ok(FourCc(answer.pixelformat.to_le_bytes()))
    }

    fn size(&self, fourcc: FourCc, index: u32) -> io::Result<SizeOffer> {
        let mut answer = sys::v4l2_frmsizeenum { index, pixel_format: code(fourcc), ..zeroed() };
        self.call::<{ vidioc::VIDIOC_ENUM_FRAMESIZES }, _>(&mut answer)?;
        if answer.type_ == sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
            // SAFETY: any bytes are a value of each of the union's structures.
            let one = unsafe { answer.__bindgen_anon_1.discrete };
            return Ok(SizeOffer::Discrete(size(one.width, one.height)));
        }
        // SAFETY: as above.
        let range = unsafe { answer.__bindgen_anon_1.stepwise };
        Ok(SizeOffer::Range {
            min: size(range.min_width, range.min_height),
            max: size(range.max_width, range.max_height),
            step: size(range.step_width, range.step_height),
        })
    }

    fn interval(&self, fourcc: FourCc, size: Size, index: u32) -> io::Result<IntervalOffer> {
        let mut answer = sys::v4l2_frmivalenum {
            index,
            pixel_format: code(fourcc),
            width: size.width as u32,
            height: size.height as u32,
            ..zeroed()
        };
        self.call::<{ vidioc::VIDIOC_ENUM_FRAMEINTERVALS }, _>(&mut answer)?;
        if answer.type_ == sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
            // SAFETY: any bytes are a value of each of the union's structures.
            return Ok(IntervalOffer::Discrete(interval(unsafe { answer.__bindgen_anon_1.discrete })));
        }
        // SAFETY: as above.
        let range = unsafe { answer.__bindgen_anon_1.stepwise };
        Ok(IntervalOffer::Range { shortest: interval(range.min), longest: interval(range.max) })
    }

    fn set_format(&self, fourcc: FourCc, wanted: Size) -> io::Result<Layout> {
        let mut answer = sys::v4l2_format { type_: CAPTURE, ..zeroed() };
        answer.fmt.pix.width = wanted.width as u32;
        answer.fmt.pix.height = wanted.height as u32;
        answer.fmt.pix.pixelformat = code(fourcc);
        self.call::<{ vidioc::VIDIOC_S_FMT }, _>(&mut answer)?;
        // SAFETY: any bytes are a value of the union's structure for `CAPTURE`.
        let pix = unsafe { answer.fmt.pix };
        Ok(Layout {
            fourcc: FourCc(pix.pixelformat.to_le_bytes()),
            size: size(pix.width, pix.height),
            stride: pix.bytesperline as usize,
        })
    }

    fn set_interval(&self, wanted: Interval) -> io::Result<Interval> {
        let mut answer = sys::v4l2_streamparm { type_: CAPTURE, ..zeroed() };
        answer.parm.capture.timeperframe =
            sys::v4l2_fract { numerator: wanted.numerator, denominator: wanted.denominator };
        self.call::<{ vidioc::VIDIOC_S_PARM }, _>(&mut answer)?;
        // SAFETY: any bytes are a value of the union's structure for `CAPTURE`.
        Ok(interval(unsafe { answer.parm.capture.timeperframe }))
    }

    fn request(&self, count: u32) -> io::Result<u32> {
        let mut answer = sys::v4l2_requestbuffers { count, type_: CAPTURE, memory: MMAP, ..zeroed() };
        self.call::<{ vidioc::VIDIOC_REQBUFS }, _>(&mut answer)?;
        Ok(answer.count)
    }

    fn map(&self, index: u32) -> io::Result<Mapped> {
        let mut buffer = Self::buffer(index);
        self.call::<{ vidioc::VIDIOC_QUERYBUF }, _>(&mut buffer)?;
        // SAFETY: any bytes are a value of each of the union's fields.
        let offset = unsafe { buffer.m.offset };
        Mapped::new(&self.file, offset, buffer.length as usize)
    }

    fn queue(&self, index: u32) -> io::Result<()> {
        self.call::<{ vidioc::VIDIOC_QBUF }, _>(&mut Self::buffer(index))
    }

    fn dequeue(&self) -> io::Result<Filled> {
        let mut buffer = Self::buffer(0);
        self.call::<{ vidioc::VIDIOC_DQBUF }, _>(&mut buffer)?;
        let clock = buffer.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK;
        let monotonic = clock == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        Ok(Filled {
            index: buffer.index,
            bytes: buffer.bytesused as usize,
            damaged: buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            sequence: buffer.sequence,
            taken: monotonic.then(|| duration(&buffer.timestamp)).flatten(),
        })
    }

    fn start(&self) -> io::Result<()> {
        self.call::<{ vidioc::VIDIOC_STREAMON }, _>(&mut (CAPTURE as libc::c_int))
    }

    fn stop(&self) -> io::Result<()> {
        self.call::<{ vidioc::VIDIOC_STREAMOFF }, _>(&mut (CAPTURE as libc::c_int))
    }

    fn wait(&self, time: Duration) -> io::Result<Ready> {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Rounded up: what is left of a millisecond is not to be spun away.
        let time = time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as libc::c_int;
        // SAFETY: one structure, which lives through the call.
        match unsafe { libc::poll(&raw mut poll, 1, time) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(Ready::Nothing),
                error => Err(error),
            },
            _ if poll.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => Ok(Ready::Fault),
            0 => Ok(Ready::Nothing),
            _ => Ok(Ready::Buffer),
        }
    }

    fn now(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A buffer of the driver's in this process' memory, to read.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its mapping, which belongs to the process and not to a thread.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(file: &File, offset: u32, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory that is in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Mapping for Mapped {
    fn copy(&self, length: usize, into: &mut Vec<u8>) {
        let length = length.min(self.length);
        into.clear();
        into.reserve(length);
        // SAFETY: `length` bytes are mapped and readable until `self` is dropped; the vector has room for as
        // many and lies elsewhere. No reference is made: a device that still writes spoils the picture only.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr(), into.as_mut_ptr(), length);
            into.set_len(length);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn code(fourcc: FourCc) -> u32 {
    u32::from_le_bytes(fourcc.0)
}

fn size(width: u32, height: u32) -> Size {
    Size { width: width as usize, height: height as usize }
}

fn interval(fraction: sys::v4l2_fract) -> Interval {
    Interval { numerator: fraction.numerator, denominator: fraction.denominator }
}

fn duration(time: &sys::timeval) -> Option<Duration> {
    let micros = u32::try_from(time.tv_usec).ok().filter(|&micros| micros < 1_000_000)?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, 1000 * micros))
}

/// A text of fixed length, which ends at its first zero and is whatever the device says.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(&bytes[..end]).trim().chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_any_bytes() {
        assert_eq!(text(b"HD Cam\0\0\0junk"), "HD Cam");
        assert_eq!(text(b"Cam\xe9ra \0"), "Cam\u{fffd}ra");
        assert_eq!(text(b"a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(text(&[0xff; 32]).chars().count(), 32);
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn a_file_is_no_camera() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = Device::open(file.path()).unwrap();
        // The kernel says ENOTTY, an emulator that knows no V4L2 requests ENOSYS.
        let refused = |error: io::Error| matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::ENOSYS));
        assert!(device.capability().is_err_and(refused));
        assert!(device.request(4).is_err_and(refused));
        assert!(device.dequeue().is_err_and(refused));
        assert!(device.start().is_err_and(refused));
    }

    #[test]
    fn no_child_inherits_the_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = Device::open(file.path()).unwrap();
        // SAFETY: the descriptor is open; the call takes no memory.
        let flags = unsafe { libc::fcntl(device.file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_mapping_copies_what_it_has_and_no_more() {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"picture").unwrap();
        let mapped = Mapped::new(file.as_file(), 0, 7).unwrap();
        let mut bytes = b"what was there before".to_vec();
        mapped.copy(3, &mut bytes);
        assert_eq!(bytes, b"pic");
        mapped.copy(100, &mut bytes);
        assert_eq!(bytes, b"picture");
        assert!(Mapped::new(file.as_file(), 0, 0).is_err());
    }

    #[test]
    fn times_that_are_none() {
        let time = |tv_sec, tv_usec| duration(&sys::timeval { tv_sec, tv_usec });
        assert_eq!(time(5, 250_000), Some(Duration::from_millis(5250)));
        assert_eq!(time(-1, 0), None);
        assert_eq!(time(1, 1_000_000), None);
        assert_eq!(time(1, -1), None);
    }
}
