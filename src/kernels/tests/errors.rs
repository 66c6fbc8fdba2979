//! What the safe operations refuse: the smallest bad input for each fault.

use super::*;
use crate::kernels::ops::*;

/// A job that is good in an arena of 64 bytes: 2 x 2 pixels, 4 to 4 channels, 1x1.
fn with_job(change: impl FnOnce(&mut ConvJob<'_>)) -> Result<(), OpError> {
    let weights = Arena::new(128);
    let requant = Requant {
        bias: vec![0; 16],
        scale: vec![1.0; 16],
        act: Act::Identity,
        mult: vec![1; 16],
        zero: vec![0; 16],
        residual: None,
    };
    let mut job = ConvJob {
        input: View::dense(0, 2, 2, 4),
        output: View::dense(16, 2, 2, 4),
        window: Window { kernel: 1, stride: 1, dilation: 1, pad_top: 0, pad_left: 0 },
        weights: weights.signed(),
        pad_row: &[0; 8],
        requant: &requant,
        residual: None,
    };
    change(&mut job);
    let mut arena = Arena::new(64);
    let mut team = Team::new(1).expect("no thread");
    team.frame(|crew| conv(&scalar::Scalar, crew, &mut arena, &job))
}

#[test]
fn convolutions() {
    assert_eq!(with_job(|_| {}), Ok(()));
    let outside = |r| matches!(r, Err(OpError::Outside { .. }));
    assert!(outside(with_job(|j| j.input.offset = 49)));
    assert!(outside(with_job(|j| j.output.offset = usize::MAX)));
    assert!(outside(with_job(|j| j.input.height = 1 << 24)));
    assert_eq!(with_job(|j| j.input.height = usize::MAX), Err(OpError::Geometry { size: usize::MAX }));
    assert_eq!(with_job(|j| j.output.stride = 3), Err(OpError::Stride { bytes: 4, stride: 3 }));
    let overlap = Err(OpError::Overlap { what: "input" });
    assert_eq!(with_job(|j| j.output.offset = 15), overlap);
    assert_eq!(with_job(|j| j.output.offset = 0), overlap);
    let element = |what, element, wanted| Err(OpError::Element { what, element, wanted });
    assert_eq!(with_job(|j| j.input.element = 4), element("input", 4, 1));
    assert_eq!(with_job(|j| j.output.element = 4), element("output", 4, 1));
    assert_eq!(with_job(|j| j.window.kernel = 0), Err(OpError::Window { size: 0 }));
    assert_eq!(with_job(|j| j.window.kernel = 8), Err(OpError::Window { size: 8 }));
    assert_eq!(with_job(|j| j.window.dilation = usize::MAX), Err(OpError::Geometry { size: usize::MAX }));
    let short = |what, have, want| Err(OpError::Short { what, have, want });
    assert_eq!(with_job(|j| j.weights = &j.weights[..63]), short("weights", 63, 64));
    assert_eq!(with_job(|j| j.weights = &[]), short("weights", 0, 64));
    assert_eq!(with_job(|j| j.pad_row = &[0; 3]), short("pad_row", 3, 4));
    assert_eq!(with_job(|j| j.weights = misaligned()), Err(OpError::Unaligned));
    assert_eq!(with_job(|j| j.residual = Some(j.output)), Err(OpError::Residual));
}

/// Weights that do not begin at a multiple of 64; leaked, to outlive any job.
fn misaligned() -> &'static [i8] {
    &Box::leak(Box::new(Arena::new(128))).signed()[1..]
}

#[test]
fn requantisations() {
    let good = Requant {
        bias: vec![0; 16],
        scale: vec![1.0; 16],
        act: Act::Identity,
        mult: vec![1; 16],
        zero: vec![0; 16],
        residual: Some(Residual { mult: vec![1; 16], zero: vec![0; 16] }),
    };
    let try_it = |requant: &Requant, residual: View| {
        let weights = Arena::new(64);
        let job = ConvJob {
            input: View::dense(0, 2, 2, 4),
            output: View { element: if requant.is_float() { 4 } else { 1 }, ..View::dense(16, 1, 1, 4) },
            window: Window { kernel: 1, stride: 2, dilation: 1, pad_top: 0, pad_left: 0 },
            weights: weights.signed(),
            pad_row: &[0; 8],
            requant,
            residual: Some(residual),
        };
        job.check(Layout::N16K4, 64)
    };
    let view = View::dense(32, 1, 1, 4);
    assert_eq!(try_it(&good, view), Ok(()));
    assert_eq!(try_it(&good, View { offset: 18, ..view }), Err(OpError::Overlap { what: "residual" }));
    let (have, want) = ((2, 1, 4), (1, 1, 4));
    let tall = View { height: 2, ..view };
    assert_eq!(try_it(&good, tall), Err(OpError::Shape { what: "residual", have, want }));
    for i in 0..6 {
        let mut bad = good.clone();
        let residual = bad.residual.as_mut().expect("has one");
        match i {
            0 => bad.bias.truncate(15),
            1 => bad.scale.truncate(4),
            2 => bad.mult.truncate(15),
            3 => bad.zero.truncate(15),
            4 => residual.mult.truncate(15),
            _ => residual.zero.truncate(0),
        }
        assert!(matches!(try_it(&bad, view), Err(OpError::Short { .. })), "vector {i}");
    }
    assert_eq!(try_it(&Requant { mult: vec![], ..good }, view), Err(OpError::Residual));
}

#[test]
fn slices_of_one_buffer() {
    let slice = |first, channels| View { stride: 12, ..View::dense(first, 2, 2, channels) };
    let with = |input, output| {
        with_job(|j| {
            j.input = input;
            j.output = output;
        })
    };
    assert_eq!(with(slice(0, 4), slice(4, 8)), Ok(()));
    assert_eq!(with(slice(4, 8), slice(0, 4)), Ok(()));
    assert_eq!(with(slice(4, 4), slice(20, 4)), Ok(()), "a row further, next slice");
    let overlap = Err(OpError::Overlap { what: "input" });
    assert_eq!(with(slice(0, 4), slice(3, 4)), overlap);
    assert_eq!(with(slice(0, 4), slice(15, 4)), overlap);
    // Six channels are read as eight, and the output begins at the seventh.
    assert_eq!(with(slice(0, 6), slice(6, 4)), overlap);
    assert_eq!(with(slice(0, 6), slice(8, 4)), Ok(()));
}

#[test]
fn other_operations() {
    let mut team = Team::new(1).expect("no thread");
    let k = &scalar::Scalar;
    let mut arena = Arena::new(64);
    let (a, b) = (View::dense(0, 2, 2, 4), View::dense(16, 2, 2, 4));
    team.frame(|crew| {
        assert_eq!(max_pool(k, crew, &mut arena, (a, b), 2), Err(OpError::Window { size: 2 }));
        assert_eq!(max_pool(k, crew, &mut arena, (a, b), 9), Err(OpError::Window { size: 9 }));
        assert_eq!(max_pool(k, crew, &mut arena, (a, a), 3), Err(OpError::Overlap { what: "input" }));
        let wide = View::dense(16, 2, 3, 4);
        let shape = OpError::Shape { what: "output", have: (2, 3, 4), want: (2, 2, 4) };
        assert_eq!(max_pool(k, crew, &mut arena, (a, wide), 3), Err(shape));
        assert_eq!(copy(crew, &mut arena, (a, wide)), Err(shape));
        let want = (4, 4, 4);
        let shape = OpError::Shape { what: "output", have: (2, 2, 4), want };
        assert_eq!(upsample(crew, &mut arena, (a, b), 2), Err(shape));
        assert_eq!(
            copy(crew, &mut arena, (a, View { offset: 1, ..a })),
            Err(OpError::Overlap { what: "input" })
        );
        let short = OpError::Short { what: "sums", have: 3, want: 4 };
        assert_eq!(channel_sums(k, crew, &arena, a, &mut [0; 3]), Err(short));
        let endless = View { height: 1 << 25, width: 1, stride: 0, ..a };
        assert_eq!(
            channel_sums(k, crew, &arena, endless, &mut [0; 4]),
            Err(OpError::Sum { pixels: 1 << 25 })
        );
        let affine = [Affine::new([(1.0, 0), (1.0, 0)], 0); 4];
        let job = AddJob { a, b, output: View { offset: 17, ..b }, affine: &affine };
        assert_eq!(add(crew, &mut arena, &job), Err(OpError::Overlap { what: "second summand" }));
        let job = AddJob { a, b, output: b, affine: &affine[..3] };
        assert_eq!(add(crew, &mut arena, &job), Err(OpError::Short { what: "affine", have: 3, want: 4 }));
        let job = ScaleJob { input: a, output: b, affine: &[] };
        assert_eq!(
            scale_channels(crew, &mut arena, &job),
            Err(OpError::Short { what: "affine", have: 0, want: 4 })
        );
        let job = MixJob {
            layout: Layout::N16K4,
            c_out: 16,
            taps: 1,
            depth: 4,
            count: 33,
            experts: &[],
            alpha: &[],
            pad_row: &[],
        };
        let out = || Mixed { weights: &mut [], maxima: &mut [], zero_sums: &mut [] };
        assert_eq!(mix(crew, &job, out()), Err(OpError::Experts { count: 33 }));
        let huge = MixJob { count: 2, taps: 1 << 60, ..job };
        assert_eq!(mix(crew, &huge, out()), Err(OpError::Geometry { size: 1 << 60 }));
        let job = MixJob { count: 2, ..job };
        assert_eq!(mix(crew, &job, out()), Err(OpError::Short { what: "experts", have: 0, want: 128 }));
    });
}
