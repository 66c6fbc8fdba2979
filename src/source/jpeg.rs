//! Where a JPEG begins and ends in a stream of bytes, found by its markers.
//!
//! Segments are skipped by their length, so that a thumbnail in a header ends nothing; in entropy-coded data
//! only unstuffed markers count. What lies between pictures (padding, the headers of a multipart stream) is
//! skipped, and a truncated picture is dropped where the next one begins.

use super::MAX_FRAME_BYTES;

const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between pictures.
    Outside,
    /// Between pictures, behind 0xff.
    OutsideMarker,
    /// A marker's 0xff comes next.
    Marker,
    /// A marker's code comes next.
    Code,
    /// The first byte of a segment's length; whether entropy-coded data follows the segment.
    LengthHigh { scan: bool },
    /// The second one.
    LengthLow { scan: bool, high: u8 },
    /// Inside a segment with `left` bytes to go.
    Segment { scan: bool, left: usize },
    /// Entropy-coded data.
    Scan,
    /// Entropy-coded data, behind 0xff.
    ScanMarker,
}

/// Cuts pictures out of bytes that come in pieces.
#[derive(Debug)]
pub(super) struct JpegScanner {
    state: State,
    /// Pictures that began and were dropped since the last whole one.
    dropped: u64,
}

impl JpegScanner {
    pub(super) fn new() -> Self {
        Self { state: State::Outside, dropped: 0 }
    }

    /// Pictures dropped, broken or too large, since this was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes bytes into `picture`. Returns how many were taken and whether the picture is whole.
    pub(super) fn feed(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            let run = self.run(&bytes[at..]);
            if run > 0 {
                if self.state != State::Outside {
                    self.keep(&bytes[at..at + run], picture);
                }
                at += run;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if self.step(byte, picture) {
                self.state = State::Outside;
                return (at, true);
            }
        }
        (at, false)
    }

    /// Bytes from here on that change nothing but a count.
    fn run(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Outside | State::Scan => bytes.iter().position(|&b| b == MARKER).unwrap_or(bytes.len()),
            State::Segment { scan, left } => {
                let run = bytes.len().min(*left);
                *left -= run;
                if *left == 0 {
                    self.state = if *scan { State::Scan } else { State::Marker };
                }
                run
            }
            _ => 0,
        }
    }

    /// Keeps bytes of the picture, or drops the picture where it grows too large.
    fn keep(&mut self, bytes: &[u8], picture: &mut Vec<u8>) {
        if picture.len() + bytes.len() > MAX_FRAME_BYTES {
            self.drop_picture(picture);
        } else {
            picture.extend_from_slice(bytes);
        }
    }

    fn drop_picture(&mut self, picture: &mut Vec<u8>) {
        picture.clear();
        self.dropped += 1;
        self.state = State::Outside;
    }

    fn begin(&mut self, picture: &mut Vec<u8>) {
        picture.clear();
        picture.extend_from_slice(&[MARKER, START_OF_IMAGE]);
        self.state = State::Marker;
    }

    /// Takes one byte; whether it ends the picture.
    fn step(&mut self, byte: u8, picture: &mut Vec<u8>) -> bool {
        match self.state {
            State::Outside => self.state = State::OutsideMarker,
            State::OutsideMarker => match byte {
                START_OF_IMAGE => self.begin(picture),
                MARKER => {}
                _ => self.state = State::Outside,
            },
            State::Code | State::ScanMarker if byte == START_OF_IMAGE => {
                self.dropped += 1;
                self.begin(picture);
            }
            _ => {
                let next = self.inside(byte);
                let Some(next) = next else {
                    self.drop_picture(picture);
                    return false;
                };
                self.state = next;
                self.keep(&[byte], picture);
                return self.state == State::Outside && !picture.is_empty();
            }
        }
        false
    }

    /// The state behind a byte of a picture: `Outside` at its end, `None` where it is broken.
    fn inside(&self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Marker, MARKER) | (State::Code, MARKER) => State::Code,
            (State::Marker, _) | (State::Code, 0) => return None,
            (State::Code | State::ScanMarker, END_OF_IMAGE) => State::Outside,
            (State::ScanMarker, 0 | 0xd0..=0xd7) => State::Scan,
            (State::Scan | State::ScanMarker, MARKER) => State::ScanMarker,
            (State::Code, 0x01 | 0xd0..=0xd7) => State::Marker,
            (State::Code | State::ScanMarker, code) => State::LengthHigh { scan: code == START_OF_SCAN },
            (State::LengthHigh { scan }, high) => State::LengthLow { scan, high },
            (State::LengthLow { scan, high }, low) => match usize::from(u16::from_be_bytes([high, low])) {
                0 | 1 => return None,
                2 if scan => State::Scan,
                2 => State::Marker,
                length => State::Segment { scan, left: length - 2 },
            },
            (state, _) => state,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with an end marker inside a segment, a scan with a stuffed byte and a restart, the end.
    fn picture(salt: u8) -> Vec<u8> {
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xd9, 1, salt];
        jpeg.extend([0xff, 0xff, 0xda, 0, 4, 1, 2, 9, 0xff, 0, 0xd9, 0xff, 0xd3, salt, 0xff, 0xd9]);
        jpeg
    }

    fn cut(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, u64) {
        let mut scanner = JpegScanner::new();
        let (mut found, mut picture) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut at = 0;
            while at < piece.len() {
                let (taken, whole) = scanner.feed(&piece[at..], &mut picture);
                at += taken;
                if whole {
                    found.push(std::mem::take(&mut picture));
                }
            }
        }
        (found, scanner.take_dropped())
    }

    #[test]
    fn pictures_are_cut_whatever_the_pieces() {
        let mut stream = b"--b\r\nContent-Type: image/jpeg\r\n\r\n".to_vec();
        for salt in [1, 2, 3] {
            stream.extend(picture(salt));
            stream.extend([0, 0, 0xff, 0xff, 0, b'\r', b'\n']);
        }
        for piece in [1, 2, 3, 7, stream.len()] {
            let (found, dropped) = cut(&stream, piece);
            assert_eq!(found, [picture(1), picture(2), picture(3)], "pieces of {piece}");
            assert_eq!(dropped, 0);
        }
    }

    #[test]
    fn a_picture_cut_in_its_scan_is_dropped_and_counted() {
        let mut stream = picture(1);
        stream.truncate(stream.len() - 2);
        stream.extend(b"\r\n--b\r\n");
        stream.extend(picture(2));
        assert_eq!(cut(&stream, 5), (vec![picture(2)], 1));
    }

    #[test]
    fn a_length_below_two_is_broken() {
        let mut stream = vec![0xff, 0xd8, 0xff, 0xe0, 0, 1];
        stream.extend(picture(4));
        assert_eq!(cut(&stream, 3), (vec![picture(4)], 1));
    }

    proptest! {
        #[test]
        fn hostile_bytes_give_pictures_that_begin_and_end_as_such(
            bytes in proptest::collection::vec(prop_oneof![Just(0xffu8), Just(0xd8), Just(0xd9), Just(0xda), any::<u8>()], 0..300),
            piece in 1usize..40,
        ) {
            let (found, _) = cut(&bytes, piece);
            prop_assert_eq!(&found, &cut(&bytes, bytes.len().max(1)).0);
            for jpeg in found {
                prop_assert_eq!(&jpeg[..2], &[0xff, 0xd8]);
                prop_assert_eq!(&jpeg[jpeg.len() - 2..], &[0xff, 0xd9]);
            }
        }
    }
}
