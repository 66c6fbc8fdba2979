//! Convolution with batch norm and activation: the static and the dynamic one, batch norm folded.
//!
//! Sources: Ultralytics `Conv`; timm `CondConv2d`; the forms in which public forks wrap it.

use super::Builder;
use super::error::BuildError;
use crate::model::graph::{Activation, Conv, ConvShape, DynamicConv, NodeId, Op, RoutingKind};
use crate::model::params::ParamsError;
use crate::model::spec::activation_named;

/// Batch norm's epsilon where the source does not state it: Ultralytics sets it on every layer.
const EPSILON: f64 = 1e-3;
/// Experts where the source does not state them.
const EXPERTS: usize = 4;

/// Where the parts of a convolution lie in the state dict.
pub(super) struct Parts<'a> {
    /// Module that holds `weight` and perhaps `bias`.
    pub conv: &'a str,
    /// Batch norm's module, where there may be one; a fused checkpoint has a bias instead.
    pub norm: Option<&'a str>,
    /// Activation's module and what stands in for it where the source names none.
    pub activation: Option<&'a str>,
    /// Used where `activation` is not known.
    pub default: Activation,
}

/// Batch norm as `x * scale + shift`, per channel; empty for a source without numbers.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Builder<'_> {
    /// Static convolution at `name`; `bias` says whether it has one without batch norm.
    pub(super) fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        shape: ConvShape,
        parts: &Parts,
        bias: bool,
    ) -> Result<NodeId, BuildError> {
        self.check_groups(name, &shape)?;
        let activation = self.activation(parts.activation, parts.default)?;
        let kernel = [shape.c_out, shape.c_in / shape.groups, shape.kernel, shape.kernel];
        let mut weight = self.parameter(&format!("{}.weight", parts.conv), &kernel)?;
        let own = self.optional_bias(parts, &[shape.c_out], bias)?;
        let affine = self.norm(parts, shape.c_out)?;
        let per_channel = shape.weight_len() / shape.c_out;
        scale_channels(&mut weight, &affine, per_channel);
        let bias = match weight.is_empty() {
            true => Vec::new(),
            false => shifted(own.as_deref(), affine.as_ref(), shape.c_out),
        };
        let op = Op::Conv(Conv { shape, activation, weight, bias });
        Ok(self.push(name, op, vec![x], shape.c_out))
    }

    /// Dynamic convolution at `name`: `routing` and `parts.conv` are its modules.
    pub(super) fn dynamic(
        &mut self,
        name: &str,
        x: NodeId,
        shape: ConvShape,
        parts: &Parts,
        routing: (&str, RoutingKind),
        options: DynamicOptions,
    ) -> Result<NodeId, BuildError> {
        self.check_groups(name, &shape)?;
        let activation = self.activation(parts.activation, parts.default)?;
        let (routing_module, kind) = routing;
        let experts = self.experts(routing_module, options.experts);
        let routing_weight = self.parameter(&format!("{routing_module}.weight"), &[experts, shape.c_in])?;
        let routing_bias = self.parameter(&format!("{routing_module}.bias"), &[experts])?;
        let mut weight = self.experts_weight(parts.conv, experts, &shape)?;
        let own = self.optional_bias(parts, &[experts, shape.c_out], options.bias)?;
        let affine = self.norm(parts, shape.c_out)?;
        scale_channels(&mut weight, &affine, shape.weight_len() / shape.c_out);
        let mut expert_bias = own.unwrap_or_default();
        scale_channels(&mut expert_bias, &affine, 1);
        let bias = match weight.is_empty() {
            true => Vec::new(),
            false => shifted(None, affine.as_ref(), shape.c_out),
        };
        self.routings.insert(kind.name());
        let op = Op::DynamicConv(DynamicConv {
            shape,
            activation,
            experts,
            routing: kind,
            routing_weight,
            routing_bias,
            weight,
            expert_bias,
            bias,
        });
        Ok(self.push(name, op, vec![x], shape.c_out))
    }

    /// Activation by the class of its module. An empty `Sequential` stands for none, as in timm's GhostNet.
    pub(super) fn activation(
        &self,
        module: Option<&str>,
        default: Activation,
    ) -> Result<Activation, BuildError> {
        let Some((module, class)) = module.and_then(|m| self.params.class(m).map(|class| (m, class))) else {
            return Ok(default);
        };
        if class == "Sequential" {
            return Ok(Activation::Identity);
        }
        let slope = || self.params.number(module, "negative_slope").map(|slope| slope as f32);
        let known = match activation_named(class) {
            Some(Activation::LeakyRelu { slope: usual }) => {
                Some(Activation::LeakyRelu { slope: slope().unwrap_or(usual) })
            }
            other => other,
        };
        known
            .filter(Activation::is_finite)
            .ok_or_else(|| BuildError::Activation { layer: module.to_string(), found: class.to_string() })
    }

    /// Experts by the routing layer's rows, else as the row says, else four.
    fn experts(&self, routing: &str, asked: Option<usize>) -> usize {
        let rows = self.params.shape(&format!("{routing}.weight")).and_then(|s| s.first().copied());
        rows.or(asked).unwrap_or(EXPERTS)
    }

    /// Experts as one tensor `[experts, len]`, or one tensor per expert (`experts.{i}.weight`).
    fn experts_weight(
        &mut self,
        conv: &str,
        experts: usize,
        shape: &ConvShape,
    ) -> Result<Vec<f32>, BuildError> {
        if self.params.shape(&format!("{conv}.experts.0.weight")).is_none() {
            return self.parameter(&format!("{conv}.weight"), &[experts, shape.weight_len()]);
        }
        let kernel = [shape.c_out, shape.c_in / shape.groups, shape.kernel, shape.kernel];
        let mut all = Vec::new();
        for expert in 0..experts {
            all.extend(self.parameter(&format!("{conv}.experts.{expert}.weight"), &kernel)?);
        }
        Ok(all)
    }

    /// The convolution's own bias: where the source has one, or is expected to and lacks batch norm.
    fn optional_bias(
        &mut self,
        parts: &Parts,
        shape: &[usize],
        expected: bool,
    ) -> Result<Option<Vec<f32>>, BuildError> {
        let key = format!("{}.bias", parts.conv);
        let per_expert = |expert: usize| format!("{}.experts.{expert}.bias", parts.conv);
        if let (&[experts, channels], true) = (shape, self.has(&per_expert(0))) {
            let mut all = Vec::new();
            for expert in 0..experts {
                all.extend(self.parameter(&per_expert(expert), &[channels])?);
            }
            return Ok(Some(all));
        }
        if !expected && self.params.shape(&key).is_none() {
            return Ok(None);
        }
        self.parameter(&key, shape).map(Some)
    }

    /// Batch norm, unless the checkpoint has it fused: a bias, and no norm of that name.
    fn norm(&mut self, parts: &Parts, channels: usize) -> Result<Option<Affine>, BuildError> {
        let Some(module) = parts.norm else { return Ok(None) };
        let biased = ["bias", "experts.0.bias"].iter().any(|key| self.has(&format!("{}.{key}", parts.conv)));
        let fused = biased && !self.has(&format!("{module}.weight"));
        if fused {
            return Ok(None);
        }
        let weight = self.parameter(&format!("{module}.weight"), &[channels])?;
        let bias = self.parameter(&format!("{module}.bias"), &[channels])?;
        let mean = self.params.tensor(&format!("{module}.running_mean"), &[channels])?;
        let var = self.params.tensor(&format!("{module}.running_var"), &[channels])?;
        let epsilon = self.params.number(module, "eps").unwrap_or(EPSILON);
        let scale: Vec<f64> =
            weight.iter().zip(&var).map(|(&w, &v)| f64::from(w) / (f64::from(v) + epsilon).sqrt()).collect();
        if scale.iter().any(|s| !s.is_finite()) {
            return Err(ParamsError::NotFinite { key: format!("{module}.running_var") }.into());
        }
        let shift = bias.iter().zip(&mean).zip(&scale).map(|((&b, &m), s)| f64::from(b) - f64::from(m) * s);
        let shift = shift.collect();
        Ok(Some(Affine { scale, shift }))
    }

    fn check_groups(&self, layer: &str, shape: &ConvShape) -> Result<(), BuildError> {
        for channels in [shape.c_in, shape.c_out] {
            if channels == 0 || channels % shape.groups != 0 {
                let expected = format!("a multiple of {} groups", shape.groups);
                return Err(BuildError::Channels { layer: layer.to_string(), found: channels, expected });
            }
        }
        Ok(())
    }
}

/// What a row says beyond the shape of a dynamic convolution.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DynamicOptions {
    /// Experts, where the row names them.
    pub experts: Option<usize>,
    /// Whether each expert has a bias.
    pub bias: bool,
}

/// Multiplies each output channel (of every expert) by batch norm's scale.
fn scale_channels(values: &mut [f32], affine: &Option<Affine>, per_channel: usize) {
    let Some(affine) = affine.as_ref().filter(|a| !a.scale.is_empty()) else { return };
    for (channel, chunk) in values.chunks_mut(per_channel).enumerate() {
        let scale = affine.scale[channel % affine.scale.len()];
        for v in chunk {
            *v = (f64::from(*v) * scale) as f32;
        }
    }
}

/// `own * scale + shift`, per channel.
fn shifted(own: Option<&[f32]>, affine: Option<&Affine>, channels: usize) -> Vec<f32> {
    let own = |c: usize| own.map_or(0.0, |own| f64::from(own[c]));
    match affine {
        Some(a) => (0..channels).map(|c| (own(c) * a.scale[c] + a.shift[c]) as f32).collect(),
        None => (0..channels).map(|c| own(c) as f32).collect(),
    }
}
