//! Where a graph's numbers come from: a checkpoint, a seed, or nowhere (shapes alone).

use std::collections::BTreeMap;

use thiserror::Error;

use crate::math::SplitMix64;

/// A source of tensors by their state-dict key.
///
/// Methods with a default answer "not known": a source that knows nothing gives the usual layout.
pub trait Params {
    /// The tensor under `key`, which must have exactly `shape`; row-major. A source without
    /// numbers gives an empty vector.
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError>;

    /// Shape of the tensor under `key`, where it exists. Tells dialects apart.
    fn shape(&self, _key: &str) -> Option<&[usize]> {
        None
    }

    /// Modules below the one at a dotted path, not itself, that have a tensor at `suffix`, in order.
    fn holders(&self, _path: &str, _suffix: &str) -> Vec<String> {
        Vec::new()
    }

    /// Class of the module at a dotted path, without its Python package, for example `SiLU`.
    fn class(&self, _module: &str) -> Option<&str> {
        None
    }

    /// A number or truth value (as 0 or 1) that the module at a dotted path holds, for example `eps`.
    fn number(&self, _module: &str, _attribute: &str) -> Option<f64> {
        None
    }
}

/// Why a source cannot give a tensor.
#[derive(Debug, Error, PartialEq)]
pub enum ParamsError {
    /// No tensor of that name.
    #[error("tensor `{key}` is missing; the checkpoint does not fit its own model description")]
    Missing {
        /// Its key.
        key: String,
    },
    /// The tensor has another shape.
    #[error("tensor `{key}` has shape {found:?}, the model description asks for {expected:?}")]
    Shape {
        /// Its key.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the block needs.
        expected: Vec<usize>,
    },
    /// The tensor holds infinities or NaN.
    #[error(
        "tensor `{key}` holds a value that is no number (infinite or NaN); training diverged, use an earlier checkpoint"
    )]
    NotFinite {
        /// Its key.
        key: String,
    },
    /// The tensor cannot be read from its file.
    #[error("tensor `{key}`: {reason}")]
    Unreadable {
        /// Its key.
        key: String,
        /// What went wrong.
        reason: String,
    },
}

/// Shapes alone: every tensor is empty. For counting and for the structure.
#[derive(Debug, Default)]
pub struct Shapes;

impl Params for Shapes {
    fn tensor(&mut self, _key: &str, _shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        Ok(Vec::new())
    }
}

/// Sane random numbers for tests: activations neither vanish nor explode. The same seed gives the
/// same tensors, each by its key alone, so that the order of calls does not matter.
#[derive(Debug)]
pub struct Seeded(pub u64);

impl Params for Seeded {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        let len = shape.iter().product::<usize>();
        // FNV-1a over the key.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325 ^ self.0, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = SplitMix64(hash);
        let (centre, spread) = range_of(key, shape);
        Ok((0..len).map(|_| centre + spread * (2.0 * uniform(&mut random) - 1.0)).collect())
    }
}

/// The next number in [0, 1).
fn uniform(random: &mut SplitMix64) -> f32 {
    (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32
}

/// Centre and half-width of the values of a tensor, by what its name says it is.
fn range_of(key: &str, shape: &[usize]) -> (f32, f32) {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    match (leaf, shape.len()) {
        ("running_var", _) => (1.0, 0.3),
        ("weight", 1) => (1.0, 0.3),
        ("weight", 4) => (0.0, (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt()),
        // Routing and flattened experts; their fan-in is not in the shape, so a typical one.
        ("weight", _) => (0.0, if key.contains("routing") { 1.0 } else { 0.1 }),
        _ => (0.0, 0.3),
    }
}

/// Tensors held in memory with their shapes, and what is known of the modules.
#[derive(Debug, Default)]
pub struct StateDict {
    /// Key → shape and values.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Module path → class.
    pub classes: BTreeMap<String, String>,
    /// (Module path, attribute) → number.
    pub numbers: BTreeMap<(String, String), f64>,
}

impl Params for StateDict {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        let Some((found, values)) = self.tensors.get(key) else {
            return Err(ParamsError::Missing { key: key.to_string() });
        };
        check_shape(key, found, shape)?;
        check_finite(key, values)?;
        Ok(values.clone())
    }

    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|(shape, _)| shape.as_slice())
    }

    fn holders(&self, path: &str, suffix: &str) -> Vec<String> {
        holders_in(&self.tensors, path, suffix)
    }

    fn class(&self, module: &str) -> Option<&str> {
        self.classes.get(module).map(String::as_str)
    }

    fn number(&self, module: &str, attribute: &str) -> Option<f64> {
        self.numbers.get(&(module.to_string(), attribute.to_string())).copied()
    }
}

/// [`Params::holders`] of a table by full key.
pub fn holders_in<T>(tensors: &BTreeMap<String, T>, path: &str, suffix: &str) -> Vec<String> {
    let (below, end) = (format!("{path}."), format!(".{suffix}"));
    let keys = tensors.range(below.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&below));
    let module = |key: &String| key.strip_suffix(&end).filter(|m| m.len() > below.len()).map(str::to_string);
    keys.filter_map(module).collect()
}

/// Fails unless the shapes are the same.
pub fn check_shape(key: &str, found: &[usize], expected: &[usize]) -> Result<(), ParamsError> {
    if found == expected {
        return Ok(());
    }
    Err(ParamsError::Shape { key: key.to_string(), found: found.to_vec(), expected: expected.to_vec() })
}

/// Fails if any value is infinite or NaN.
pub fn check_finite(key: &str, values: &[f32]) -> Result<(), ParamsError> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(ParamsError::NotFinite { key: key.to_string() })
}
