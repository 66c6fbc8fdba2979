//! Which form of a convolution block a checkpoint holds, told by its keys.
//!
//! | form | keys below the block's path |
//! |---|---|
//! | plain | `conv.weight`, `bn.*`, activation `act` |
//! | bare dynamic | `routing.*`, `cond_conv.weight`; no norm, no activation |
//! | flat dynamic | as bare, and `bn.*`, activation `act`; routing by softmax |
//! | wrapped dynamic | `conv.0.routing.*`, `conv.0.cond_conv.weight`, norm `conv.1.*`, activation `conv.2` |
//! | held dynamic | `NAME.routing.*` under any one name; norm `bn.*`, activation `act`, where there are any |
//!
//! In each, `cond_conv.weight` may be a list: `cond_conv.experts.N.weight`, or `experts.N.weight`.
//! Routing by softmax clamped to [1e-8, 1] is taken as softmax: the clamp moves no weight by more.

use super::Builder;
use super::args::Window;
use super::conv::{DynamicOptions, Parts};
use super::error::BuildError;
use crate::model::graph::{Activation, ConvShape, NodeId, Padding, RoutingKind};

/// What tells a dynamic convolution, below its own path.
const ROUTING: &str = "routing.weight";

/// Channels and window of a convolution block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Output channels.
    pub c_out: usize,
    /// Kernel, stride, dilation.
    pub window: Window,
    /// Padding.
    pub padding: Padding,
    /// Groups.
    pub groups: usize,
}

impl Geometry {
    /// A convolution with Ultralytics' padding and no groups.
    pub fn new(c_out: usize, kernel: usize, stride: usize) -> Self {
        let window = Window::new(kernel, stride);
        Self { c_out, window, padding: window.auto_padding(), groups: 1 }
    }

    /// The same with groups.
    pub fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    fn shape(&self, c_in: usize) -> ConvShape {
        ConvShape {
            c_in,
            c_out: self.c_out,
            kernel: self.window.kernel,
            stride: self.window.stride,
            dilation: self.window.dilation,
            groups: self.groups,
            padding: self.padding,
        }
    }
}

impl Builder<'_> {
    /// `Conv` as in Ultralytics at `path`: convolution, batch norm, activation.
    pub(super) fn conv_block(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
    ) -> Result<NodeId, BuildError> {
        self.conv_block_with(path, x, geometry, self.default_activation)
    }

    /// As [`Builder::conv_block`], with the activation where the source names none.
    pub(super) fn conv_block_with(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
        default: Activation,
    ) -> Result<NodeId, BuildError> {
        let (conv, norm, act) = (format!("{path}.conv"), format!("{path}.bn"), format!("{path}.act"));
        let parts = Parts { conv: &conv, norm: Some(&norm), activation: Some(&act), default };
        self.conv(path, x, geometry.shape(self.channels(x)), &parts, false)
    }

    /// A convolution alone (`nn.Conv2d`) at `path`, with batch norm at `norm`, no activation.
    pub(super) fn bare_conv(
        &mut self,
        path: &str,
        norm: Option<&str>,
        x: NodeId,
        geometry: Geometry,
        bias: bool,
    ) -> Result<NodeId, BuildError> {
        let parts = Parts { conv: path, norm, activation: None, default: Activation::Identity };
        self.conv(path, x, geometry.shape(self.channels(x)), &parts, bias)
    }

    /// `DynamicConv` at `path` in the form that the keys show; bare where nothing is known.
    pub(super) fn dynamic_block(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
        options: DynamicOptions,
    ) -> Result<NodeId, BuildError> {
        if self.has(&format!("{path}.conv.0.routing.weight")) {
            self.forms.insert("conv and batch norm wrapped around it (keys conv.0.routing, conv.1)");
            let (norm, act) = (format!("{path}.conv.1"), format!("{path}.conv.2"));
            let default = self.default_activation;
            return self.dynamic_at(
                path,
                &format!("{path}.conv.0"),
                Some((&norm, &act, default)),
                x,
                geometry,
                options,
            );
        }
        if let Some(held) = self.held_dynamic(path)? {
            return self.held_block(path, &held, x, geometry, options);
        }
        if self.has(&format!("{path}.bn.weight")) {
            self.forms.insert("batch norm beside it (keys routing, bn), so softmax routing");
            let (norm, act) = (format!("{path}.bn"), format!("{path}.act"));
            let default = self.default_activation;
            self.flat_routing = true;
            let node = self.dynamic_at(path, path, Some((&norm, &act, default)), x, geometry, options);
            self.flat_routing = false;
            return node;
        }
        self.forms.insert("bare (keys routing, cond_conv), no batch norm of its own");
        self.dynamic_at(path, path, None, x, geometry, options)
    }

    /// Whether a dynamic convolution of any form lies at `path`.
    pub(super) fn is_dynamic(&self, path: &str) -> bool {
        self.has(&format!("{path}.routing.weight")) || !self.params.holders(path, ROUTING).is_empty()
    }

    /// The one dynamic convolution that a module at `path` holds under a name of its own.
    fn held_dynamic(&self, path: &str) -> Result<Option<String>, BuildError> {
        if self.has(&format!("{path}.routing.weight")) {
            return Ok(None);
        }
        let mut holders = self.params.holders(path, ROUTING);
        match holders.len() {
            0 | 1 => Ok(holders.pop()),
            found => {
                let expected = "one DynamicConv in this block".to_string();
                Err(BuildError::Holds { layer: path.to_string(), found, expected })
            }
        }
    }

    /// A dynamic convolution at `held`, below `path`; norm and activation follow it in its Sequential,
    /// or lie beside it.
    fn held_block(
        &mut self,
        path: &str,
        held: &str,
        x: NodeId,
        geometry: Geometry,
        options: DynamicOptions,
    ) -> Result<NodeId, BuildError> {
        let around = match held.strip_suffix(".0") {
            Some(sequence) => [format!("{sequence}.1"), format!("{sequence}.2")],
            None => {
                let norm = ["bn", "bn1", "norm"].map(|name| format!("{path}.{name}"));
                let norm = norm.into_iter().find(|norm| self.has(&format!("{norm}.weight")));
                [norm.unwrap_or_default(), format!("{path}.act")]
            }
        };
        let [norm, act] = around;
        if self.has(&format!("{norm}.weight")) {
            self.forms.insert("held under another name (keys NAME.routing), with batch norm");
            let around = Some((norm.as_str(), act.as_str(), self.default_activation));
            return self.dynamic_at(path, held, around, x, geometry, options);
        }
        self.forms.insert("held under another name (keys NAME.routing), no batch norm");
        self.dynamic_at(path, held, None, x, geometry, options)
    }

    /// A dynamic convolution called `name` whose `routing` and `cond_conv` lie in `module`, with
    /// norm, activation and its default beside it.
    pub(super) fn dynamic_at(
        &mut self,
        name: &str,
        module: &str,
        around: Option<(&str, &str, Activation)>,
        x: NodeId,
        geometry: Geometry,
        options: DynamicOptions,
    ) -> Result<NodeId, BuildError> {
        let direct = self.has(&format!("{module}.experts.0.weight"));
        let conv = if direct { module.to_string() } else { format!("{module}.cond_conv") };
        let routing = format!("{module}.routing");
        if self.has(&format!("{conv}.experts.0.weight")) {
            let form = match direct {
                true => "one tensor per expert (keys experts.N)",
                false => "one tensor per expert (keys cond_conv.experts.N)",
            };
            self.forms.insert(form);
        }
        let parts = match around {
            Some((norm, act, default)) => {
                Parts { conv: &conv, norm: Some(norm), activation: Some(act), default }
            }
            None => Parts { conv: &conv, norm: None, activation: None, default: Activation::Identity },
        };
        let kind = match (self.routing_override, self.flat_routing) {
            (Some(kind), _) => kind,
            (None, true) => RoutingKind::Softmax,
            (None, false) => RoutingKind::Sigmoid,
        };
        let shape = geometry.shape(self.channels(x));
        self.dynamic(name, x, shape, &parts, (&routing, kind), options)
    }

    /// A block that forks make plain or dynamic as they like: the keys decide, plain by default.
    pub(super) fn any_conv(
        &mut self,
        path: &str,
        x: NodeId,
        geometry: Geometry,
    ) -> Result<NodeId, BuildError> {
        if self.is_dynamic(path) {
            self.dynamic_block(path, x, geometry, DynamicOptions::default())
        } else {
            self.conv_block(path, x, geometry)
        }
    }
}
