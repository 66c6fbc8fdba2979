//! Blocks of the dynamic GhostNet (ParameterNet, Han et al., CVPR 2024).

use super::Builder;
use super::args::{Args, Window};
use super::conv::DynamicOptions;
use super::error::BuildError;
use super::layout::Geometry;
use crate::model::graph::{Activation, NodeId, Op, Padding, SqueezeExcite};

/// Arguments of a [`Builder::ghost_module`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Ghost {
    /// Output channels.
    pub c_out: usize,
    /// Kernel of the primary convolution.
    pub kernel: usize,
    /// Outputs per primary channel.
    pub ratio: usize,
    /// Kernel of the cheap (depthwise) operation.
    pub cheap_kernel: usize,
    /// Stride of the primary convolution.
    pub stride: usize,
    /// Activation where the source names none.
    pub activation: Activation,
}

impl Ghost {
    /// Pointwise, half of the channels cheap.
    pub fn new(c_out: usize, activation: Activation) -> Self {
        Self { c_out, kernel: 1, ratio: 2, cheap_kernel: 3, stride: 1, activation }
    }
}

impl Builder<'_> {
    /// Row `[c2, k, ratio, dw, s]`.
    pub(super) fn ghost_module_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let ghost = Ghost {
            c_out: args.channels(0)?,
            kernel: args.window(1, 1)?,
            ratio: args.window(2, 2)?,
            cheap_kernel: args.window(3, 3)?,
            stride: args.window(4, 1)?,
            activation: Activation::Relu,
        };
        self.ghost_module(args.layer, x, ghost)
    }

    /// `GhostModule` at `path`: `x1 = primary(x)`, `x2 = cheap(x1)`, the first `c_out` channels of both.
    pub(super) fn ghost_module(&mut self, path: &str, x: NodeId, ghost: Ghost) -> Result<NodeId, BuildError> {
        let primary = ghost.c_out.div_ceil(ghost.ratio);
        let cheap = primary * (ghost.ratio - 1);
        let geometry = Geometry::new(primary, ghost.kernel, ghost.stride);
        let geometry = Geometry { padding: Padding::Fixed(ghost.kernel / 2), ..geometry };
        let first = self.ghost_part(&format!("{path}.primary_conv"), x, geometry, ghost.activation)?;
        if cheap == 0 {
            return Ok(first);
        }
        let geometry = Geometry::new(cheap, ghost.cheap_kernel, 1).grouped(primary);
        let geometry = Geometry { padding: Padding::Fixed(ghost.cheap_kernel / 2), ..geometry };
        let second =
            self.ghost_part(&format!("{path}.cheap_operation"), first, geometry, ghost.activation)?;
        let both = self.push(&format!("{path}.concat"), Op::Concat, vec![first, second], primary + cheap);
        if primary + cheap == ghost.c_out {
            return Ok(both);
        }
        Ok(self.push(&format!("{path}.slice"), Op::Slice { start: 0 }, vec![both], ghost.c_out))
    }

    /// `Sequential(DynamicConv, BatchNorm2d, activation)`; the node is named after the DynamicConv.
    fn ghost_part(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
        activation: Activation,
    ) -> Result<NodeId, BuildError> {
        let [conv, norm, act] = [0, 1, 2].map(|i| format!("{path}.{i}"));
        self.forms.insert("ghost modules (keys primary_conv.0, cheap_operation.0, batch norm at .1)");
        let options = DynamicOptions::default();
        self.dynamic_at(&conv, &conv, Some((&norm, &act, activation)), x, geometry, options)
    }

    /// Row `[c2, dw, s, se_ratio]`.
    pub(super) fn ghost_bottleneck_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let (path, c_in) = (args.layer, self.channels(x));
        let (c_out, kernel, stride) = (args.channels(0)?, args.window(1, 3)?, args.window(2, 1)?);
        let middle = 2 * c_in;
        let ghost = Ghost::new(middle, Activation::Relu);
        let mut y = self.ghost_module(&format!("{path}.ghost1"), x, ghost)?;
        if stride > 1 {
            let geometry = depthwise(middle, kernel, stride);
            let norm = format!("{path}.bn_dw");
            y = self.bare_conv(&format!("{path}.conv_dw"), Some(&norm), y, geometry, false)?;
        }
        let se_ratio = args.ratio(3, 0.0)?;
        if se_ratio > 0.0 {
            y = self.squeeze_excite(&format!("{path}.se"), y, round_to_4(middle as f64 * se_ratio))?;
        }
        let ghost = Ghost::new(c_out, Activation::Identity);
        y = self.ghost_module(&format!("{path}.ghost2"), y, ghost)?;
        let shortcut = if c_in == c_out && stride == 1 {
            x
        } else {
            self.ghost_shortcut(&format!("{path}.shortcut"), x, c_out, kernel, stride)?
        };
        Ok(self.push(&format!("{path}.add"), Op::Add, vec![y, shortcut], c_out))
    }

    /// Dynamic depthwise convolution and dynamic 1x1, each with batch norm, no activation.
    fn ghost_shortcut(
        &mut self,
        path: &str,
        x: NodeId,
        c_out: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<NodeId, BuildError> {
        let c_in = self.channels(x);
        let [conv, norm, none] = [0, 1, 4].map(|i| format!("{path}.{i}"));
        let around = Some((norm.as_str(), none.as_str(), Activation::Identity));
        let options = DynamicOptions::default();
        let y = self.dynamic_at(&conv, &conv, around, x, depthwise(c_in, kernel, stride), options)?;
        let [conv, norm] = [2, 3].map(|i| format!("{path}.{i}"));
        let around = Some((norm.as_str(), none.as_str(), Activation::Identity));
        self.dynamic_at(&conv, &conv, around, y, Geometry::new(c_out, 1, 1), options)
    }

    /// timm's `SqueezeExcite`: two 1x1 convolutions with bias.
    fn squeeze_excite(&mut self, path: &str, x: NodeId, reduced: usize) -> Result<NodeId, BuildError> {
        let c = self.channels(x);
        let se = SqueezeExcite {
            reduced,
            reduce_weight: self.parameter(&format!("{path}.conv_reduce.weight"), &[reduced, c, 1, 1])?,
            reduce_bias: self.parameter(&format!("{path}.conv_reduce.bias"), &[reduced])?,
            expand_weight: self.parameter(&format!("{path}.conv_expand.weight"), &[c, reduced, 1, 1])?,
            expand_bias: self.parameter(&format!("{path}.conv_expand.bias"), &[c])?,
        };
        Ok(self.push(path, Op::SqueezeExcite(se), vec![x], c))
    }

    /// Row `[c2, k, s, dilation, padding, skip]`: DynamicConv, batch norm, ReLU, residual where it fits.
    pub(super) fn conv_bn_act_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let path = args.layer;
        let window =
            Window { kernel: args.window(1, 3)?, stride: args.window(2, 1)?, dilation: args.window(3, 1)? };
        let padding = args.padding(4, window, true)?;
        let geometry = Geometry { c_out: args.channels(0)?, window, padding, groups: 1 };
        let norm = if self.has(&format!("{path}.bn.weight")) { "bn" } else { "bn1" };
        let (norm, act) = (format!("{path}.{norm}"), format!("{path}.act1"));
        let around = Some((norm.as_str(), act.as_str(), Activation::Relu));
        let conv = format!("{path}.conv");
        let y = self.dynamic_at(&conv, &conv, around, x, geometry, DynamicOptions::default())?;
        if !(args.flag(5, false)? && window.stride == 1 && self.channels(x) == geometry.c_out) {
            return Ok(y);
        }
        Ok(self.push(&format!("{path}.add"), Op::Add, vec![y, x], geometry.c_out))
    }
}

/// A depthwise convolution padded by `(kernel - 1) / 2`.
fn depthwise(channels: usize, kernel: usize, stride: usize) -> Geometry {
    Geometry::new(channels, kernel, stride).grouped(channels)
}

/// timm's `make_divisible(v, 4)`: the nearest multiple of 4, never below 90 % of `v`.
fn round_to_4(v: f64) -> usize {
    let nearest = (((v + 2.0) / 4.0) as usize * 4).max(4);
    if (nearest as f64) < 0.9 * v { nearest + 4 } else { nearest }
}
