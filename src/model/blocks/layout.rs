//! Which form of a convolution block a checkpoint holds, told by its keys.
//!
//! | form | keys below the block's path |
//! |---|---|
//! | plain | `conv.weight`, `bn.*`, activation `act` |
//! | bare dynamic | `routing.*`, `cond_conv.weight`; no norm, no activation |
//! | flat dynamic | as bare, and `bn.*`, activation `act`; routing by softmax |
//! | wrapped dynamic | `conv.0.routing.*`, `conv.0.cond_conv.weight`, norm `conv.1.*`, activation `conv.2` |

use super::Builder;
use super::args::Window;
use super::conv::{DynamicOptions, Parts};
use super::error::BuildError;
use crate::model::graph::{Activation, ConvShape, NodeId, Padding, RoutingKind};

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
        let (conv, norm, act) = (format!("{path}.conv"), format!("{path}.bn"), format!("{path}.act"));
        let parts = Parts {
            conv: &conv,
            norm: Some(&norm),
            activation: Some(&act),
            default: self.default_activation,
        };
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
        let conv = format!("{module}.cond_conv");
        let routing = format!("{module}.routing");
        if self.has(&format!("{conv}.experts.0.weight")) {
            self.forms.insert("one tensor per expert (keys cond_conv.experts.N)");
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
        let dynamic =
            self.has(&format!("{path}.conv.0.routing.weight")) || self.has(&format!("{path}.routing.weight"));
        if dynamic {
            self.dynamic_block(path, x, geometry, DynamicOptions::default())
        } else {
            self.conv_block(path, x, geometry)
        }
    }
}
