use std::time::SystemTime;

use super::driver::IntervalOffer;
use super::fake::{Failure, Fake, Handle, Shot, State, Turn};
use super::*;

const PATIENCE: Duration = Duration::from_millis(200);

fn options() -> CameraOptions {
    CameraOptions {
        device: "/dev/video9".into(),
        format: None,
        width: None,
        height: None,
        fps: None,
        network: Size { width: 640, height: 640 },
    }
}

/// A webcam that offers one format.
fn webcam(fourcc: &[u8; 4]) -> State {
    let size = SizeOffer::Discrete(Size { width: 640, height: 480 });
    let rate = IntervalOffer::Discrete(Interval { numerator: 1, denominator: 30 });
    State { offers: vec![(FourCc(*fourcc), vec![size], vec![rate])], ..State::default() }
}

fn shots(shots: &[Shot]) -> Turn {
    Turn::Shots(shots.to_vec())
}

fn open(state: State) -> (Stream<Fake>, Handle) {
    let (fake, handle) = Fake::new(state);
    let (stream, _) = start(fake, "/dev/video9", &options()).unwrap();
    (stream, handle)
}

/// Opens, plays the script until nothing more comes or an error does, and checks that all came back.
fn play(state: State) -> (Vec<Frame>, Option<SourceError>, Handle) {
    let (fake, handle) = Fake::new(state);
    let mut frames = Vec::new();
    let error = match start(fake, "/dev/video9", &options()) {
        Err(error) => Some(error),
        Ok((mut stream, _)) => loop {
            let mut frame = Frame::default();
            match stream.next(&mut frame, PATIENCE) {
                Ok(Next::Frame) => frames.push(frame),
                Ok(_) => break None,
                Err(error) => break Some(error),
            }
        },
    };
    handle.assert_all_returned();
    (frames, error, handle)
}

fn text(error: Option<SourceError>) -> String {
    error.expect("it fails").to_string()
}

fn failing(error: SourceError) -> String {
    error.to_string()
}

#[test]
fn pictures_come_with_their_layout() {
    let layout = Layout { fourcc: FourCc(*b"YUYV"), size: Size { width: 352, height: 288 }, stride: 768 };
    let script = [shots(&[Shot::new(7, b"abcd")]), shots(&[Shot::new(8, b"efg")])].into();
    let state = State { given: Some(layout), script, ..webcam(b"YUYV") };
    let (frames, error, handle) = play(state);
    assert!(error.is_none());
    let [first, second] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!((first.width, first.height, first.stride), (352, 288, 768));
    assert_eq!((first.format, first.sequence, &first.bytes[..]), (PixelFormat::Yuyv, 7, &b"abcd"[..]));
    // Only what the driver says was used, though the buffer holds more.
    assert_eq!((second.sequence, &second.bytes[..]), (8, &b"efg"[..]));
    assert_eq!(handle.state().buffers, 0);
}

#[test]
fn it_is_described() {
    let (fake, _handle) = Fake::new(webcam(b"YUYV"));
    let (_, description) = start(fake, "/dev/video9", &options()).unwrap();
    assert_eq!(description, "/dev/video9 (Fake): YUYV 640x480 at 30 fps");
    let mut state = webcam(b"MJPG");
    state.offers[0].2.clear();
    let (fake, _handle) = Fake::new(state);
    let (_, description) = start(fake, "Cam", &options()).unwrap();
    assert_eq!(description, "Cam (Fake): MJPEG 640x480");
    let ntsc = CameraOptions { fps: Some(29.97), ..options() };
    let mut state = webcam(b"YUYV");
    state.offers[0].2 = vec![IntervalOffer::Discrete(Interval { numerator: 1001, denominator: 30_000 })];
    let (fake, _handle) = Fake::new(state);
    let (_, description) = start(fake, "Cam", &ntsc).unwrap();
    assert_eq!(description, "Cam (Fake): YUYV 640x480 at 29.97 fps");
}

#[test]
fn the_newest_of_several_is_given_and_the_others_are_gaps() {
    // More in all than there are buffers: those that are passed over must go back.
    let batch = |first: u32| shots(&[first, first + 1, first + 2].map(|n| Shot::new(n, &[n as u8])));
    let script = [batch(0), batch(3), batch(6), shots(&[Shot::new(9, &[9])])].into();
    let (frames, error, _) = play(State { script, ..webcam(b"YUYV") });
    assert!(error.is_none());
    let got: Vec<(u64, &[u8])> = frames.iter().map(|frame| (frame.sequence, &frame.bytes[..])).collect();
    assert_eq!(got, [(2, &[2][..]), (5, &[5]), (8, &[8]), (9, &[9])]);
}

#[test]
fn damaged_and_empty_pictures_are_skipped_and_count() {
    let newest_damaged = [Shot::new(3, b"good"), Shot::damaged(4)];
    let script = [
        shots(&[Shot::new(0, b"first")]),
        shots(&[Shot::damaged(1)]),
        shots(&[Shot::new(2, b"")]),
        shots(&newest_damaged),
    ];
    let (frames, error, _) = play(State { script: script.into(), ..webcam(b"YUYV") });
    assert!(error.is_none());
    let got: Vec<(u64, &[u8])> = frames.iter().map(|frame| (frame.sequence, &frame.bytes[..])).collect();
    assert_eq!(got, [(0, &b"first"[..]), (3, &b"good"[..])]);
}

#[test]
fn zeros_behind_a_jpeg_are_cut_off() {
    let padded = [&[0xff, 0xd8, 0, 7, 0xff, 0xd9][..], &[0; 500]].concat();
    let script = [shots(&[Shot::new(0, &[0; 64])]), shots(&[Shot::new(1, &padded)])];
    let (frames, error, _) = play(State { script: script.clone().into(), ..webcam(b"MJPG") });
    assert!(error.is_none());
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!((frame.sequence, frame.stride), (1, 0));
    assert_eq!(frame.bytes, padded[..6]);
    // Zeros of another format are black pixels.
    let (frames, _, _) = play(State { script: script.into(), ..webcam(b"YUYV") });
    assert_eq!(frames.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>(), [64, 506]);
}

#[test]
fn counts_wrap_stand_still_and_go_back() {
    let counts = [u32::MAX - 1, u32::MAX, 0, 2, 2, 2, 1, 5];
    let script = counts.map(|count| shots(&[Shot::new(count, b"x")]));
    let (frames, _, _) = play(State { script: script.into(), ..webcam(b"YUYV") });
    let first = u64::from(u32::MAX) - 1;
    let steps: Vec<u64> = frames.iter().map(|frame| frame.sequence - first).collect();
    assert_eq!(steps, [0, 1, 2, 4, 5, 6, 7, 11]);
}

#[test]
fn times_are_the_wall_s() {
    let start = Duration::from_secs(1000);
    let taken = |taken| shots(&[Shot { taken, ..Shot::new(0, b"x") }]);
    let script = [
        taken(Some(start - Duration::from_secs(3))),
        taken(None),
        // Of another clock, and from the future.
        taken(Some(Duration::from_secs(1))),
        taken(Some(2 * start)),
    ];
    let before = SystemTime::now();
    let (frames, _, _) = play(State { script: script.into(), clock: start, ..webcam(b"YUYV") });
    let after = SystemTime::now();
    let old = frames[0].captured;
    let age = Duration::from_millis(3001);
    assert!((before - age..=after - age).contains(&old), "{old:?}");
    for frame in &frames[1..] {
        assert!((before..=after).contains(&frame.captured), "{:?}", frame.captured);
    }
    assert_eq!(frames.len(), 4);
}

#[test]
fn nothing_within_patience_is_no_error_until_it_is_silence() {
    let (mut stream, handle) = open(webcam(b"YUYV"));
    let mut frame = Frame::default();
    for _ in 0..24 {
        assert_eq!(stream.next(&mut frame, PATIENCE).unwrap(), Next::Nothing);
    }
    let error = stream.next(&mut frame, PATIENCE).unwrap_err();
    assert!(error.may_recover());
    assert_eq!(error.to_string(), "/dev/video9: no picture for 5 s; check the camera and its cable");
    assert!(matches!(error, SourceError::Read { error, .. } if error.kind() == io::ErrorKind::TimedOut));
    drop(stream);
    handle.assert_all_returned();
}

#[test]
fn only_damaged_pictures_are_silence_and_do_not_spin() {
    let forever = Some(shots(&[Shot::damaged(1), Shot::damaged(2)]));
    let (mut stream, handle) = open(State { forever, ..webcam(b"YUYV") });
    let mut frame = Frame::default();
    let error = loop {
        match stream.next(&mut frame, PATIENCE) {
            Ok(next) => assert_eq!(next, Next::Nothing),
            Err(error) => break error,
        }
    };
    assert!(failing(error).contains("only damaged pictures for 5 s"));
    let state = handle.state();
    // A millisecond of waiting and two of rest each.
    assert!(state.waits <= 5000 / 3 + 50 && state.pauses + 50 >= state.waits, "{} waits", state.waits);
}

#[test]
fn a_slow_camera_has_more_time() {
    let mut state = webcam(b"YUYV");
    state.offers[0].2 = vec![IntervalOffer::Discrete(Interval { numerator: 4, denominator: 1 })];
    let (mut stream, _handle) = open(state);
    let mut frame = Frame::default();
    for _ in 0..99 {
        assert_eq!(stream.next(&mut frame, PATIENCE).unwrap(), Next::Nothing);
    }
    assert!(failing(stream.next(&mut frame, PATIENCE).unwrap_err()).contains("for 20 s"));
}

#[test]
fn waking_for_nothing_rests() {
    let (mut stream, handle) = open(State { forever: Some(Turn::Wake), ..webcam(b"YUYV") });
    assert_eq!(stream.next(&mut Frame::default(), PATIENCE).unwrap(), Next::Nothing);
    assert!(handle.state().waits <= 101, "{} waits", handle.state().waits);
}

#[test]
fn a_hang_up_is_an_error_once_the_last_picture_is_taken() {
    let (frames, error, handle) = play(State { script: [Turn::Fault].into(), ..webcam(b"YUYV") });
    assert!(frames.is_empty());
    assert!(text(error).contains("reading a picture"));
    assert_eq!(handle.state().waits, 1);
    // A picture that is there is given first.
    let script = [shots(&[Shot::new(0, b"a")]), Turn::Fault].into();
    let (frames, error, _) = play(State { script, ..webcam(b"YUYV") });
    assert_eq!(frames.len(), 1);
    assert!(error.is_some_and(|error| error.may_recover()));
}

#[test]
fn a_buffer_that_there_is_not() {
    let script = [shots(&[Shot::new(0, b"a")])].into();
    let (_, error, _) = play(State { script, wrong_index: Some(99), ..webcam(b"YUYV") });
    assert!(text(error).contains("buffer 99"));
}

#[test]
fn as_many_buffers_as_the_driver_grants() {
    for granted in [1, 2, 32] {
        let script = [shots(&[Shot::new(0, b"a")]), shots(&[Shot::new(1, b"b")])].into();
        let (frames, error, _) = play(State { script, granted: Some(granted), ..webcam(b"YUYV") });
        assert_eq!((frames.len(), error.is_none()), (2, true), "{granted}");
    }
    let (_, error, _) = play(State { granted: Some(0), ..webcam(b"YUYV") });
    assert!(text(error).contains("no mapped buffers"));
}

#[test]
fn devices_that_do_not_fit() {
    let (_, error, _) = play(State { no_capture: true, ..State::default() });
    assert!(text(error).contains("captures no video"));
    let (_, error, _) = play(State::default());
    assert!(text(error).contains("no format"));
    let (_, error, _) = play(webcam(b"H264"));
    assert!(text(error).contains("H264"));
    let layout = Layout { fourcc: FourCc(*b"H264"), size: Size { width: 640, height: 480 }, stride: 0 };
    let (_, error, _) = play(State { given: Some(layout), ..webcam(b"YUYV") });
    assert!(text(error).contains("it gives H264"));
    let (fake, handle) = Fake::new(webcam(b"YUYV"));
    let asked = CameraOptions { format: Some(PixelFormat::Nv12), ..options() };
    let error = start(fake, "/dev/video9", &asked).err().unwrap();
    assert!(!error.may_recover());
    assert!(failing(error).contains("no NV12"));
    handle.assert_all_returned();
}

#[test]
fn a_row_s_bytes_where_the_driver_leaves_them_out() {
    let layout = Layout { fourcc: FourCc(*b"YUYV"), size: Size { width: 640, height: 480 }, stride: 0 };
    let script = [shots(&[Shot::new(0, b"a")])].into();
    let (frames, _, _) = play(State { given: Some(layout), script, ..webcam(b"YUYV") });
    assert_eq!(frames[0].stride, 1280);
}

/// Whatever call fails, however, once or from then on: everything comes back, and the error names the device.
#[test]
fn everything_comes_back_wherever_it_fails() {
    let script: [Turn; 4] = [
        shots(&[Shot::new(0, b"a")]),
        shots(&[Shot::damaged(1)]),
        shots(&[Shot::new(2, b"b"), Shot::new(3, b"c"), Shot::damaged(4)]),
        Turn::Quiet,
    ];
    let errnos =
        [libc::ENODEV, libc::EIO, libc::EINVAL, libc::EBUSY, libc::ENOMEM, libc::ENOSPC, libc::EAGAIN];
    let state = || State { script: script.clone().into(), ..webcam(b"YUYV") };
    let (_, none, handle) = play(state());
    assert!(none.is_none());
    let calls = handle.state().calls;
    assert!(calls > 30, "{calls} calls");
    let mut failed = 0;
    for at in 0..calls {
        for errno in errnos {
            for lasting in [false, true] {
                let failure = Some(Failure { at, errno, lasting });
                let (_, error, handle) = play(State { failure, ..state() });
                assert!(handle.state().calls > at, "call {at} was not made");
                let Some(error) = error else { continue };
                failed += 1;
                let text = error.to_string();
                assert!(text.starts_with("/dev/video9: "), "{at} {errno}: {text}");
                // What went away may come back.
                assert!(errno != libc::ENODEV || matches!(error, SourceError::Absent { .. }), "{at}: {text}");
            }
        }
    }
    assert!(failed > calls, "only {failed} failures");
}

#[test]
fn a_camera_is_found_by_its_name() {
    let is = |card: &str, captures| Ok(Capability { card: card.into(), captures, multi_planar: false });
    let nodes = || {
        let error = Err(io::Error::from_raw_os_error(libc::EACCES));
        [is("Cam", false), is("Other", true), is("Cam", true), is("Cam", true), error]
            .into_iter()
            .enumerate()
            .map(|(number, capability)| (capability, PathBuf::from(format!("/dev/video{number}"))))
    };
    assert_eq!(named("Cam", nodes()).unwrap(), Path::new("/dev/video2"));
    let error = named("Cam 2", nodes()).unwrap_err();
    assert!(error.may_recover());
    let text = error.to_string();
    assert!(text.contains("Other (/dev/video1)") && text.contains("group 'video'"), "{text}");
    assert!(named("Cam", std::iter::empty()).unwrap_err().to_string().contains("nor any other"));
    assert_eq!(resolve("/dev/v4l/by-id/x").unwrap(), Path::new("/dev/v4l/by-id/x"));
}

#[test]
fn paths_that_are_no_camera() {
    let open =
        |device: &str| Camera::open(&CameraOptions { device: device.into(), ..options() }).unwrap_err();
    let error = open("/dev/video-nowhere");
    assert!(matches!(error, SourceError::Absent { .. }));
    assert!(error.to_string().starts_with("/dev/video-nowhere: no such device"), "{error}");
    let error = open("/dev/null");
    assert!(matches!(error, SourceError::Unfit { .. }), "{error}");
}
