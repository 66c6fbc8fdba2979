//! From a graph and the places of its tensors to launches, for one input size.

mod float;

use super::driver::Launch;
use super::upload::{ConvPlaces, DynamicPlaces, GatePlaces, Placed, RoutingPlaces};
use crate::engine::constants;
use crate::engine::place::Placement;
use crate::engine::prepare::window;
use crate::kernels::cuda::{
    BOX_LOGITS, ConvArgs, CountArgs, ExciteArgs, GateArgs, Kernel, MeanArgs, MixArgs, POSITIONS, PictureArgs,
    Region, RouteArgs, RoutingArgs, SUMMED, SumArgs, SurvivorArgs, aligned, wide,
};
use crate::kernels::{CELL_CHANNELS, STORED_OFFSET, View};
use crate::model::graph::{ConvShape, NodeId, RoutingKind};
use crate::weights::Model;
use crate::weights::graph::{MAX_LEVELS, QAct, QNode, QOp, QOutput};

/// Threads of a block of the kernels that take one thread for a word or a byte.
const THREADS: usize = 128;
/// Most runs that a picture's pixels are summed in; each run has a block for 64 channels.
const RUNS: usize = 64;
/// Bytes of [`Region::Host`] before the picture: threshold, then counts.
const CONTROL: usize = 64;
const _: () = assert!(HostPlaces::count(MAX_LEVELS) <= CONTROL && 4 * MAX_LEVELS <= COUNTERS);
/// Compute capabilities from which on tensor cores multiply bytes: by wmma, and by mma with asynchronous copies.
const SQUARES: u32 = 72;
const FRAGMENTS: u32 = 80;

/// Where the host finds things in [`Region::Host`].
#[derive(Debug, Clone, Default)]
pub struct HostPlaces {
    /// The picture's first byte.
    pub input: usize,
    /// Its bytes.
    pub input_len: usize,
    /// First byte of each level's survivors.
    pub rows: Vec<usize>,
    /// Words of a survivor.
    pub row_words: usize,
    /// Bytes of all.
    pub len: usize,
}

impl HostPlaces {
    /// The threshold's place.
    pub const FLOOR: usize = 0;

    /// The place of a level's count.
    pub const fn count(level: usize) -> usize {
        4 + 4 * level
    }

    fn new(model: &Model, placement: &Placement) -> Self {
        let input = placement.views[0];
        let mut places = Self { input: CONTROL, input_len: input.pixels() * input.stride, ..Self::default() };
        places.len = (CONTROL + places.input_len).next_multiple_of(64);
        places.row_words = 1 + BOX_LOGITS + model.detect().classes;
        for pair in model.head().chunks_exact(2) {
            places.rows.push(places.len);
            places.len += (placement.views[pair[0]].pixels() * places.row_words * 4).next_multiple_of(64);
        }
        places
    }
}

/// Launches of one frame, in order, and the memory that they need.
#[derive(Debug)]
pub struct Plan {
    /// The launches.
    pub launches: Vec<Launch>,
    /// Bytes of [`Region::Scratch`].
    pub scratch_len: usize,
    /// Places in [`Region::Host`].
    pub host: HostPlaces,
}

/// Plans a frame.
///
/// The graph is a checked one, and the placement one for it: every view is in the arena, whose buffers have a gap
/// behind them for reads of whole words.
pub fn plan(model: &Model, placement: &Placement, placed: &[Placed], capability: u32) -> Plan {
    let host = HostPlaces::new(model, placement);
    let mut planner = Planner {
        model,
        placement,
        launches: Vec::new(),
        scratch: Scratch { next: COUNTERS, most: COUNTERS },
        host,
        id: 0,
        capability,
    };
    for (id, node) in model.graph.nodes.iter().enumerate() {
        planner.id = id;
        planner.scratch.next = COUNTERS;
        planner.node(node, &placed[id]);
    }
    let Planner { launches, scratch, host, .. } = planner;
    Plan { launches, scratch_len: scratch.most, host }
}

/// Bytes of scratch before all else: counters of survivors.
const COUNTERS: usize = 64;

/// Bytes of scratch, handed out in order; each node begins anew, since launches do not overlap.
struct Scratch {
    next: usize,
    most: usize,
}

impl Scratch {
    fn take(&mut self, bytes: usize) -> u32 {
        let offset = self.next;
        self.next = (offset + bytes).next_multiple_of(64) + 64;
        self.most = self.most.max(self.next);
        Region::Scratch.unchecked(offset)
    }
}

struct Planner<'a> {
    model: &'a Model,
    placement: &'a Placement,
    launches: Vec<Launch>,
    scratch: Scratch,
    host: HostPlaces,
    id: NodeId,
    capability: u32,
}

fn arena(view: &View) -> u32 {
    Region::Arena.at(view.offset)
}

impl Planner<'_> {
    fn launch(&mut self, kernel: Kernel, grid: [usize; 2], args: Vec<u32>) {
        if grid.contains(&0) {
            return;
        }
        self.launches.push(Launch { kernel, grid: grid.map(|n| n as u32), args });
    }

    /// A launch with one thread for each of `items`.
    fn launch_flat(&mut self, kernel: Kernel, items: usize, args: Vec<u32>) {
        self.launch(kernel, [items.div_ceil(THREADS), 1], args);
    }

    fn view(&self, id: NodeId) -> View {
        self.placement.views[id]
    }

    fn node(&mut self, node: &QNode, placed: &Placed) {
        let output = self.view(self.id);
        let input = node.inputs.first().map_or(output, |&i| self.view(i));
        if self.float(node, placed, (&input, &output)) {
            return;
        }
        match (&node.op, placed) {
            (QOp::Input, _) => self.fetch_input(&output),
            (QOp::Conv { shape, act, output }, Placed::Conv(places)) => {
                self.conv(node, shape, act, output, places);
            }
            (QOp::DynamicConv { .. }, Placed::Dynamic(places)) => self.dynamic(node, places),
            (QOp::Add, Placed::Add { table }) => {
                let b = self.view(node.inputs[1]);
                let args = PictureArgs {
                    b: arena(&b),
                    b_stride: b.stride as u32,
                    table: *table,
                    ..picture(&input, &output)
                };
                self.launch_flat(Kernel::Add, output.pixels() * output.channels, args.words());
            }
            (QOp::SqueezeExcite { reduced }, Placed::Gates { quant, own, places }) => {
                self.squeeze_excite((&input, &output), *reduced, (*quant, *own), places);
            }
            (QOp::MaxPool { kernel }, _) => {
                let args = PictureArgs { size: *kernel as u32, ..picture(&input, &output) };
                self.launch_flat(Kernel::MaxPool, words(&output), args.words());
            }
            (QOp::Upsample { factor }, _) => self.enlarge(&input, &output, *factor),
            (QOp::Concat, _) => self.concat(node),
            (QOp::Detect(detect), _) => self.heads(node, detect.classes),
            _ => {}
        }
    }

    /// Copies the picture from where the host put it.
    fn fetch_input(&mut self, output: &View) {
        let args = PictureArgs { a: Region::Host.at(self.host.input), ..picture(output, output) };
        // All four bytes of each pixel.
        let args = PictureArgs { channels: output.stride as u32, ..args };
        self.launch_flat(Kernel::Enlarge, output.pixels(), PictureArgs { size: 1, ..args }.words());
    }

    /// Enlargement of a picture's bytes, or a copy.
    fn enlarge(&mut self, input: &View, output: &View, factor: usize) {
        let args = PictureArgs { size: factor as u32, ..picture(input, output) };
        self.launch_flat(Kernel::Enlarge, words(output), args.words());
    }

    fn concat(&mut self, node: &QNode) {
        let (placement, id) = (self.placement, self.id);
        for (from, to) in placement.copies_into(id, node) {
            self.enlarge(&from, &to, 1);
        }
    }

    /// A convolution's arguments, but for weights and epilogue.
    fn conv_args(&self, node: &QNode, shape: &ConvShape, act: &QAct, output: &QOutput) -> ConvArgs {
        let (input, out) = (self.view(node.inputs[0]), self.view(self.id));
        let residual = node.inputs.get(1).map(|&i| self.view(i));
        let float = *output == QOutput::Float;
        ConvArgs::of((&input, &out, residual.as_ref()), &window(shape, &input), constants::act(act), float)
    }

    fn conv(&mut self, node: &QNode, shape: &ConvShape, act: &QAct, output: &QOutput, places: &ConvPlaces) {
        let args = ConvArgs {
            weights: places.weights,
            pad_row: places.pad_row,
            sums: places.sums,
            constants: places.constants,
            ..self.conv_args(node, shape, act, output)
        };
        self.convolve(node, shape, &args);
    }

    fn convolve(&mut self, node: &QNode, shape: &ConvShape, args: &ConvArgs) {
        let (pixels, channels) = (args.geometry.pixels as usize, args.geometry.channels as usize);
        if shape.is_depthwise() {
            return self.launch_flat(Kernel::Depthwise, pixels * channels.div_ceil(4), args.words());
        }
        let units = units(self.capability, wide(&self.view(node.inputs[0])));
        let (kernel, tile) = tile(channels, units);
        self.launch(kernel, [pixels.div_ceil(tile[0]), channels.div_ceil(tile[1])], args.words());
    }

    /// Sums of a picture's channels, and what makes means of them: with the picture's quantisation, in that place.
    fn sums(&mut self, input: &View, quant: u32) -> (MeanArgs, u32) {
        let (pixels, channels) = (input.pixels(), input.channels);
        let run = pixels.div_ceil(RUNS).max(16);
        let runs = pixels.div_ceil(run);
        let partial = self.scratch.take(4 * runs * channels);
        let args = SumArgs {
            input: arena(input),
            partial,
            pixels: pixels as u32,
            stride: input.stride as u32,
            channels: channels as u32,
            run: run as u32,
            aligned: aligned(input).into(),
        };
        self.launch(Kernel::ChannelSums, [runs, channels.div_ceil(SUMMED)], args.words());
        let means = MeanArgs { partial, runs: runs as u32, pixels: pixels as u32, quant };
        (means, self.scratch.take(8 * channels))
    }

    /// What makes shares of experts from means.
    fn routing(
        &mut self,
        means: u32,
        channels: usize,
        (experts, kind): (usize, RoutingKind),
        places: &RoutingPlaces,
    ) -> RoutingArgs {
        RoutingArgs {
            means,
            channels: channels as u32,
            weight: places.routing_weight,
            bias: places.routing_bias,
            experts: experts as u32,
            kind: match kind {
                RoutingKind::Sigmoid => 0,
                RoutingKind::Softmax => 1,
            },
            shares: self.scratch.take(4 * experts),
        }
    }

    /// What makes gates from means.
    fn excite(&mut self, means: u32, channels: usize, reduced: usize, places: &GatePlaces) -> ExciteArgs {
        ExciteArgs {
            means,
            channels: channels as u32,
            reduce_weight: places.reduce_weight,
            reduce_bias: places.reduce_bias,
            expand_weight: places.expand_weight,
            expand_bias: places.expand_bias,
            reduced: reduced as u32,
            squeezed: self.scratch.take(8 * reduced),
        }
    }

    fn dynamic(&mut self, node: &QNode, places: &DynamicPlaces) {
        let QOp::DynamicConv { shape, act, output, experts, routing } = &node.op else { return };
        let padded = shape.c_out.next_multiple_of(CELL_CHANNELS);
        let taps = shape.kernel * shape.kernel;
        let depth = shape.c_in.div_ceil(4);
        let input = self.view(node.inputs[0]);
        let (means, place) = self.sums(&input, places.quant);
        let routing = self.routing(place, input.channels, (*experts, *routing), &places.routing);
        let shares = routing.shares;
        let alpha = self.scratch.take(4 * experts * padded);
        let alpha_step = self.scratch.take(4 * padded);
        let scales = places.weight_scale;
        let route = RouteArgs { means, routing, scales, padded: padded as u32, alpha, alpha_step };
        self.launch(Kernel::Route, [1, 1], route.words());

        let (kernel, cells, cell, depth) = if shape.is_depthwise() {
            (Kernel::MixDepthwise, taps, 1, 0)
        } else {
            (Kernel::MixDense, taps * depth, 4, depth)
        };
        let mixed = self.scratch.take(cells * padded * cell);
        let sums = self.scratch.take(8 * padded);
        let mix = MixArgs {
            experts: places.experts,
            mixed,
            alpha,
            alpha_step,
            routing: shares,
            bias: places.bias,
            expert_bias: places.routing.expert_bias,
            zeros: places.pad_row,
            sums,
            cells: cells as u32,
            depth: depth as u32,
            count: *experts as u32,
            padded: padded as u32,
            channels: shape.c_out as u32,
            products: (shape.weight_len() / shape.c_out) as u32,
            unit: constants::unit(output).to_bits(),
            offset: STORED_OFFSET as u32,
        };
        self.launch(kernel, [padded / CELL_CHANNELS, 1], mix.words());
        let args = ConvArgs {
            weights: mixed,
            pad_row: places.pad_row,
            sums,
            constants: places.constants,
            ..self.conv_args(node, shape, act, output)
        };
        self.convolve(node, shape, &args);
    }

    fn squeeze_excite(
        &mut self,
        (input, output): (&View, &View),
        reduced: usize,
        (quant, own): (u32, u32),
        places: &GatePlaces,
    ) {
        let (means, place) = self.sums(input, quant);
        let excite = self.excite(place, input.channels, reduced, places);
        let table = self.scratch.take(8 * input.channels);
        let gates = GateArgs { means, excite, own, table };
        self.launch(Kernel::Gates, [1, 1], gates.words());
        let args = PictureArgs { table, ..picture(input, output) };
        self.launch_flat(Kernel::Scale, output.pixels() * output.channels, args.words());
    }

    fn heads(&mut self, node: &QNode, classes: usize) {
        for (level, pair) in node.inputs.chunks_exact(2).enumerate() {
            let (boxes, logits) = (self.view(pair[0]), self.view(pair[1]));
            let args = SurvivorArgs {
                boxes: arena(&boxes),
                class_logits: arena(&logits),
                rows: Region::Host.unchecked(self.host.rows[level]),
                counter: Region::Scratch.at(4 * level),
                floor: Region::Host.at(HostPlaces::FLOOR),
                pixels: boxes.pixels() as u32,
                box_stride: boxes.stride as u32,
                class_stride: logits.stride as u32,
                classes: classes as u32,
            };
            self.launch(Kernel::Survivors, [boxes.pixels().div_ceil(POSITIONS), 1], args.words());
        }
        let levels = (node.inputs.len() / 2) as u32;
        let counts = Region::Host.at(HostPlaces::count(0));
        self.launch(
            Kernel::TellCounts,
            [1, 1],
            CountArgs { counters: Region::Scratch.at(0), counts, levels }.words(),
        );
    }
}

/// Words of a picture's pixels, each pixel's last one filled up.
fn words(view: &View) -> usize {
    view.pixels() * (view.channels * view.element).div_ceil(4)
}

/// Arguments for bytes of an input and an output.
fn picture(input: &View, output: &View) -> PictureArgs {
    PictureArgs {
        a: arena(input),
        output: arena(output),
        height: output.height as u32,
        width: output.width as u32,
        channels: (output.channels * output.element) as u32,
        a_stride: input.stride as u32,
        out_stride: output.stride as u32,
        aligned: (aligned(input) && aligned(output)).into(),
        ..PictureArgs::default()
    }
}

/// What multiplies a dense convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Units {
    Dots,
    Squares,
    Fragments,
}

/// The fastest there are, for an input that is or is not [`wide`].
fn units(capability: u32, wide: bool) -> Units {
    match capability {
        FRAGMENTS.. if wide => Units::Fragments,
        SQUARES.. => Units::Squares,
        _ => Units::Dots,
    }
}

/// Kernel and tile (pixels, channels) for so many output channels: the one that computes the fewest in vain, a
/// narrower one counted as slower, since it reads its input more often.
fn tile(channels: usize, units: Units) -> (Kernel, [usize; 2]) {
    let of = |dots, squares, fragments| match units {
        Units::Dots => dots,
        Units::Squares => squares,
        Units::Fragments => fragments,
    };
    let tiles = [
        (of(Kernel::Conv64x64, Kernel::Square64x64, Kernel::Tensor64x64), [64, 64], 10),
        (of(Kernel::Conv128x32, Kernel::Square128x32, Kernel::Tensor128x32), [128, 32], 11),
        (of(Kernel::Conv256x16, Kernel::Square256x16, Kernel::Tensor256x16), [256, 16], 13),
    ];
    let cost = |width: usize, weight: usize| channels.next_multiple_of(width) * weight;
    let [wide, rest @ ..] = tiles;
    let best = rest.into_iter().fold(wide, |best, other| {
        if cost(other.1[1], other.2) < cost(best.1[1], best.2) { other } else { best }
    });
    (best.0, best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_their_channels() {
        let width = |channels| tile(channels, Units::Dots).1[1];
        assert_eq!([1, 16, 17, 32, 48, 64, 80, 128, 255].map(width), [16, 16, 32, 32, 16, 64, 16, 64, 64]);
    }

    #[test]
    fn each_generation_has_its_units() {
        let of = |capability| [false, true].map(|wide| units(capability, wide));
        assert_eq!([61, 70].map(of), [[Units::Dots; 2]; 2]);
        assert_eq!([72, 75].map(of), [[Units::Squares; 2]; 2]);
        assert_eq!([80, 87, 90].map(of), [[Units::Squares, Units::Fragments]; 3]);
    }
}
