//! Launches of layers in f32, and of the ways between f32 and activations.

use super::{Planner, arena, picture};
use crate::engine::cuda::upload::{FloatPlaces, GatePlaces, Placed};
use crate::engine::float::float_act;
use crate::engine::prepare::window;
use crate::kernels::cuda::{
    FLOAT_TILE, FloatConvArgs, FloatGateArgs, FloatMeanArgs, FloatMixArgs, FloatRouteArgs, Kernel,
    PictureArgs,
};
use crate::kernels::{CELL_CHANNELS, View};
use crate::weights::graph::{QNode, QOp, float_kernel_len};

impl Planner<'_> {
    /// Plans a node that reads or writes f32, and whose operation is another one for that; false for all else.
    pub(super) fn float(&mut self, node: &QNode, placed: &Placed, views: (&View, &View)) -> bool {
        let (input, output) = views;
        match (&node.op, placed) {
            (QOp::FloatConv { .. }, Placed::FloatConv(places)) => self.float_conv(node, places),
            (QOp::Dequantise, Placed::Quant(table)) => self.float_map(Kernel::Dequantise, views, *table),
            (QOp::Quantise, Placed::Quant(table)) => self.float_map(Kernel::Quantise, views, *table),
            (QOp::SqueezeExcite { reduced }, Placed::FloatGates(places)) => {
                self.float_squeeze_excite(views, *reduced, places);
            }
            (QOp::Add, _) if self.model.is_float(self.id) => {
                let b = self.view(node.inputs[1]);
                let args = PictureArgs { b: arena(&b), b_stride: b.stride as u32, ..numbers(input, output) };
                self.launch_numbers(Kernel::FloatAdd, output, &args);
            }
            (QOp::MaxPool { kernel }, _) if self.model.is_float(self.id) => {
                let args = PictureArgs { size: *kernel as u32, ..numbers(input, output) };
                self.launch_numbers(Kernel::FloatMaxPool, output, &args);
            }
            _ => return false,
        }
        true
    }

    /// A launch with one thread for each number.
    fn launch_numbers(&mut self, kernel: Kernel, output: &View, args: &PictureArgs) {
        self.launch_flat(kernel, output.pixels() * output.channels, args.words());
    }

    fn float_map(&mut self, kernel: Kernel, (input, output): (&View, &View), table: u32) {
        self.launch_numbers(kernel, output, &PictureArgs { table, ..numbers(input, output) });
    }

    /// Means of a picture's channels.
    fn float_means(&mut self, input: &View) -> u32 {
        let means = self.scratch.take(8 * input.channels);
        let args = FloatMeanArgs {
            input: arena(input),
            means,
            pixels: input.pixels() as u32,
            stride: input.stride as u32,
            channels: input.channels as u32,
        };
        let threads = Kernel::FloatMeans.threads() as usize;
        self.launch(Kernel::FloatMeans, [input.channels.div_ceil(threads), 1], args.words());
        means
    }

    fn float_conv(&mut self, node: &QNode, places: &FloatPlaces) {
        let QOp::FloatConv { shape, activation, .. } = &node.op else { return };
        let (input, output) = (self.view(node.inputs[0]), self.view(self.id));
        let residual = node.inputs.get(1).map(|&i| self.view(i));
        let (weights, bias) = self.float_weights(node, &input, places);
        let views = (&input, &output, residual.as_ref());
        let args = FloatConvArgs {
            weights,
            bias,
            ..FloatConvArgs::of(views, &window(shape, &input), float_act(*activation))
        };
        let (pixels, channels) = (output.pixels(), output.channels);
        if shape.is_depthwise() {
            self.launch_flat(Kernel::FloatDepthwise, pixels * channels, args.words());
        } else {
            let grid = [pixels.div_ceil(FLOAT_TILE), channels.div_ceil(FLOAT_TILE)];
            self.launch(Kernel::FloatConv, grid, args.words());
        }
    }

    /// Weights and bias, mixed where there is something to mix.
    fn float_weights(&mut self, node: &QNode, input: &View, places: &FloatPlaces) -> (u32, u32) {
        let QOp::FloatConv { shape, experts, routing: Some(routing), .. } = &node.op else {
            return (places.weights, places.bias);
        };
        let Some(pieces) = &places.routing else { return (places.weights, places.bias) };
        let means = self.float_means(input);
        let routing = self.routing(means, input.channels, (*experts, *routing), pieces);
        let shares = routing.shares;
        let mixed_bias = self.scratch.take(4 * shape.c_out);
        let route = FloatRouteArgs {
            routing,
            static_bias: places.bias,
            expert_bias: pieces.expert_bias,
            padded: shape.c_out.next_multiple_of(CELL_CHANNELS) as u32,
            outputs: shape.c_out as u32,
            mixed_bias,
        };
        self.launch(Kernel::FloatRoute, [1, 1], route.words());
        let len = float_kernel_len(shape);
        let mixed = self.scratch.take(4 * len);
        let (count, experts) = (*experts as u32, places.weights);
        let mix = FloatMixArgs { experts, mixed, shares, count, len: len as u32 };
        self.launch_flat(Kernel::FloatMix, len, mix.words());
        (mixed, mixed_bias)
    }

    fn float_squeeze_excite(&mut self, views: (&View, &View), reduced: usize, places: &GatePlaces) {
        let channels = views.0.channels;
        let means = self.float_means(views.0);
        let excite = self.excite(means, channels, reduced, places);
        let table = self.scratch.take(4 * channels);
        let args = FloatGateArgs { excite, table };
        self.launch(Kernel::FloatGates, [1, 1], args.words());
        self.float_map(Kernel::FloatScale, views, table);
    }
}

/// As [`picture`], for numbers instead of bytes.
fn numbers(input: &View, output: &View) -> PictureArgs {
    PictureArgs { channels: output.channels as u32, ..picture(input, output) }
}
