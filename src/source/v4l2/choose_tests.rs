use super::*;

/// Widths and heights.
type Sizes = &'static [(usize, usize)];
/// A format, its sizes and its one rate.
type Webcam = (&'static [u8; 4], Sizes, u32);

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

fn options() -> CameraOptions {
    CameraOptions {
        device: "/dev/video0".into(),
        format: None,
        width: None,
        height: None,
        fps: None,
        network: size(640, 640),
    }
}

fn discrete(sizes: &[(usize, usize)]) -> Vec<SizeOffer> {
    sizes.iter().map(|&(width, height)| SizeOffer::Discrete(size(width, height))).collect()
}

fn range(min: (usize, usize), max: (usize, usize), step: usize) -> Vec<SizeOffer> {
    let (min, max) = (size(min.0, min.1), size(max.0, max.1));
    vec![SizeOffer::Range { min, max, step: size(step, step) }]
}

fn per_second(fps: u32) -> IntervalOffer {
    IntervalOffer::Discrete(Interval { numerator: 1, denominator: fps })
}

#[test]
fn the_smallest_size_that_is_not_enlarged_or_the_largest() {
    const WEBCAM: Sizes = &[(640, 480), (160, 120), (1920, 1080), (1280, 720), (640, 360), (0, 0)];
    let cases: [(Sizes, Size, Size); 6] = [
        (WEBCAM, size(640, 640), size(640, 360)),
        (WEBCAM, size(640, 384), size(640, 360)),
        (WEBCAM, size(320, 320), size(640, 360)),
        (WEBCAM, size(960, 960), size(1280, 720)),
        (WEBCAM, size(4096, 4096), size(1920, 1080)),
        // As high as the network is enough.
        (&[(480, 640), (800, 600)], size(640, 640), size(480, 640)),
    ];
    for (sizes, network, expected) in cases {
        assert_eq!(
            best_size(&discrete(sizes), &CameraOptions { network, ..options() }),
            expected,
            "{network}"
        );
    }
}

#[test]
fn sizes_that_are_asked_for_go_first() {
    let sizes = discrete(&[(640, 480), (1280, 720), (1280, 960), (1920, 1080)]);
    let asked = |width, height| best_size(&sizes, &CameraOptions { width, height, ..options() });
    assert_eq!(asked(Some(1920), Some(1080)), size(1920, 1080));
    assert_eq!(asked(Some(1280), None), size(1280, 720));
    assert_eq!(asked(None, Some(960)), size(1280, 960));
    assert_eq!(asked(Some(1300), Some(700)), size(1280, 720));
    assert_eq!(asked(Some(16_384), Some(16_384)), size(1920, 1080));
}

#[test]
fn a_driver_without_sizes_is_asked_for_the_network_s() {
    assert_eq!(best_size(&[], &options()), size(640, 640));
    assert_eq!(best_size(&[], &CameraOptions { width: Some(800), ..options() }), size(800, 640));
}

#[test]
fn of_a_range_the_shape_of_the_largest() {
    let sensor = range((32, 32), (3280, 2464), 2);
    let of = |offers: &[SizeOffer], options: &CameraOptions| best_size(offers, options);
    assert_eq!(of(&sensor, &options()), size(640, 482));
    assert_eq!(of(&sensor, &CameraOptions { width: Some(1640), ..options() }), size(1640, 1232));
    assert_eq!(of(&sensor, &CameraOptions { height: Some(1232), ..options() }), size(1640, 1232));
    let both = CameraOptions { width: Some(801), height: Some(599), ..options() };
    assert_eq!(of(&sensor, &both), size(802, 600));
    // The network is higher than wide: its width is reached first.
    assert_eq!(of(&sensor, &CameraOptions { network: size(320, 640), ..options() }), size(320, 242));
    assert_eq!(of(&range((2, 1), (8192, 8192), 1), &options()), size(640, 640));
    // Beyond the range, off the grid, and ranges that make no sense.
    assert_eq!(of(&range((16, 16), (320, 240), 0), &options()), size(320, 240));
    assert_eq!(of(&range((10, 10), (325, 245), 100), &options()), size(310, 210));
    assert_eq!(of(&range((640, 480), (320, 240), 8), &options()), size(640, 480));
    assert_eq!(of(&range((0, 0), (0, 0), 0), &options()), size(640, 640));
    let most = u32::MAX as usize;
    assert_eq!(of(&range((1, 1), (most, most), 1), &options()), size(640, 640));
}

#[test]
fn rates() {
    let offers = [per_second(60), per_second(5), per_second(30), per_second(15)];
    let chosen = |offers: &[IntervalOffer], wanted| best_interval(offers, wanted).1;
    assert_eq!(chosen(&offers, None), 30.0);
    assert_eq!(chosen(&offers, Some(30.0)), 30.0);
    assert_eq!(chosen(&offers, Some(10.0)), 15.0);
    assert_eq!(chosen(&offers, Some(0.2)), 5.0);
    assert_eq!(chosen(&offers, Some(120.0)), 60.0);
    assert_eq!(chosen(&[per_second(60), per_second(120)], None), 60.0);
    let ntsc = IntervalOffer::Discrete(Interval { numerator: 1001, denominator: 30_000 });
    assert!((chosen(&[ntsc, per_second(60)], Some(30.0)) - 29.97).abs() < 0.01);
    // Nothing listed, or nothing that means anything.
    assert_eq!(best_interval(&[], None), (None, f64::INFINITY));
    assert_eq!(best_interval(&[], Some(7.5)).0, Some(Interval { numerator: 1000, denominator: 7500 }));
    assert_eq!(best_interval(&[per_second(0)], None).0, None);
}

#[test]
fn rates_of_a_range() {
    let each = |fps| Interval { numerator: 1, denominator: fps };
    let range = [IntervalOffer::Range { shortest: each(90), longest: each(2) }];
    let chosen = |wanted| best_interval(&range, wanted).0.unwrap();
    assert_eq!(chosen(None), each(30));
    assert_eq!(chosen(Some(25.0)), each(25));
    assert_eq!(chosen(Some(500.0)), each(90));
    assert_eq!(chosen(Some(1.0)), each(2));
}

/// The format that is chosen, and its size.
fn choice(camera: &[Webcam], options: &CameraOptions) -> (String, Size) {
    let offers: Vec<FormatOffer> = camera
        .iter()
        .map(|(fourcc, sizes, _)| FormatOffer { fourcc: FourCc(**fourcc), sizes: discrete(sizes) })
        .collect();
    let with_rates = modes(&offers, options)
        .unwrap()
        .into_iter()
        .map(|mode| {
            let rate = camera.iter().find(|(fourcc, _, _)| **fourcc == mode.fourcc.0).unwrap().2;
            (mode, vec![per_second(rate)])
        })
        .collect();
    let mode = best(with_rates, options).unwrap();
    (mode.fourcc.to_string(), mode.size)
}

#[test]
fn raw_pictures_unless_only_jpeg_is_large_or_fast_enough() {
    const VGA: Sizes = &[(640, 480)];
    const SMALL: Sizes = &[(320, 240)];
    let fast = |fps| CameraOptions { fps: Some(fps), ..options() };
    let first = |camera: &[Webcam], options: &CameraOptions| choice(camera, options).0;
    let usual: [Webcam; 2] = [(b"MJPG", VGA, 30), (b"YUYV", VGA, 30)];
    assert_eq!(first(&usual, &options()), "YUYV");
    assert_eq!(first(&[(b"YUYV", VGA, 30), (b"NV12", VGA, 30)], &options()), "NV12");
    assert_eq!(first(&[(b"GREY", VGA, 30), (b"MJPG", VGA, 30)], &options()), "MJPG");
    // Slower, but fast enough.
    assert_eq!(first(&[(b"MJPG", VGA, 30), (b"YUYV", VGA, 15)], &options()), "YUYV");
    // Too slow, of itself or for what is wanted.
    assert_eq!(first(&[(b"MJPG", VGA, 30), (b"YUYV", VGA, 5)], &options()), "MJPG");
    assert_eq!(first(&[(b"MJPG", VGA, 30), (b"YUYV", VGA, 15)], &fast(30.0)), "MJPG");
    assert_eq!(first(&[(b"MJPG", VGA, 30), (b"YUYV", VGA, 5)], &fast(2.0)), "YUYV");
    // All too slow: the fastest.
    assert_eq!(first(&[(b"NV12", VGA, 5), (b"YUYV", VGA, 10)], &options()), "YUYV");
    // Too small.
    assert_eq!(
        choice(&[(b"YUYV", SMALL, 30), (b"MJPG", VGA, 30)], &options()),
        ("MJPG".into(), size(640, 480))
    );
    // What is asked for, however slow; and the size that is asked for before one that covers.
    let asked = CameraOptions { format: Some(PixelFormat::Yuyv), ..fast(30.0) };
    assert_eq!(first(&[(b"MJPG", VGA, 30), (b"YUYV", VGA, 5)], &asked), "YUYV");
    let small = CameraOptions { width: Some(320), height: Some(240), ..options() };
    assert_eq!(first(&[(b"YUYV", SMALL, 30), (b"MJPG", VGA, 30)], &small), "YUYV");
    // What is not read here does not count.
    assert_eq!(first(&[(b"H264", VGA, 30), (b"GREY", SMALL, 30)], &options()), "GREY");
}

#[test]
fn no_format_that_fits() {
    let offer = |fourcc: &[u8; 4]| FormatOffer { fourcc: FourCc(*fourcc), sizes: Vec::new() };
    assert_eq!(modes(&[], &options()), Err(NoMode::Nothing));
    let error = modes(&[offer(b"H264"), offer(b"Y16 ")], &options()).unwrap_err();
    assert_eq!(error, NoMode::Unknown { offered: "H264, Y16".into() });
    let asked = CameraOptions { format: Some(PixelFormat::Nv12), ..options() };
    let error = modes(&[offer(b"YUYV"), offer(b"H264"), offer(b"MJPG")], &asked).unwrap_err();
    assert!(error.to_string().contains("no NV12") && error.to_string().contains("YUYV, MJPEG"), "{error}");
}
