//! Typed access to a row's arguments.

use super::error::BuildError;
use crate::model::graph::Padding;
use crate::model::yaml::Value;

/// Widest layer, largest kernel and so on that any row may ask for.
const MAX_SIZE: i64 = 65_536;
/// Largest kernel, stride, dilation or padding.
const MAX_WINDOW: usize = 64;

/// A row's arguments with what an error has to name.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    /// Dotted path of the layer.
    pub layer: &'a str,
    /// Name of its block.
    pub block: &'a str,
    /// The arguments, output channels first.
    pub values: &'a [Value],
}

impl Args<'_> {
    /// Argument `index` as a positive size, or `default` where it is absent or null.
    pub fn size(&self, index: usize, default: usize) -> Result<usize, BuildError> {
        match self.values.get(index) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Int(i)) if (1..=MAX_SIZE).contains(i) => Ok(*i as usize),
            Some(other) => Err(self.fault(index, "a positive size", other)),
        }
    }

    /// As [`Args::size`], for kernels, strides and dilations.
    pub fn window(&self, index: usize, default: usize) -> Result<usize, BuildError> {
        let size = match self.values.get(index) {
            // `[3, 3]` is the same as 3.
            Some(Value::List(pair)) if pair.len() == 2 && pair[0] == pair[1] => {
                Args { values: &pair[..1], ..*self }.size(0, default)?
            }
            _ => self.size(index, default)?,
        };
        if size > MAX_WINDOW {
            return Err(self.fault(index, "at most 64", &Value::Int(size as i64)));
        }
        Ok(size)
    }

    /// Argument `index` as the output channels, which have no default.
    pub fn channels(&self, index: usize) -> Result<usize, BuildError> {
        match self.values.get(index) {
            Some(Value::Int(_)) => self.size(index, 0),
            other => Err(self.fault(index, "output channels", other.unwrap_or(&Value::Null))),
        }
    }

    /// Argument `index` as a truth value.
    pub fn flag(&self, index: usize, default: bool) -> Result<bool, BuildError> {
        match self.values.get(index) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.fault(index, "True or False", other)),
        }
    }

    /// Argument `index` as a ratio in (0, 64].
    pub fn ratio(&self, index: usize, default: f64) -> Result<f64, BuildError> {
        let value = self.values.get(index).filter(|v| **v != Value::Null);
        let Some(value) = value else { return Ok(default) };
        match value.as_f64() {
            Some(f) if (0.0..=64.0).contains(&f) => Ok(f),
            _ => Err(self.fault(index, "a ratio from 0 to 64", value)),
        }
    }

    /// Argument `index` as a padding. Absent, null and `''` mean "half the kernel": for a stride
    /// above one, `''` follows timm's `((s - 1) + d (k - 1)) / 2` where `strided`.
    pub fn padding(&self, index: usize, window: Window, strided: bool) -> Result<Padding, BuildError> {
        let extent = window.dilation * (window.kernel - 1);
        let half = Padding::Fixed(extent / 2);
        let symmetric = Padding::Fixed((window.stride - 1 + extent) / 2);
        match self.values.get(index) {
            None | Some(Value::Null) => Ok(if strided { symmetric } else { half }),
            Some(Value::Int(i)) if (0..=MAX_WINDOW as i64).contains(i) => Ok(Padding::Fixed(*i as usize)),
            Some(Value::Str(text)) => match text.to_lowercase().as_str() {
                "same" => Ok(Padding::Same),
                "valid" => Ok(Padding::Fixed(0)),
                // timm takes any other text as the symmetric default.
                _ => Ok(symmetric),
            },
            Some(other) => Err(self.fault(index, "a padding (whole number, '', same or valid)", other)),
        }
    }

    fn fault(&self, index: usize, expected: &'static str, found: &Value) -> BuildError {
        BuildError::Argument {
            layer: self.layer.to_string(),
            block: self.block.to_string(),
            index,
            expected,
            found: format!("{found:?}").chars().take(80).collect(),
        }
    }
}

/// Kernel, stride and dilation.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Square kernel's side.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Dilation.
    pub dilation: usize,
}

impl Window {
    /// A window without dilation.
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, dilation: 1 }
    }

    /// Ultralytics' autopad: half the dilated kernel.
    pub fn auto_padding(&self) -> Padding {
        Padding::Fixed(self.dilation * (self.kernel - 1) / 2)
    }
}
