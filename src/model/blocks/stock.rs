//! Ultralytics' own blocks beside those of YOLOv8: DWConv, GhostConv and its bottleneck, C2, C3, C3Ghost.
//!
//! Its `GhostBottleneck` shares no key with GhostNet's ([`super::ghost`]): parts lie below `conv`, not
//! `ghost1` and `ghost2`.

use super::Builder;
use super::args::{Args, Window};
use super::error::BuildError;
use super::layout::Geometry;
use super::yolo::Inner;
use crate::model::graph::{Activation, NodeId, Op};
use crate::model::yaml::Value;

/// Kernel of the cheap half of a [`Builder::ghost_conv`].
const CHEAP_KERNEL: usize = 5;

/// What a `C3` holds between its convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Bottlenecks of a 1x1 and a 3x3 convolution.
    Bottlenecks,
    /// Ghost bottlenecks.
    Ghosts,
}

impl Builder<'_> {
    /// Row `[c2, k, s, d, act]`: as many groups as divide the channels on both sides.
    pub(super) fn depthwise_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let window =
            Window { kernel: args.window(1, 1)?, stride: args.window(2, 1)?, dilation: args.window(3, 1)? };
        let activation = self.row_activation(args, 4);
        let geometry = self.depthwise(x, args.channels(0)?, window);
        self.conv_block_with(args.layer, x, geometry, activation)
    }

    fn depthwise(&self, x: NodeId, c_out: usize, window: Window) -> Geometry {
        let groups = common_divisor(self.channels(x), c_out);
        Geometry { c_out, window, padding: window.auto_padding(), groups }
    }

    /// A row's `act`: absent and `True` mean the model's default; all else means none, as in Ultralytics.
    pub(super) fn row_activation(&self, args: Args, index: usize) -> Activation {
        match args.values.get(index) {
            None | Some(Value::Bool(true)) => self.default_activation,
            Some(_) => Activation::Identity,
        }
    }

    /// Row `[c2, k, s, g, act]`.
    pub(super) fn ghost_conv_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let geometry = Geometry::new(args.channels(0)?, args.window(1, 1)?, args.window(2, 1)?)
            .grouped(args.size(3, 1)?);
        let activation = self.row_activation(args, 4);
        self.ghost_conv(args.layer, x, geometry, activation)
    }

    /// `GhostConv` at `path`: `y = cv1(x)`, then `y` and `cv2(y)`, a depthwise 5x5, side by side.
    fn ghost_conv(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
        activation: Activation,
    ) -> Result<NodeId, BuildError> {
        let half = geometry.c_out / 2;
        let first = Geometry { c_out: half, ..geometry };
        let first = self.conv_block_with(&format!("{path}.cv1"), x, first, activation)?;
        let cheap = Geometry::new(half, CHEAP_KERNEL, 1).grouped(half);
        let second = self.conv_block_with(&format!("{path}.cv2"), first, cheap, activation)?;
        Ok(self.push(&format!("{path}.concat"), Op::Concat, vec![first, second], 2 * half))
    }

    /// Whether the keys below `path` are those of Ultralytics' ghost bottleneck.
    pub(super) fn is_stock_ghost(&self, path: &str) -> bool {
        self.has(&format!("{path}.conv.0.cv1.conv.weight"))
    }

    /// Row `[c2, k, s]` of Ultralytics' ghost bottleneck.
    pub(super) fn stock_ghost_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        self.stock_ghost(
            args.layer,
            x,
            args.channels(0)?,
            Window::new(args.window(1, 3)?, args.window(2, 1)?),
        )
    }

    /// Ghost convolution to half, depthwise where strided, ghost convolution without activation, sum.
    /// As in Ultralytics, only a stride of 2 counts.
    fn stock_ghost(
        &mut self,
        path: &str,
        x: NodeId,
        c_out: usize,
        window: Window,
    ) -> Result<NodeId, BuildError> {
        let (none, strided) = (Activation::Identity, window.stride == 2);
        let half = Geometry::new(c_out / 2, 1, 1);
        let mut y = self.ghost_conv(&format!("{path}.conv.0"), x, half, self.default_activation)?;
        if strided {
            let geometry = self.depthwise(y, self.channels(y), window);
            y = self.conv_block_with(&format!("{path}.conv.1"), y, geometry, none)?;
        }
        y = self.ghost_conv(&format!("{path}.conv.2"), y, Geometry::new(c_out, 1, 1), none)?;
        let mut shortcut = x;
        if strided {
            let geometry = self.depthwise(x, self.channels(x), window);
            shortcut = self.conv_block_with(&format!("{path}.shortcut.0"), x, geometry, none)?;
            let geometry = Geometry::new(c_out, 1, 1);
            shortcut = self.conv_block_with(&format!("{path}.shortcut.1"), shortcut, geometry, none)?;
        }
        let (channels, beside) = (self.channels(y), self.channels(shortcut));
        if channels != beside {
            let expected = format!("the {beside} channels of the shortcut");
            return Err(BuildError::Channels { layer: path.to_string(), found: channels, expected });
        }
        Ok(self.push(&format!("{path}.add"), Op::Add, vec![y, shortcut], channels))
    }

    /// Row `[c2, shortcut, g, e]`: a chain on `cv1(x)` beside `cv2(x)`, both into `cv3`.
    pub(super) fn c3_row(
        &mut self,
        args: Args,
        repeats: usize,
        x: NodeId,
        chain: Chain,
    ) -> Result<NodeId, BuildError> {
        let (path, c_out) = (args.layer, args.channels(0)?);
        let (shortcut, groups) = (args.flag(1, true)?, args.size(2, 1)?);
        let c = self.hidden(args, c_out, args.ratio(3, 0.5)?)?;
        let mut y = self.any_conv(&format!("{path}.cv1"), x, Geometry::new(c, 1, 1))?;
        for i in 0..repeats {
            let inner = format!("{path}.m.{i}");
            y = match chain {
                Chain::Ghosts => self.stock_ghost(&inner, y, c, Window::new(3, 1))?,
                Chain::Bottlenecks => self.bottleneck(
                    &inner,
                    y,
                    Inner { c_out: c, hidden: c, groups, shortcut, kernels: [1, 3] },
                )?,
            };
        }
        let beside = self.any_conv(&format!("{path}.cv2"), x, Geometry::new(c, 1, 1))?;
        let both = self.push(&format!("{path}.concat"), Op::Concat, vec![y, beside], 2 * c);
        self.any_conv(&format!("{path}.cv3"), both, Geometry::new(c_out, 1, 1))
    }

    /// Row `[c2, shortcut, g, e]`: a chain on the first half of `cv1(x)`, beside the second, into `cv2`.
    pub(super) fn c2_row(&mut self, args: Args, repeats: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let (path, c_out) = (args.layer, args.channels(0)?);
        let (shortcut, groups) = (args.flag(1, true)?, args.size(2, 1)?);
        let c = self.hidden(args, c_out, args.ratio(3, 0.5)?)?;
        let first = self.any_conv(&format!("{path}.cv1"), x, Geometry::new(2 * c, 1, 1))?;
        let mut y = self.push(&format!("{path}.split.0"), Op::Slice { start: 0 }, vec![first], c);
        let beside = self.push(&format!("{path}.split.1"), Op::Slice { start: c }, vec![first], c);
        for i in 0..repeats {
            let inner = Inner { c_out: c, hidden: c, groups, shortcut, kernels: [3, 3] };
            y = self.bottleneck(&format!("{path}.m.{i}"), y, inner)?;
        }
        let both = self.push(&format!("{path}.concat"), Op::Concat, vec![y, beside], 2 * c);
        self.any_conv(&format!("{path}.cv2"), both, Geometry::new(c_out, 1, 1))
    }
}

/// Euclid's algorithm; neither is 0 in a model that builds.
fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a.max(1) } else { common_divisor(b, a % b) }
}
