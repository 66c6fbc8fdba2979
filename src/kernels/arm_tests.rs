//! Each aarch64 kernel against plain loops and [`Requant::apply`], on sizes around its tile.
//!
//! Pixels end at an unreadable page, so that a read past `depth` is a crash; bytes around each output
//! must stay as they were. `GHOSTLIGHT_EXPECT_KERNEL` names the best kernel that must have run.

use super::{Act, DenseTile, DepthwiseTile, Kernels, Layout, Requant, Residual, detect, operand};

/// The kernels that run on this CPU, `scalar` too.
fn kernels() -> Vec<&'static dyn Kernels> {
    detect::all().into_iter().filter_map(|c| c.kernels).collect()
}

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.between(-127, 127) as i8).collect()
    }
}

unsafe extern "C" {
    fn mmap(at: *mut u8, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    fn mprotect(at: *mut u8, len: usize, prot: i32) -> i32;
    fn munmap(at: *mut u8, len: usize) -> i32;
}

/// Bytes whose end is the end of readable memory.
struct Fenced {
    map: *mut u8,
    map_len: usize,
    start: *const u8,
}

impl Fenced {
    const PAGE: usize = 65536;

    fn new(bytes: &[u8]) -> Self {
        let room = bytes.len().next_multiple_of(Self::PAGE);
        let map_len = room + Self::PAGE;
        // SAFETY: a new private map of its own, whose last page is fenced off; the copy ends before it.
        unsafe {
            let map = mmap(std::ptr::null_mut(), map_len, 3, 0x22, -1, 0);
            assert!(map as isize != -1, "no memory");
            assert_eq!(mprotect(map.add(room), Self::PAGE, 0), 0);
            let start = map.add(room - bytes.len());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            Self { map, map_len, start }
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the map that `new` made, which no one uses any more.
        assert_eq!(unsafe { munmap(self.map, self.map_len) }, 0);
    }
}

/// A dense convolution's size.
#[derive(Debug, Clone, Copy)]
struct Size {
    rows: usize,
    taps: usize,
    depth: usize,
    channels: usize,
    first_channel: usize,
}

const SILU: Act = Act::Gated { shift: 2, poly: [21, -301, 480, 77, -600, 333] };

fn requant(random: &mut Random, channels: usize, spread: f32, act: Act, residual: bool) -> Requant {
    let n = channels.next_multiple_of(16);
    let small = |random: &mut Random, low, high| (0..n).map(|_| random.between(low, high) as i16).collect();
    Requant {
        bias: (0..n).map(|_| random.between(-100_000, 100_000) as i32).collect(),
        scale: (0..n).map(|_| random.between(1, 1000) as f32 / 1000.0 * 2000.0 / spread).collect(),
        act,
        mult: small(random, 0, 3000),
        zero: small(random, -128, 127),
        residual: residual
            .then(|| Residual { mult: small(random, 0, 32767), zero: small(random, -128, 127) }),
    }
}

/// `[channel][tap][depth]` to a layout, channels from `first` on.
fn pack(layout: Layout, w: &[i8], channels: usize, taps: usize, depth: usize) -> Vec<i8> {
    let cell = layout.depth();
    let cells = depth.div_ceil(cell);
    let mut packed = vec![0; layout.packed_len(channels, taps, depth)];
    for c in 0..channels {
        for t in 0..taps {
            for k in 0..depth {
                let at = (((c / 16 * taps + t) * cells + k / cell) * 16 + c % 16) * cell + k % cell;
                packed[at] = w[(c * taps + t) * depth + k];
            }
        }
    }
    packed
}

/// Runs a tile and compares every byte of the output's surroundings too.
fn check_dense(k: &dyn Kernels, size: Size, requant: &Requant, random: &mut Random, extreme: bool) {
    const EDGE: usize = 64;
    let Size { rows, taps, depth, channels, first_channel } = size;
    let n = k.tile().rows * k.batch();
    let mut pixels: Vec<Vec<u8>> = (0..taps * n).map(|_| random.bytes(depth)).collect();
    let mut w = random.weights(channels * taps * depth);
    if extreme {
        pixels.iter_mut().flatten().for_each(|b| *b = 128);
        w.iter_mut().for_each(|w| *w = if *w < 0 { -127 } else { 127 });
    }
    let fenced: Vec<Fenced> = pixels.iter().map(|p| Fenced::new(p)).collect();
    let mut table: Vec<*const u8> = fenced.iter().map(|f| f.start).collect();
    for t in 0..taps {
        for r in rows..n {
            table[t * n + r] = table[t * n];
        }
    }
    let element = if requant.is_float() { 4 } else { 1 };
    let stride = channels * element + 5;
    let residual_stride = channels + 3;
    let with_residual = requant.residual.is_some();
    let residual = random.bytes((rows - 1) * residual_stride + channels);
    let residual_fenced = Fenced::new(&residual);
    let packed = Fenced::new(
        &pack(k.layout(), &w, channels, taps, depth).iter().map(|&w| w as u8).collect::<Vec<_>>(),
    );
    let mut out = vec![0xA5u8; rows * stride + 2 * EDGE];
    let mut want = out.clone();
    for r in 0..rows {
        for c in 0..channels {
            let mut acc = requant.bias[first_channel + c];
            for t in 0..taps {
                for i in 0..depth {
                    let (a, w) = (operand(pixels[t * n + r][i]), w[(c * taps + t) * depth + i]);
                    acc = acc.wrapping_add(a * w as i32);
                }
            }
            let at = EDGE + r * stride + c * element;
            if requant.is_float() {
                let y = acc as f32 * requant.scale[first_channel + c];
                want[at..at + 4].copy_from_slice(&y.to_ne_bytes());
            } else {
                let a = with_residual.then(|| residual[r * residual_stride + c]);
                want[at] = requant.apply(first_channel + c, acc, a);
            }
        }
    }
    let tile = DenseTile {
        pixels: &table,
        taps,
        depth,
        weights: packed.start.cast(),
        rows,
        channels,
        requant,
        first_channel,
        out: out[EDGE..].as_mut_ptr(),
        out_stride: stride,
        residual: if with_residual { residual_fenced.start } else { std::ptr::null() },
        residual_stride,
    };
    // SAFETY: every pointer is to memory of the size that the duties of `dense` ask for.
    unsafe { k.dense(&tile) };
    assert_eq!(out, want, "{} {size:?} {:?}", k.name(), requant.act);
}

#[test]
fn dense_equals_loops() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for k in kernels() {
        let tile = k.tile();
        for taps in [1, 2, 9] {
            for depth in [4, 8, 12, 16, 20, 24, 28, 32, 36, 48, 64, 76, 92, 128, 188] {
                for rows in 1..=tile.rows * k.batch() {
                    let channels = random.between(1, tile.blocks as i64 * 16) as usize;
                    let first_channel = 16 * random.between(0, 2) as usize;
                    let size = Size { rows, taps, depth, channels, first_channel };
                    let act = [Act::Identity, Act::Relu, SILU][random.next() as usize % 3];
                    let residual = random.next() % 2 == 0;
                    let spread = ((taps * depth) as f32).sqrt() * 127.0 * 127.0 / 3.0;
                    let mut requant = requant(&mut random, first_channel + channels, spread, act, residual);
                    if random.next() % 5 == 0 {
                        requant.mult.clear();
                        requant.residual = None;
                    }
                    let extreme = random.next() % 4 == 0;
                    check_dense(k, size, &requant, &mut random, extreme);
                }
            }
        }
    }
}

#[test]
fn each_part_of_the_epilogue_alone() {
    let mut random = Random(42);
    for k in kernels() {
        for channels in 1..=33 {
            let rows = k.tile().rows * k.batch();
            let size = Size { rows, taps: 1, depth: 4, channels, first_channel: 0 };
            for (act, residual) in
                [Act::Identity, Act::Relu, SILU].into_iter().flat_map(|a| [(a, false), (a, true)])
            {
                // Halves, and sums far outside of i16.
                for scale in [0.5, 1.5, 0.001, 30.0, 4000.0] {
                    let mut requant = requant(&mut random, channels, 1.0, act, residual);
                    requant.scale.fill(scale);
                    check_dense(k, size, &requant, &mut random, false);
                }
            }
        }
    }
}

#[test]
fn depthwise_equals_loops() {
    let mut random = Random(7);
    for k in kernels() {
        for taps in [1, 4, 9, 25] {
            for channels in [1, 4, 8, 15, 16, 17, 32, 40, 64, 65] {
                for count in [1, 2, 3, 4, 5, 8, 9] {
                    let width = usize::next_multiple_of(channels, 16);
                    let pixels: Vec<Vec<u8>> = (0..count * taps).map(|_| random.bytes(channels)).collect();
                    let fenced: Vec<Fenced> = pixels.iter().map(|p| Fenced::new(p)).collect();
                    let table: Vec<*const u8> = fenced.iter().map(|f| f.start).collect();
                    let weights = random.weights(taps * width);
                    let act = [Act::Identity, Act::Relu, SILU][random.next() as usize % 3];
                    let requant = requant(&mut random, channels, 100_000.0, act, false);
                    let stride = channels + 7;
                    let mut out = vec![0x5A; count * stride];
                    let mut want = out.clone();
                    for p in 0..count {
                        for c in 0..channels {
                            let acc = (0..taps).fold(requant.bias[c], |acc, t| {
                                acc + operand(pixels[p * taps + t][c]) * weights[t * width + c] as i32
                            });
                            want[p * stride + c] = requant.apply(c, acc, None);
                        }
                    }
                    let tile = DepthwiseTile {
                        pixels: &table,
                        taps,
                        channels,
                        weights: weights.as_ptr(),
                        requant: &requant,
                        out: out.as_mut_ptr(),
                        out_stride: stride,
                    };
                    // SAFETY: every pointer is to memory of the size that the duties of `depthwise` ask for.
                    unsafe { k.depthwise(&tile) };
                    assert_eq!(out, want, "{} {taps} taps, {channels} channels, {count} pixels", k.name());
                }
            }
        }
    }
}

#[test]
fn max_and_sums_equal_loops() {
    let mut random = Random(11);
    for k in kernels() {
        for len in [1, 7, 15, 16, 17, 64, 100] {
            for count in [1, 2, 5, 25] {
                let sources: Vec<Vec<u8>> = (0..count).map(|_| random.bytes(len)).collect();
                let fenced: Vec<Fenced> = sources.iter().map(|p| Fenced::new(p)).collect();
                let table: Vec<*const u8> = fenced.iter().map(|f| f.start).collect();
                let mut out = vec![0xA5; len + 32];
                // SAFETY: each source, and `out`, has `len` bytes.
                unsafe { k.max(&table, len, out.as_mut_ptr()) };
                for i in 0..len {
                    assert_eq!(operand(out[i]), sources.iter().map(|s| operand(s[i])).max().unwrap_or(0));
                }
                assert!(out[len..].iter().all(|&b| b == 0xA5));
            }
            for pixels in [0, 1, 2, 255, 256, 511, 600] {
                for fill in [None, Some(127u8), Some(128)] {
                    let stride = len + 3;
                    let mut bytes = random.bytes(usize::max(pixels * stride, 3));
                    if let Some(fill) = fill {
                        bytes.fill(fill);
                    }
                    let fenced = Fenced::new(&bytes[..bytes.len() - 3]);
                    let mut sums = vec![5u32; len];
                    // SAFETY: `pixels` runs of `len` bytes, `stride` apart, are readable.
                    unsafe { k.channel_sums(fenced.start, pixels, stride, len, &mut sums) };
                    for (c, sum) in sums.iter().enumerate() {
                        let want =
                            (0..pixels).map(|p| super::load(bytes[p * stride + c]) as u32).sum::<u32>();
                        assert_eq!(*sum, 5 + want, "{} {pixels} pixels, channel {c} of {len}", k.name());
                    }
                }
            }
        }
    }
}

#[test]
fn expected_kernel_ran() {
    let ran: Vec<_> = kernels().iter().map(|k| k.name()).collect();
    println!("kernels tested: {}", ran.join(" "));
    assert!(ran.contains(&"neon"), "every aarch64 CPU runs it, ran {ran:?}");
    if let Ok(want) = std::env::var("GHOSTLIGHT_EXPECT_KERNEL") {
        assert_eq!(detect::best().name(), want, "ran {ran:?}");
    }
}
