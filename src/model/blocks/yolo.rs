//! YOLOv8's own blocks: Conv, C2f, Bottleneck, SPPF, Upsample, Concat, Detect.

use super::Builder;
use super::args::{Args, Window};
use super::conv::DynamicOptions;
use super::error::BuildError;
use super::ghost::Ghost;
use super::layout::Geometry;
use crate::model::graph::{Activation, Detect, NodeId, Op};
use crate::model::yaml::Value;

impl Builder<'_> {
    /// Row `[c2, k, s, p, g, d]`.
    pub(super) fn conv_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let window =
            Window { kernel: args.window(1, 1)?, stride: args.window(2, 1)?, dilation: args.window(5, 1)? };
        let padding = args.padding(3, window, false)?;
        let geometry = Geometry { c_out: args.channels(0)?, window, padding, groups: args.size(4, 1)? };
        self.conv_block_with(args.layer, x, geometry, self.row_activation(args, 6))
    }

    /// Row `[c2, k, s, p, d, g, bias, experts]`.
    pub(super) fn dynamic_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let window =
            Window { kernel: args.window(1, 1)?, stride: args.window(2, 1)?, dilation: args.window(4, 1)? };
        let padding = args.padding(3, window, true)?;
        let geometry = Geometry { c_out: args.channels(0)?, window, padding, groups: args.size(5, 1)? };
        let experts = args.values.get(7).map(|_| args.window(7, 4)).transpose()?;
        let options = DynamicOptions { experts, bias: args.flag(6, false)? };
        self.dynamic_block(args.layer, x, geometry, options)
    }

    /// Row `[c2, shortcut, g, e]`: `cv1`, a chain of inner blocks on its second half, all of it into `cv2`.
    ///
    /// `dynamic` picks ghost modules as inner blocks, unless the keys show bottlenecks.
    pub(super) fn c2f_row(
        &mut self,
        args: Args,
        repeats: usize,
        x: NodeId,
        dynamic: bool,
    ) -> Result<NodeId, BuildError> {
        let (path, c_out) = (args.layer, args.channels(0)?);
        let (shortcut, groups, expansion) = (args.flag(1, false)?, args.size(2, 1)?, args.ratio(3, 0.5)?);
        let c = self.hidden(args, c_out, expansion)?;
        let first = self.any_conv(&format!("{path}.cv1"), x, Geometry::new(2 * c, 1, 1))?;
        let mut parts = vec![first];
        let mut last = self.push(&format!("{path}.split"), Op::Slice { start: c }, vec![first], c);
        let bottlenecks = !dynamic || self.has_any(&format!("{path}.m.0.cv1"));
        for i in 0..repeats {
            let inner = format!("{path}.m.{i}");
            last = if bottlenecks {
                self.bottleneck(
                    &inner,
                    last,
                    Inner { c_out: c, hidden: c, groups, shortcut, kernels: [3, 3] },
                )?
            } else {
                self.ghost_module(&inner, last, Ghost::new(c, Activation::Relu))?
            };
            parts.push(last);
        }
        // cv1's output is both halves: it goes in whole.
        let all = self.push(&format!("{path}.concat"), Op::Concat, parts, (2 + repeats) * c);
        self.any_conv(&format!("{path}.cv2"), all, Geometry::new(c_out, 1, 1))
    }

    /// Row `[c2, shortcut, g, k, e]`.
    pub(super) fn bottleneck_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let c_out = args.channels(0)?;
        let hidden = self.hidden(args, c_out, args.ratio(4, 0.5)?)?;
        let kernels = match args.values.get(3) {
            None | Some(Value::Null) => [3, 3],
            Some(Value::List(pair)) if pair.len() == 2 => {
                let pair = Args { values: pair, ..args };
                [pair.window(0, 3)?, pair.window(1, 3)?]
            }
            Some(other) => {
                return Err(BuildError::Argument {
                    layer: args.layer.to_string(),
                    block: args.block.to_string(),
                    index: 3,
                    expected: "two kernels, as in [3, 3]",
                    found: format!("{other:?}").chars().take(80).collect(),
                });
            }
        };
        let inner = Inner { c_out, hidden, groups: args.size(2, 1)?, shortcut: args.flag(1, true)?, kernels };
        self.bottleneck(args.layer, x, inner)
    }

    /// Two convolutions, and the sum with their input where it is asked for and fits.
    pub(super) fn bottleneck(&mut self, path: &str, x: NodeId, inner: Inner) -> Result<NodeId, BuildError> {
        let first =
            self.any_conv(&format!("{path}.cv1"), x, Geometry::new(inner.hidden, inner.kernels[0], 1))?;
        let geometry = Geometry::new(inner.c_out, inner.kernels[1], 1).grouped(inner.groups);
        let second = self.any_conv(&format!("{path}.cv2"), first, geometry)?;
        let fits = self.channels(x) == inner.c_out;
        let add = self.params.number(path, "add").map_or(inner.shortcut, |add| add != 0.0);
        if !(add && fits) {
            return Ok(second);
        }
        Ok(self.push(&format!("{path}.add"), Op::Add, vec![second, x], inner.c_out))
    }

    pub(super) fn hidden(&self, args: Args, c_out: usize, expansion: f64) -> Result<usize, BuildError> {
        let c = (c_out as f64 * expansion) as usize;
        if c == 0 || c > 65_536 {
            let expected = "1 to 65536 inner channels".to_string();
            return Err(BuildError::Channels { layer: args.layer.to_string(), found: c, expected });
        }
        Ok(c)
    }

    /// Row `[c2, k, n, shortcut]`: `cv1`, three max poolings in a row, all four into `cv2`.
    pub(super) fn sppf_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let (path, c_out, kernel) = (args.layer, args.channels(0)?, args.window(1, 5)?);
        if kernel % 2 == 0 {
            let expected = "an odd pooling window".to_string();
            return Err(BuildError::Channels { layer: path.to_string(), found: kernel, expected });
        }
        let c = (self.channels(x) / 2).max(1);
        // Rows that name the poolings are those of YOLO26, whose first convolution has no activation.
        let default = if args.values.len() > 2 { Activation::Identity } else { self.default_activation };
        let first = self.conv_block_with(&format!("{path}.cv1"), x, Geometry::new(c, 1, 1), default)?;
        let mut parts = vec![first];
        let asked = args.window(2, 3)?.min(16);
        let pools = self.params.number(path, "n").map_or(asked, |n| n.clamp(1.0, 16.0) as usize);
        for i in 0..pools {
            let last = parts[i];
            parts.push(self.push(&format!("{path}.m.{i}"), Op::MaxPool { kernel }, vec![last], c));
        }
        let all = self.push(&format!("{path}.concat"), Op::Concat, parts, (pools + 1) * c);
        let y = self.conv_block(&format!("{path}.cv2"), all, Geometry::new(c_out, 1, 1))?;
        let asked = args.flag(3, false)? && self.channels(x) == c_out;
        if !self.params.number(path, "add").map_or(asked, |add| add == 1.0) {
            return Ok(y);
        }
        Ok(self.push(&format!("{path}.add"), Op::Add, vec![y, x], c_out))
    }

    /// Row `[size, factor, mode]`, nearest only.
    pub(super) fn upsample_row(&mut self, args: Args, x: NodeId) -> Result<NodeId, BuildError> {
        let fault = |index, expected, found: &Value| BuildError::Argument {
            layer: args.layer.to_string(),
            block: args.block.to_string(),
            index,
            expected,
            found: format!("{found:?}").chars().take(80).collect(),
        };
        match args.values.get(2) {
            None => {}
            Some(Value::Str(mode)) if mode == "nearest" => {}
            Some(other) => return Err(fault(2, "nearest", other)),
        }
        match args.values.first() {
            None | Some(Value::Null) => {}
            Some(Value::Str(none)) if none == "None" => {}
            Some(other) => return Err(fault(0, "None (a factor, no size)", other)),
        }
        let factor = match args.values.get(1) {
            // torch turns the factor into a float.
            Some(Value::Float(f)) if f.fract() == 0.0 && (1.0..=16.0).contains(f) => *f as usize,
            _ => args.window(1, 2)?,
        };
        let channels = self.channels(x);
        Ok(self.push(args.layer, Op::Upsample { factor }, vec![x], channels))
    }

    /// Row `[1]`: channels one after the other.
    pub(super) fn concat_row(&mut self, args: Args, inputs: Vec<NodeId>) -> Result<NodeId, BuildError> {
        if args.size(0, 1)? != 1 {
            return Err(BuildError::Argument {
                layer: args.layer.to_string(),
                block: args.block.to_string(),
                index: 0,
                expected: "1, the channels",
                found: format!("{:?}", args.values),
            });
        }
        let channels = inputs.iter().map(|&i| self.channels(i)).sum();
        Ok(self.push(args.layer, Op::Concat, inputs, channels))
    }

    /// The head: per level a box branch (`cv2`) and a class branch (`cv3`).
    pub(super) fn detect(
        &mut self,
        path: &str,
        levels: &[NodeId],
        classes: usize,
        reg_max: usize,
    ) -> Result<NodeId, BuildError> {
        if self.has(&format!("{path}.one2one_cv2.0.2.weight")) {
            return Err(BuildError::EndToEnd { layer: path.to_string() });
        }
        if self.has(&format!("{path}.m.0.weight")) {
            return Err(BuildError::Anchors { layer: path.to_string() });
        }
        let first = levels.first().map_or(0, |&l| self.channels(l));
        let box_channels = (first / 4).max(4 * reg_max).max(16);
        // A head that was trained for more classes keeps its width.
        let class_channels = match self.params.shape(&format!("{path}.cv3.0.2.weight")) {
            Some(&[_, channels, _, _]) if (1..=MAX_CLASS_CHANNELS).contains(&channels) => channels,
            _ => first.max(classes.min(100)),
        };
        let mut inputs = Vec::new();
        let mut strides = Vec::new();
        for (i, &level) in levels.iter().enumerate() {
            let branch = format!("{path}.cv2.{i}");
            let mut y = self.conv_block(&format!("{branch}.0"), level, Geometry::new(box_channels, 3, 1))?;
            y = self.conv_block(&format!("{branch}.1"), y, Geometry::new(box_channels, 3, 1))?;
            inputs.push(self.prediction(&format!("{branch}.2"), y, 4 * reg_max)?);
            inputs.push(self.class_branch(&format!("{path}.cv3.{i}"), level, class_channels, classes)?);
            strides.push(self.stride(level));
        }
        // The distribution's 0, 1, … are stored as a frozen convolution.
        self.parameter(&format!("{path}.dfl.conv.weight"), &[1, reg_max, 1, 1])?;
        let op = Op::Detect(Detect { classes, reg_max, strides });
        Ok(self.push(path, op, inputs, 0))
    }

    /// Two 3x3 convolutions, or (Ultralytics 8.3 and later, other families) each split into depthwise and 1x1.
    fn class_branch(
        &mut self,
        branch: &str,
        level: NodeId,
        channels: usize,
        classes: usize,
    ) -> Result<NodeId, BuildError> {
        let mut y = level;
        let split = self.has(&format!("{branch}.0.0.conv.weight"));
        for i in 0..2 {
            let path = format!("{branch}.{i}");
            if split {
                let c = self.channels(y);
                y = self.conv_block(&format!("{path}.0"), y, Geometry::new(c, 3, 1).grouped(c))?;
                y = self.conv_block(&format!("{path}.1"), y, Geometry::new(channels, 1, 1))?;
            } else {
                y = self.conv_block(&path, y, Geometry::new(channels, 3, 1))?;
            }
        }
        self.prediction(&format!("{branch}.2"), y, classes)
    }

    /// A branch's last 1x1 convolution, with bias.
    fn prediction(&mut self, path: &str, x: NodeId, channels: usize) -> Result<NodeId, BuildError> {
        self.bare_conv(path, None, x, Geometry::new(channels, 1, 1), true)
    }
}

/// Channels of the widest class branch that is taken from a checkpoint: four times what YOLOv8x has.
const MAX_CLASS_CHANNELS: usize = 1280;

/// Arguments of a bottleneck.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner {
    /// Output channels.
    pub c_out: usize,
    /// Channels between the convolutions.
    pub hidden: usize,
    /// Groups of the second convolution.
    pub groups: usize,
    /// Whether the input is added.
    pub shortcut: bool,
    /// Kernels of both convolutions.
    pub kernels: [usize; 2],
}
