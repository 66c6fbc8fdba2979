//! A checkpoint's tensors as [`Params`]: read when a block asks for them, verified on the way.

use std::io::{Read, Seek};

use half::{bf16, f16};

use super::archive::Archive;
use super::tree::{Dtype, TensorRef, Tree};
use crate::model::params::{Params, ParamsError, check_shape, holders_in};

/// Module tree and archive together.
pub(super) struct Source<R> {
    pub archive: Archive<R>,
    pub tree: Tree,
    /// The storage read last: some files keep many tensors in one.
    last: Option<(String, Vec<u8>)>,
    /// Elements that may still be read: a file cannot hold more than one for each two bytes.
    elements_left: u64,
}

impl<R: Read + Seek> Source<R> {
    pub(super) fn new(archive: Archive<R>, tree: Tree) -> Self {
        let elements_left = archive.file_len / 2;
        Self { archive, tree, last: None, elements_left }
    }

    /// Allows every tensor to be read once more, for a second attempt at building.
    pub(super) fn rewind(&mut self) {
        self.elements_left = self.archive.file_len / 2;
    }

    fn read(&mut self, key: &str, tensor: &TensorRef) -> Result<Vec<f32>, ParamsError> {
        let unreadable = |reason: String| ParamsError::Unreadable { key: key.to_string(), reason };
        if tensor.dtype == Dtype::Other {
            return Err(unreadable("its elements are no floats; save the model in f16 or f32".to_string()));
        }
        let (len, end) = extent(tensor).ok_or_else(|| unreadable("its shape overflows".to_string()))?;
        if len as u64 > self.elements_left {
            return Err(unreadable("the tensors claim more elements than the file can hold".to_string()));
        }
        self.elements_left -= len as u64;
        let bytes = self.storage(&tensor.storage).map_err(unreadable)?;
        let width = tensor.dtype.width();
        let held = bytes.len() / width;
        if end > held {
            return Err(unreadable(format!("it reaches to element {end} of a storage of {held}")));
        }
        Ok(gather(bytes, tensor, len))
    }

    fn storage(&mut self, name: &str) -> Result<&[u8], String> {
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            let entry = format!("data/{name}");
            let bytes = self.archive.entry(&entry, u64::MAX).map_err(|e| e.to_string())?;
            self.last = Some((name.to_string(), bytes));
        }
        self.last.as_ref().map(|(_, bytes)| bytes.as_slice()).ok_or_else(String::new)
    }
}

impl<R: Read + Seek> Params for Source<R> {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        let tensor = self.tree.tensors.get(key);
        let tensor = tensor.ok_or_else(|| ParamsError::Missing { key: key.to_string() })?.clone();
        check_shape(key, &tensor.shape, shape)?;
        self.read(key, &tensor)
    }

    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tree.tensors.get(key).map(|t| t.shape.as_slice())
    }

    fn holders(&self, path: &str, suffix: &str) -> Vec<String> {
        holders_in(&self.tree.tensors, path, suffix)
    }

    fn class(&self, module: &str) -> Option<&str> {
        self.tree.classes.get(module).map(|(_, class)| class.as_str())
    }

    fn number(&self, module: &str, attribute: &str) -> Option<f64> {
        self.tree.numbers.get(&(module.to_string(), attribute.to_string())).copied()
    }
}

/// Count of elements, and one past the last element that the strides reach; `None` on overflow.
fn extent(tensor: &TensorRef) -> Option<(usize, usize)> {
    if tensor.shape.len() != tensor.strides.len() {
        return None;
    }
    let len = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if len == 0 {
        return Some((0, 0));
    }
    let mut last = tensor.offset;
    for (&d, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add((d - 1).checked_mul(stride)?)?;
    }
    Some((len, last.checked_add(1)?))
}

/// Elements in row-major order, whatever the strides (channels-last weights are legal).
/// The caller has checked that all of them lie in `bytes`.
fn gather(bytes: &[u8], tensor: &TensorRef, len: usize) -> Vec<f32> {
    let width = tensor.dtype.width();
    let mut values = Vec::with_capacity(len);
    let mut index = vec![0; tensor.shape.len()];
    let mut at = tensor.offset;
    for _ in 0..len {
        let start = at * width;
        values.push(element(&bytes[start..start + width], tensor.dtype));
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += tensor.strides[axis];
            if index[axis] < tensor.shape[axis] {
                break;
            }
            at -= tensor.strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    values
}

/// One element from its little-endian bytes, as many as its type has.
pub(super) fn element(bytes: &[u8], dtype: Dtype) -> f32 {
    let bits = bytes.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    match dtype {
        Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
        Dtype::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Dtype::F32 => f32::from_bits(bits as u32),
        Dtype::F64 => f64::from_bits(bits) as f32,
        Dtype::Other => f32::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], strides: &[usize]) -> TensorRef {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        TensorRef { dtype: Dtype::F16, storage: "0".into(), offset: 1, shape, strides }
    }

    #[test]
    fn strides_are_followed() {
        let bytes: Vec<u8> = (0..7).flat_map(|i| f16::from_f32(i as f32).to_bits().to_le_bytes()).collect();
        let transposed = tensor(&[2, 3], &[1, 2]);
        assert_eq!(extent(&transposed), Some((6, 7)));
        assert_eq!(gather(&bytes, &transposed, 6), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(gather(&bytes, &tensor(&[], &[]), 1), [1.0]);
    }

    #[test]
    fn sizes_that_overflow_are_seen() {
        assert_eq!(extent(&tensor(&[usize::MAX, 2], &[1, 1])), None);
        assert_eq!(extent(&tensor(&[3], &[usize::MAX])), None);
        assert_eq!(extent(&tensor(&[3], &[1, 1])), None);
        assert_eq!(extent(&tensor(&[0, 9], &[1, 1])), Some((0, 0)));
    }

    #[test]
    fn every_float_type_is_read() {
        assert_eq!(element(&f16::from_f32(-1.5).to_bits().to_le_bytes(), Dtype::F16), -1.5);
        assert_eq!(element(&bf16::from_f32(-1.5).to_bits().to_le_bytes(), Dtype::Bf16), -1.5);
        assert_eq!(element(&(-1.5f32).to_le_bytes(), Dtype::F32), -1.5);
        assert_eq!(element(&(-1.5f64).to_le_bytes(), Dtype::F64), -1.5);
    }
}
