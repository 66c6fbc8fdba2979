//! CUDA C++ kernels: their source, and what a launch of each is told.
//!
//! Nothing is compiled here. The engine hands [`source`] to NVRTC on a machine with a GPU; `tests/cuda` compiles
//! the same text with a C++ compiler and compares every kernel with `scalar`; `tests/cuda/nvrtc.py` asks NVRTC and
//! ptxas for the registers that each needs.
//!
//! On a GPU activations are `u8` on every machine: [`super::STORED_OFFSET`] is 0 there. A CPU whose operands are
//! less by 128 has accumulators that are less by `128 * Σ w`, which goes to the start value: sums wrap, so that
//! results are the same bits.

use super::ops::{FloatAct, Window};
use super::{Act, View};

/// Sources in their order: each uses what those before it define. The first is what a shim replaces.
pub const SOURCES: [(&str, &str); 8] = [
    ("device.cuh", include_str!("device.cuh")),
    ("common.cuh", include_str!("common.cuh")),
    ("conv.cu", include_str!("conv.cu")),
    ("tensor.cu", include_str!("tensor.cu")),
    ("picture.cu", include_str!("picture.cu")),
    ("dynamic.cu", include_str!("dynamic.cu")),
    ("float.cu", include_str!("float.cu")),
    ("heads.cu", include_str!("heads.cu")),
];

/// What NVRTC is told beside the architecture: nothing is fused, and divisions are rounded correctly.
pub const OPTIONS: [&str; 5] =
    ["--std=c++14", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// The whole source.
pub fn source() -> String {
    SOURCES.iter().map(|(_, text)| *text).collect()
}

/// A block of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Activations.
    Arena,
    /// What a model file has, uploaded once.
    Weights,
    /// What is computed on the way and no activation.
    Scratch,
    /// Memory that the host sees too: the picture, and what is found in it.
    Host,
}

impl Region {
    /// All, in the order of the kernels' `Bases`.
    pub const ALL: [Region; 4] = [Region::Arena, Region::Weights, Region::Scratch, Region::Host];
    /// Most bytes of one: references have 30 bits for an offset.
    pub const LIMIT: usize = 1 << 30;

    /// The reference to a byte.
    ///
    /// # Panics
    /// If `offset` is not below [`Region::LIMIT`]: plans check their regions' sizes first.
    pub fn at(self, offset: usize) -> u32 {
        assert!(offset < Self::LIMIT, "{offset} is past every region");
        self.unchecked(offset)
    }

    /// The same while a region grows, and before its size is looked at: one that is too large is refused, and what
    /// this gave for it is not used.
    pub fn unchecked(self, offset: usize) -> u32 {
        (self as u32) << 30 | (offset % Self::LIMIT) as u32
    }
}

/// Kernels with their threads per block.
macro_rules! kernels {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal, $threads:literal, $args:ident;)*) => {
        /// A kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kernel { $($(#[$doc])* $name,)* }

        impl Kernel {
            /// All of them.
            pub const ALL: [Kernel; [$($threads),*].len()] = [$(Kernel::$name),*];

            /// Its name in the source.
            pub const fn symbol(self) -> &'static str {
                match self { $(Kernel::$name => $symbol),* }
            }

            /// Threads of a block.
            pub const fn threads(self) -> u32 {
                match self { $(Kernel::$name => $threads),* }
            }

            /// Words of its arguments.
            pub const fn words(self) -> usize {
                match self { $(Kernel::$name => $args::WORDS),* }
            }
        }
    };
}

kernels! {
    /// Dense convolution, 64 pixels x 64 channels a block.
    Conv64x64 = "conv_64x64", 128, ConvArgs;
    /// Dense convolution, 128 pixels x 32 channels a block.
    Conv128x32 = "conv_128x32", 128, ConvArgs;
    /// Dense convolution, 256 pixels x 16 channels a block.
    Conv256x16 = "conv_256x16", 128, ConvArgs;
    /// As [`Kernel::Conv64x64`], on tensor cores from 7.2 on.
    Square64x64 = "square_64x64", 128, ConvArgs;
    /// As [`Kernel::Conv128x32`], on tensor cores from 7.2 on.
    Square128x32 = "square_128x32", 128, ConvArgs;
    /// As [`Kernel::Conv256x16`], on tensor cores from 7.2 on.
    Square256x16 = "square_256x16", 128, ConvArgs;
    /// As [`Kernel::Conv64x64`], on tensor cores from 8.0 on, of a [`wide`] input.
    Tensor64x64 = "tensor_64x64", 128, ConvArgs;
    /// As [`Kernel::Conv128x32`], on tensor cores from 8.0 on, of a [`wide`] input.
    Tensor128x32 = "tensor_128x32", 128, ConvArgs;
    /// As [`Kernel::Conv256x16`], on tensor cores from 8.0 on, of a [`wide`] input.
    Tensor256x16 = "tensor_256x16", 128, ConvArgs;
    /// Depthwise convolution.
    Depthwise = "depthwise", 128, ConvArgs;
    /// Maximum over a window.
    MaxPool = "max_pool", 128, PictureArgs;
    /// Enlargement and copy.
    Enlarge = "enlarge", 128, PictureArgs;
    /// Sum of two pictures.
    Add = "add", 128, PictureArgs;
    /// Channels times gates.
    Scale = "scale", 128, PictureArgs;
    /// Sums of channels.
    ChannelSums = "channel_sums", 256, SumArgs;
    /// Routing of a dynamic convolution.
    Route = "route", 256, RouteArgs;
    /// Mixing, dense.
    MixDense = "mix_dense", 256, MixArgs;
    /// Mixing, depthwise.
    MixDepthwise = "mix_depthwise", 256, MixArgs;
    /// Gates of squeeze-and-excite.
    Gates = "gates", 256, GateArgs;
    /// Dense convolution in f32, 32 pixels x 32 channels a block.
    FloatConv = "float_conv", 128, FloatConvArgs;
    /// Depthwise convolution in f32.
    FloatDepthwise = "float_depthwise", 128, FloatConvArgs;
    /// Activations to f32.
    Dequantise = "dequantise", 128, PictureArgs;
    /// From f32 to activations.
    Quantise = "quantise", 128, PictureArgs;
    /// Sum of two pictures in f32.
    FloatAdd = "float_add", 128, PictureArgs;
    /// Channels in f32 times gates.
    FloatScale = "float_scale", 128, PictureArgs;
    /// Maximum over a window, in f32.
    FloatMaxPool = "float_max_pool", 128, PictureArgs;
    /// Means of channels in f32.
    FloatMeans = "float_means", 32, FloatMeanArgs;
    /// Routing of a dynamic convolution in f32.
    FloatRoute = "float_route", 256, FloatRouteArgs;
    /// Its mixing.
    FloatMix = "float_mix", 128, FloatMixArgs;
    /// Gates of squeeze-and-excite in f32.
    FloatGates = "float_gates", 256, FloatGateArgs;
    /// Positions above the threshold.
    Survivors = "survivors", 128, SurvivorArgs;
    /// How many they are.
    TellCounts = "tell_counts", 32, CountArgs;
}

/// Arguments: 32-bit words in the order of the struct of that name in the source, in brackets structs that it begins
/// with.
macro_rules! args {
    ($($(#[$doc:meta])* $name:ident $([$($inner:ident: $type:ident),*])? { $($field:ident),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default)]
            #[allow(missing_docs)] // the source explains them
            pub struct $name { $($(pub $inner: $type,)*)? $(pub $field: u32),* }

            impl $name {
                /// Type and name of its members.
                pub const MEMBERS: &'static [(&'static str, &'static str)] =
                    &[$($((stringify!($type), stringify!($inner)),)*)? $(("u32", stringify!($field))),*];
                /// How many words it has.
                pub const WORDS: usize = [$(stringify!($field)),*].len() $($(+ $type::WORDS)*)?;

                /// The words.
                pub fn words(&self) -> Vec<u32> {
                    let mut words = Vec::with_capacity(Self::WORDS);
                    $($(words.extend(self.$inner.words());)*)?
                    words.extend([$(self.$field),*]);
                    words
                }
            }
        )*

        /// Every struct's name and members, for the test that compares them with the source.
        pub const ARGS: &[(&str, &[(&str, &str)])] = &[$((stringify!($name), $name::MEMBERS)),*];
    };
}

args! {
    /// What a convolution reads and writes, and where.
    Geometry {
        input, output, residual,
        in_height, in_width, in_stride,
        out_width, pixels, out_stride, residual_stride,
        kernel, stride, dilation, pad_top, pad_left,
        channels,
    }
    /// A convolution, dense or depthwise.
    ConvArgs [geometry: Geometry] {
        weights, pad_row, sums, constants,
        depth,
        act, shift, poly01, poly23, poly45,
        flags,
    }
    /// An operation byte by byte.
    PictureArgs {
        a, b, output, table,
        height, width, channels,
        a_stride, b_stride, out_stride,
        size, aligned,
    }
    /// Sums of channels.
    SumArgs { input, partial, pixels, stride, channels, run, aligned }
    /// Means.
    MeanArgs { partial, runs, pixels, quant }
    /// Shares of experts.
    RoutingArgs { means, channels, weight, bias, experts, kind, shares }
    /// Routing.
    RouteArgs [means: MeanArgs, routing: RoutingArgs] { scales, padded, alpha, alpha_step }
    /// Mixing.
    MixArgs {
        experts, mixed, alpha, alpha_step, routing,
        bias, expert_bias, zeros, sums,
        cells, depth, count, padded, channels, products, unit, offset,
    }
    /// Squeeze-and-excite from means.
    ExciteArgs { means, channels, reduce_weight, reduce_bias, expand_weight, expand_bias, reduced, squeezed }
    /// Gates.
    GateArgs [means: MeanArgs, excite: ExciteArgs] { own, table }
    /// A convolution in f32, dense or depthwise.
    FloatConvArgs [geometry: Geometry] { weights, bias, depth, act, slope, has_residual }
    /// Means in f32.
    FloatMeanArgs { input, means, pixels, stride, channels }
    /// Routing in f32.
    FloatRouteArgs [routing: RoutingArgs] { static_bias, expert_bias, padded, outputs, mixed_bias }
    /// Mixing in f32.
    FloatMixArgs { experts, mixed, shares, count, len }
    /// Gates in f32.
    FloatGateArgs [excite: ExciteArgs] { table }
    /// Survivors of one level.
    SurvivorArgs { boxes, class_logits, rows, counter, floor, pixels, box_stride, class_stride, classes }
    /// Counters.
    CountArgs { counters, counts, levels }
}

/// Bits of [`ConvArgs`]' `flags`.
pub mod flag {
    /// The output is f32.
    pub const FLOAT_OUTPUT: u32 = 1;
    /// There is a residual.
    pub const HAS_RESIDUAL: u32 = 2;
    /// All words of the input lie at multiples of 4.
    pub const INPUT_ALIGNED: u32 = 4;
    /// Those of the output.
    pub const OUTPUT_ALIGNED: u32 = 8;
    /// Those of the residual.
    pub const RESIDUAL_ALIGNED: u32 = 16;
}

/// Whether all pixels begin at multiples of 4.
pub fn aligned(view: &View) -> bool {
    view.offset.is_multiple_of(4) && view.stride.is_multiple_of(4)
}

/// Whether all pixels begin at multiples of 16 and have whole words of 16 channels.
pub fn wide(view: &View) -> bool {
    [view.offset, view.stride, view.channels].iter().all(|n| n.is_multiple_of(16))
}

impl Geometry {
    /// That of views in the arena: input, output, residual.
    fn of((input, output, residual): (&View, &View, Option<&View>), window: &Window) -> Self {
        let arena = |view: &View| Region::Arena.at(view.offset);
        Self {
            input: arena(input),
            output: arena(output),
            residual: residual.map_or(0, arena),
            in_height: input.height as u32,
            in_width: input.width as u32,
            in_stride: input.stride as u32,
            out_width: output.width as u32,
            pixels: output.pixels() as u32,
            out_stride: output.stride as u32,
            residual_stride: residual.map_or(0, |view| view.stride as u32),
            kernel: window.kernel as u32,
            stride: window.stride as u32,
            dilation: window.dilation as u32,
            pad_top: window.pad_top as u32,
            pad_left: window.pad_left as u32,
            channels: output.channels as u32,
        }
    }
}

impl ConvArgs {
    /// What a convolution reads and writes, all in the arena, and how; weights and epilogue are left at 0.
    pub fn of(views: (&View, &View, Option<&View>), window: &Window, act: Act, float: bool) -> Self {
        let (input, output, residual) = views;
        let (act, shift, poly) = match act {
            Act::Identity => (0, 0, [0; 6]),
            Act::Relu => (1, 0, [0; 6]),
            Act::Gated { shift, poly } => (2, shift, poly),
        };
        let pair = |i: usize| u32::from(poly[i] as u16) | u32::from(poly[i + 1] as u16) << 16;
        let set = |on: bool, bit: u32| if on { bit } else { 0 };
        Self {
            geometry: Geometry::of(views, window),
            depth: input.channels.div_ceil(4) as u32,
            act,
            shift,
            poly01: pair(0),
            poly23: pair(2),
            poly45: pair(4),
            flags: set(float, flag::FLOAT_OUTPUT)
                | set(residual.is_some(), flag::HAS_RESIDUAL)
                | set(aligned(input), flag::INPUT_ALIGNED)
                | set(aligned(output), flag::OUTPUT_ALIGNED)
                | set(residual.is_some_and(aligned), flag::RESIDUAL_ALIGNED),
            ..Self::default()
        }
    }
}

impl FloatConvArgs {
    /// What a convolution in f32 reads and writes, all in the arena, and how; weights and bias are left at 0.
    pub fn of(views: (&View, &View, Option<&View>), window: &Window, act: FloatAct) -> Self {
        let (act, slope) = match act {
            FloatAct::Identity => (0, 0.0),
            FloatAct::Relu => (1, 0.0),
            FloatAct::Relu6 => (2, 0.0),
            FloatAct::Silu => (3, 0.0),
            FloatAct::Hardswish => (4, 0.0),
            FloatAct::LeakyRelu(slope) => (5, slope),
        };
        Self {
            geometry: Geometry::of(views, window),
            depth: views.0.channels as u32,
            act,
            slope: slope.to_bits(),
            has_residual: views.2.is_some().into(),
            ..Self::default()
        }
    }
}

/// Box logits of a survivor's row, behind its position.
pub const BOX_LOGITS: usize = 64;
/// Positions that one block of [`Kernel::Survivors`] looks at.
pub const POSITIONS: usize = 16;
/// Pixels, and channels, that one block of [`Kernel::FloatConv`] computes.
pub const FLOAT_TILE: usize = 32;
/// Channels that one block of [`Kernel::ChannelSums`] sums.
pub const SUMMED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and names of a struct's members in the source, that of its base first.
    fn members(source: &str, name: &str) -> Vec<(String, String)> {
        let after = source.split(&format!("struct {name} ")).nth(1).unwrap();
        let (head, rest) = after.split_once('{').unwrap();
        let base = head.trim().strip_prefix(": ").map(|base| (base.to_owned(), base.to_lowercase()));
        let mut found: Vec<(String, String)> = base.into_iter().collect();
        for statement in rest.split("};").next().unwrap().split(';').map(str::trim).filter(|s| !s.is_empty())
        {
            let (kind, names) = statement.split_once(char::is_whitespace).unwrap();
            found.extend(names.split(',').map(|name| (kind.to_owned(), name.trim().to_owned())));
        }
        found
    }

    #[test]
    fn arguments_are_those_of_the_source() {
        let source = source();
        for (name, wanted) in ARGS {
            let found = members(&source, name);
            let found: Vec<(&str, &str)> = found.iter().map(|(kind, name)| (&kind[..], &name[..])).collect();
            assert_eq!(found, *wanted, "{name}");
        }
        for kernel in Kernel::ALL {
            assert!(source.contains(&format!("KERNEL({},", kernel.symbol())), "{kernel:?}");
        }
        assert_eq!(source.matches("\nKERNEL(").count(), Kernel::ALL.len());
    }

    #[test]
    fn references_name_their_region() {
        assert_eq!(Region::ALL.map(|r| r.at(5) >> 30), [0, 1, 2, 3]);
        assert_eq!(Region::Host.at(Region::LIMIT - 1), u32::MAX);
    }
}
