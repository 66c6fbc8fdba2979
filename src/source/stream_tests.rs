use proptest::prelude::*;

use super::*;

type Seen = (PixelFormat, usize, usize, u64, Vec<u8>);

/// Frames of a stream that comes in pieces of one length.
fn cut(asked: Asked, stream: &[u8], piece: usize) -> (Vec<Seen>, Result<(), StreamError>) {
    let mut decoder = Decoder::new(asked).unwrap();
    let mut seen = Vec::new();
    for bytes in stream.chunks(piece.max(1)) {
        let taken = decoder.take(bytes, |frame| {
            let checked = crate::vision::Pixels::from(&*frame).check();
            assert!(checked.is_ok() || frame.format == PixelFormat::Mjpeg, "{checked:?}");
            seen.push((frame.format, frame.width, frame.height, frame.sequence, frame.bytes.clone()));
            // Whatever comes back in exchange has other bytes in it.
            frame.bytes = vec![9; 7];
        });
        if taken.is_err() {
            return (seen, taken);
        }
    }
    (seen, Ok(()))
}

fn raw(format: PixelFormat, width: usize, height: usize) -> Asked {
    Asked { format: Some(format), width: Some(width), height: Some(height) }
}

fn jpeg(salt: u8) -> Vec<u8> {
    vec![0xff, 0xd8, 0xff, 0xda, 0, 4, 1, 2, 9, salt, 0xff, 0xd9]
}

/// Two frames of 3x3 pixels: 9 of Y, 4 of U, 4 of V.
fn y4m() -> Vec<u8> {
    let mut stream = b"YUV4MPEG2 W3 H3 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\nFRAME\n".to_vec();
    stream.extend([1; 17]);
    stream.extend(b"FRAME It\n");
    stream.extend([2; 17]);
    stream
}

#[test]
fn each_kind_is_cut_whatever_the_pieces() {
    let mjpeg = [jpeg(1), vec![0, 0], jpeg(2)].concat();
    let (nv12, jpegs) = (raw(PixelFormat::Nv12, 2, 2), (PixelFormat::Mjpeg, 0, 0));
    for piece in [1, 2, 3, 7, 50, 1000] {
        let (frames, end) = cut(Asked::default(), &mjpeg, piece);
        let expected = [1, 2].map(|n| (jpegs.0, jpegs.1, jpegs.2, u64::from(n) - 1, jpeg(n)));
        assert_eq!((frames.as_slice(), end), (&expected[..], Ok(())), "MJPEG by {piece}");
        let (frames, end) = cut(Asked::default(), &y4m(), piece);
        let expected = [1, 2].map(|n| (PixelFormat::Yu12, 3, 3, u64::from(n) - 1, vec![n; 17]));
        assert_eq!((frames.as_slice(), end), (&expected[..], Ok(())), "YUV4MPEG2 by {piece}");
        let (frames, end) = cut(nv12, &[[1; 6], [2; 6]].concat(), piece);
        let expected = [1, 2].map(|n| (PixelFormat::Nv12, 2, 2, u64::from(n) - 1, vec![n; 6]));
        assert_eq!((frames.as_slice(), end), (&expected[..], Ok(())), "raw by {piece}");
    }
}

#[test]
fn a_stream_that_ends_anywhere_gives_its_whole_frames_alone() {
    let stream = y4m();
    let first = stream.len() - 17 - 9;
    for end in 0..=stream.len() {
        let (frames, fault) = cut(Asked::default(), &stream[..end], 5);
        assert_eq!(frames.len(), usize::from(end >= first) + usize::from(end == stream.len()), "{end} bytes");
        assert_eq!(fault, Ok(()));
    }
}

#[test]
fn a_dropped_picture_is_a_gap() {
    let broken = vec![0xff, 0xd8, 0xff, 0xe0, 0, 1];
    let (frames, _) = cut(Asked::default(), &[jpeg(1), broken, jpeg(2)].concat(), 4);
    assert_eq!(frames.iter().map(|frame| frame.3).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn each_fault_has_its_words() {
    let faults: [(&[u8], &str); 12] = [
        (b"hello", "rpicam-vid -t 0 --codec mjpeg -o -"),
        (b"\xff\xd9", "neither"),
        (b"YUV4MPEG2 W3\n", "no width or no height"),
        (b"YUV4MPEG2 W-3 H3\n", "the width is '-3'"),
        (b"YUV4MPEG2 W3 H\x1b\n", "the height is '\\u{1b}'"),
        (b"YUV4MPEG2 W3 H0\n", "the height is '0'"),
        (b"YUV4MPEG2 W3 H3 C422\n", "C422 is not read"),
        (b"YUV4MPEG2 W3 H3 C420p10\n", "C420p10 is not read"),
        (b"YUV4MPEG2 W65535 H65535\n", "up to 64 MB"),
        (b"YUV4MPEG2 W70000 H1\n", "70000x1"),
        (b"YUV4MPEG2 \xff\xfe\n", "not text"),
        (b"YUV4MPEG2 W3 H3 Cmono\nFRAMES\n", "behind frame 0"),
    ];
    for (stream, words) in faults {
        let fault = cut(Asked::default(), stream, 3).1.unwrap_err().to_string();
        assert!(fault.contains(words), "{fault:?} has no {words:?}");
    }
    let long = [Y4M, &[b'W'; 2000]].concat();
    assert!(matches!(cut(Asked::default(), &long, 100).1, Err(StreamError::Header(_))));
    assert!(Decoder::new(raw(PixelFormat::Rgb3, 60_000, 60_000)).is_err());
}

#[test]
fn a_lost_stream_is_told_at_its_first_bytes_and_may_be_opened_anew() {
    let stream = [&y4m()[..], &[3; 2]].concat();
    let (frames, fault) = cut(Asked::default(), &stream, 7);
    assert_eq!((frames.len(), &fault), (2, &Err(StreamError::Lost(2))));
    assert!(fault.unwrap_err().of("x").may_recover() && !StreamError::Unknown.of("x").may_recover());
}

#[test]
fn what_comes_is_described_once_it_is_known() {
    let mut decoder = Decoder::new(Asked::default()).unwrap();
    decoder.take(b"YUV4MPEG2 W4 H2 ", |_| {}).unwrap();
    assert_eq!(decoder.describe(), None);
    decoder.take(b"Cmono\n", |_| {}).unwrap();
    assert_eq!(decoder.describe().as_deref(), Some("GREY 4x2"));
}

proptest! {
    #[test]
    fn hostile_bytes_give_the_same_whatever_the_pieces(
        head in prop_oneof![Just(&b""[..]), Just(&b"\xff\xd8"[..]), Just(Y4M), Just(&b"YUV4MPEG2 W2 H2 Cmono\n"[..])],
        bytes in proptest::collection::vec(
            prop_oneof![Just(0xffu8), Just(0xd8), Just(0xd9), Just(b'\n'), Just(b' '), Just(b'W'), Just(b'H'), Just(b'1'), any::<u8>()],
            0..200,
        ),
        frame in any::<bool>(),
        piece in 1usize..30,
    ) {
        let stream = [head, if frame { b"FRAME\n" } else { b"" }, &bytes].concat();
        let whole = cut(Asked::default(), &stream, stream.len());
        prop_assert_eq!(cut(Asked::default(), &stream, piece), whole);
    }
}
