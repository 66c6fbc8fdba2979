//! What of a model file goes to the GPU, once: weights where the kernels read them, constants of epilogues.

use crate::engine::constants;
use crate::engine::prepare::{self, Prepared};
use crate::kernels::cuda::Region;
use crate::kernels::{CELL_CHANNELS, Layout, Requant, STORED_OFFSET, pack};
use crate::model::graph::{ConvShape, NodeId};
use crate::weights::Model;
use crate::weights::graph::{ActQuant, QOp};

/// Alignment of each piece, in bytes.
const ALIGN: usize = 64;

/// The bytes of [`Region::Weights`], as they come together.
#[derive(Debug, Default)]
pub struct Upload {
    /// The bytes so far.
    pub bytes: Vec<u8>,
}

impl Upload {
    /// Appends bytes, with what a kernel may read past their end; gives their place.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize((self.bytes.len() + ALIGN).next_multiple_of(ALIGN), 0);
        offset
    }

    fn push_all<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> usize {
        self.push(bytemuck::cast_slice(values))
    }

    /// Steps, then zero points.
    fn push_quant(&mut self, quant: &ActQuant) -> usize {
        let zeros = quant.zero.iter().map(|&zero| u32::from(zero));
        let words: Vec<u32> = quant.step.iter().map(|step| step.to_bits()).chain(zeros).collect();
        self.push_all(&words)
    }

    /// Multipliers and zero points, then the residual's: what does not depend on the picture.
    fn push_constants(&mut self, requant: &Requant) -> usize {
        let offset = STORED_OFFSET;
        let widen = |values: &[i16], by: i32| values.iter().map(|&v| i32::from(v) + by).collect::<Vec<_>>();
        let mut words = if requant.is_float() {
            vec![0; 2 * requant.bias.len()]
        } else {
            [widen(&requant.mult, 0), widen(&requant.zero, offset)].concat()
        };
        if let Some(residual) = &requant.residual {
            words.extend(widen(&residual.mult, 0));
            words.extend(widen(&residual.zero, offset));
        }
        self.push_all(&words)
    }
}

/// Where a node's pieces lie in [`Region::Weights`].
#[derive(Debug, Clone)]
pub enum Placed {
    /// It has none.
    Nothing,
    /// A convolution's.
    Conv(ConvPlaces),
    /// A dynamic convolution's.
    Dynamic(DynamicPlaces),
    /// A sum's table.
    Add {
        /// Two multipliers, offset, gap, for each channel.
        table: u32,
    },
    /// Those of squeeze-and-excite.
    Gates {
        /// Steps and zero points of the input.
        quant: u32,
        /// Those of the output.
        own: u32,
        /// The rest.
        places: GatePlaces,
    },
    /// Those of squeeze-and-excite in f32.
    FloatGates(GatePlaces),
    /// Those of a convolution in f32.
    FloatConv(FloatPlaces),
    /// Steps and zero points, for a way between bytes and f32.
    Quant(u32),
}

/// A static convolution's pieces, as references.
#[derive(Debug, Clone)]
pub struct ConvPlaces {
    /// Packed weights.
    pub weights: u32,
    /// Zero points of the input.
    pub pad_row: u32,
    /// Start values and scales.
    pub sums: u32,
    /// What follows them.
    pub constants: u32,
}

/// Pieces of routing, as references.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // named as the tensors of a model file
pub struct RoutingPlaces {
    pub routing_weight: u32,
    pub routing_bias: u32,
    pub expert_bias: u32,
}

/// A dynamic convolution's pieces, as references.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // named as the tensors of a model file
pub struct DynamicPlaces {
    pub experts: u32,
    pub pad_row: u32,
    pub constants: u32,
    pub quant: u32,
    pub weight_scale: u32,
    pub bias: u32,
    pub routing: RoutingPlaces,
}

/// Pieces of a convolution in f32, as references.
#[derive(Debug, Clone)]
pub struct FloatPlaces {
    /// Panels, of each expert where it is dynamic.
    pub weights: u32,
    /// One for each output channel.
    pub bias: u32,
    /// Where it is dynamic.
    pub routing: Option<RoutingPlaces>,
}

/// Pieces of squeeze-and-excite, as references.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // named as the tensors of a model file
pub struct GatePlaces {
    pub reduce_weight: u32,
    pub reduce_bias: u32,
    pub expand_weight: u32,
    pub expand_bias: u32,
}

/// Puts a node's pieces to the others.
pub fn place(upload: &mut Upload, model: &Model, id: NodeId) -> Placed {
    let node = &model.graph.nodes[id];
    let at = |offset: usize| Region::Weights.unchecked(offset);
    let floats = |upload: &mut Upload, suffix| at(upload.push_all(model.f32s(node, suffix)));
    match (&node.op, prepare::prepare(model, id, Layout::N16K4)) {
        (QOp::Conv { shape, .. }, Prepared::Dense(prepare::Dense { requant, pad_row, .. }))
        | (QOp::Conv { shape, .. }, Prepared::Depthwise(prepare::Depthwise { requant, pad_row })) => {
            let weights = model.i8s(node, "weight");
            Placed::Conv(ConvPlaces {
                weights: at(upload.push_all(weights)),
                pad_row: at(upload.push(&zero_points(&pad_row))),
                sums: at(upload.push_all(&sums(&requant, &weight_sums(shape, weights)))),
                constants: at(upload.push_constants(&requant)),
            })
        }
        (QOp::DynamicConv { shape, act, output, .. }, _) => {
            let requant = constants::requant(model, id, act, output);
            let pad_row = constants::pad_row(model, node, prepare::pad_len(shape, Layout::N16K4));
            Placed::Dynamic(DynamicPlaces {
                experts: at(upload.push_all(model.i8s(node, "weight"))),
                pad_row: at(upload.push(&zero_points(&pad_row))),
                constants: at(upload.push_constants(&requant)),
                quant: at(upload.push_quant(model.quant(node.inputs[0]))),
                weight_scale: floats(upload, "weight_scale"),
                bias: floats(upload, "bias"),
                routing: routing(&mut |suffix| floats(upload, suffix)),
            })
        }
        (QOp::FloatConv { routing: kind, .. }, _) => Placed::FloatConv(FloatPlaces {
            weights: floats(upload, "weight"),
            bias: floats(upload, "bias"),
            routing: kind.map(|_| routing(&mut |suffix| floats(upload, suffix))),
        }),
        (QOp::Dequantise, _) => Placed::Quant(at(upload.push_quant(model.quant(node.inputs[0])))),
        (QOp::Quantise, _) => Placed::Quant(at(upload.push_quant(model.quant(id)))),
        (QOp::Add, Prepared::Add(affine)) => {
            let words = affine.iter().flat_map(|map| {
                let ([a, b], offset) = map.parts();
                [a, b, offset, 0]
            });
            Placed::Add { table: at(upload.push_all(&words.collect::<Vec<_>>())) }
        }
        (QOp::SqueezeExcite { .. }, _) if model.is_float(id) => {
            Placed::FloatGates(gates(&mut |suffix| floats(upload, suffix)))
        }
        (QOp::SqueezeExcite { .. }, _) => Placed::Gates {
            quant: at(upload.push_quant(model.quant(node.inputs[0]))),
            own: at(upload.push_quant(model.quant(id))),
            places: gates(&mut |suffix| floats(upload, suffix)),
        },
        _ => Placed::Nothing,
    }
}

fn routing(floats: &mut dyn FnMut(&'static str) -> u32) -> RoutingPlaces {
    RoutingPlaces {
        routing_weight: floats("routing_weight"),
        routing_bias: floats("routing_bias"),
        expert_bias: floats("expert_bias"),
    }
}

fn gates(floats: &mut dyn FnMut(&'static str) -> u32) -> GatePlaces {
    GatePlaces {
        reduce_weight: floats("reduce_weight"),
        reduce_bias: floats("reduce_bias"),
        expand_weight: floats("expand_weight"),
        expand_bias: floats("expand_bias"),
    }
}

/// Stored bytes of the CPU as activations, with room for a whole cell.
fn zero_points(pad_row: &[u8]) -> Vec<u8> {
    let mut row: Vec<u8> = pad_row.iter().map(|&byte| crate::kernels::load(byte)).collect();
    row.resize(row.len().next_multiple_of(CELL_CHANNELS), 0);
    row
}

/// `Σ w` of each output channel.
fn weight_sums(shape: &ConvShape, weights: &[i8]) -> Vec<i32> {
    let taps = shape.kernel * shape.kernel;
    // Bytes that count as 1 on every machine.
    let ones = vec![1; shape.c_in.next_multiple_of(CELL_CHANNELS)];
    if shape.is_depthwise() {
        pack::depthwise_zero_sums(weights, shape.c_out, taps, &ones)
    } else {
        let depth = shape.c_in.next_multiple_of(Layout::N16K4.depth());
        pack::zero_sums(Layout::N16K4, weights, (shape.c_out, taps, shape.c_in), &ones[..depth])
    }
}

/// Start values for activations whose offset is 0, then scales.
fn sums(requant: &Requant, weight_sums: &[i32]) -> Vec<u32> {
    let start = requant.bias.iter().zip(weight_sums);
    let start = start.map(|(&bias, &sum)| bias.wrapping_sub(sum.wrapping_mul(STORED_OFFSET)) as u32);
    start.chain(requant.scale.iter().map(|scale| scale.to_bits())).collect()
}
