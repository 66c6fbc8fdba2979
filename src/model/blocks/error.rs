//! Why a model description and its numbers make no graph.

use thiserror::Error;

use crate::model::params::ParamsError;
use crate::model::shapes::ShapeError;

/// One variant a fault. `layer` is a dotted path such as `model.2`.
#[derive(Debug, Error, PartialEq)]
pub enum BuildError {
    /// A block that Ghostlight does not know.
    #[error("layer {layer} is a `{block}`: {advice}")]
    UnknownBlock {
        /// Where it stands.
        layer: String,
        /// Its name.
        block: String,
        /// Which model family it belongs to and what to use.
        advice: &'static str,
    },
    /// An argument of a block that cannot be.
    #[error("layer {layer} (`{block}`), argument {index}: expected {expected}, found {found}")]
    Argument {
        /// Where it stands.
        layer: String,
        /// The block.
        block: String,
        /// Index of the argument, the output channels being 0.
        index: usize,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A row fed by a row that is not above it.
    #[error("layer {layer} reads from row {from}, which is not above it; correct its `from`")]
    From {
        /// The layer.
        layer: String,
        /// The row named.
        from: i64,
    },
    /// Channels that do not divide into the groups, or blocks that do not fit together.
    #[error("layer {layer}: {found} channels do not fit, expected {expected}")]
    Channels {
        /// The layer.
        layer: String,
        /// Channels found.
        found: usize,
        /// What would fit.
        expected: String,
    },
    /// More dynamic convolutions in a block than it can hold.
    #[error("layer {layer} holds {found} DynamicConvs, expected {expected}")]
    Holds {
        /// The layer.
        layer: String,
        /// How many it holds.
        found: usize,
        /// What would fit.
        expected: String,
    },
    /// A head with anchors (YOLOv3 to YOLOv7).
    #[error(
        "layer {layer} is a YOLOv5 head with anchors (`m.0`); only YOLOv8's anchor-free Detect can be converted, as in yolov5nu.pt and in models that Ultralytics 8 trains"
    )]
    Anchors {
        /// The layer.
        layer: String,
    },
    /// An activation that Ghostlight does not know.
    #[error(
        "layer {layer} uses the activation `{found}`; SiLU, ReLU, ReLU6, LeakyReLU, Hardswish and Identity are known, retrain with one of them"
    )]
    Activation {
        /// The layer.
        layer: String,
        /// Its class.
        found: String,
    },
    /// The last row is no detection head, or it is not the last.
    #[error("the model must end with one Detect layer, found {found}")]
    NoDetect {
        /// What stands there.
        found: String,
    },
    /// A head without NMS (YOLOv10, YOLO26).
    #[error("layer {layer} is an end-to-end head (`one2one_cv2`); train or export with end2end=False")]
    EndToEnd {
        /// The layer.
        layer: String,
    },
    /// A tensor that is missing or wrong.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Layers whose sizes do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}
