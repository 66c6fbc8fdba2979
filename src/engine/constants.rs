//! What a convolution's epilogue needs, derived from the model file once at load.

use crate::kernels::{self, Act, Requant, Residual, STORED_OFFSET};
use crate::model::graph::NodeId;
use crate::weights::Model;
use crate::weights::graph::{QAct, QNode, QOutput};

/// Largest magnitude that `acc * scale` may have: f32 below 2^31, so that every instruction set's
/// conversion to i32 is defined and gives the same.
const MAX_SCALED: f64 = 2_130_000_000.0;

/// The output side of a convolution, the same for static and dynamic ones.
pub fn requant(model: &Model, id: NodeId, act: &QAct, output: &QOutput) -> Requant {
    let node = &model.graph.nodes[id];
    let padded = node.channels.next_multiple_of(kernels::CELL_CHANNELS);
    let act = self::act(act);
    let (mut mult, mut zero, mut residual) = (Vec::new(), Vec::new(), None);
    if let QOutput::Int8 { unit } = *output {
        let quant = model.quant(id);
        mult = padded_to(padded, quant.step.iter().map(|&step| q15(unit * 32768.0 / step)));
        zero = padded_to(padded, quant.zero.iter().map(|&z| i16::from(z) - STORED_OFFSET as i16));
        if let Some(&from) = node.inputs.get(1) {
            let quant = model.quant(from);
            residual = Some(Residual {
                mult: padded_to(padded, quant.step.iter().map(|&step| q15(step * 256.0 / unit))),
                zero: padded_to(padded, quant.zero.iter().map(|&z| i16::from(z) - STORED_OFFSET as i16)),
            });
        }
    }
    Requant { bias: vec![0; padded], scale: vec![0.0; padded], act, mult, zero, residual }
}

/// A model file's activation as the kernels take it.
pub fn act(act: &QAct) -> Act {
    match *act {
        QAct::Identity => Act::Identity,
        QAct::Relu => Act::Relu,
        QAct::Gated { shift, poly } => Act::Gated { shift, poly },
    }
}

/// Real value of one step of `p` (of the f32 output where that is what is written).
pub fn unit(output: &QOutput) -> f32 {
    match *output {
        QOutput::Int8 { unit } => unit,
        QOutput::Float => 1.0,
    }
}

/// Sets channel `c`'s start value and scale for weights of step `weight_scale`.
///
/// `bias` is in real units; `zero_sum` is `Σ operand(zero point) * w`; `depth` counts the products that
/// one accumulator adds.
pub fn set_channel(
    requant: &mut Requant,
    c: usize,
    (bias, weight_scale, unit): (f32, f32, f32),
    zero_sum: i32,
    depth: usize,
) {
    let steps = (f64::from(bias) / f64::from(weight_scale)).round_ties_even().clamp(-1e9, 1e9) as i32;
    requant.bias[c] = steps.saturating_sub(zero_sum);
    let products = depth as f64 * 255.0 * 127.0;
    let largest = products + f64::from(requant.bias[c]).abs();
    requant.scale[c] = (weight_scale / unit).min((MAX_SCALED / largest) as f32);
}

/// Stored zero points of a convolution's input, padded to `depth` bytes: what lies outside the picture.
pub fn pad_row(model: &Model, node: &QNode, depth: usize) -> Vec<u8> {
    let mut row: Vec<u8> = model.quant(node.inputs[0]).zero.iter().map(|&z| kernels::store(z)).collect();
    row.resize(depth, kernels::store(0));
    row
}

/// A non-negative multiplier in Q15, saturating.
fn q15(x: f32) -> i16 {
    x.round_ties_even().clamp(0.0, 32767.0) as i16
}

fn padded_to(len: usize, values: impl Iterator<Item = i16>) -> Vec<i16> {
    let mut all: Vec<i16> = values.collect();
    all.resize(len, 0);
    all
}
