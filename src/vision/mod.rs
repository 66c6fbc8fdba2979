//! From pixels to boxes: decoding pictures, letterboxing, reading the heads, drawing.
//!
//! Everything here gives the same bits on every machine: fixed-point resizing, an own `exp`, stable sorts.
//! What runs once per frame ([`Letterbox`], [`Detector`]) keeps its buffers and allocates nothing once warm.

pub mod convert;
pub mod decode;
pub mod detect;
pub mod draw;
mod huffman;
pub mod letterbox;
pub mod math;
pub mod pixels;

pub use convert::{ConvertError, to_rgb, view};
pub use decode::{DecodeError, decode_bytes, decode_image, decode_mjpeg};
pub use detect::{Cells, Detection, Detector, HeadLevel, HeadsError, NmsOptions, REG_MAX};
pub use draw::{SaveError, draw_detections, encode_jpeg, save_image};
pub use huffman::with_huffman_tables;
pub use letterbox::{Letterbox, LetterboxError, Placement};
pub use pixels::{LayoutError, Pixels, Size};
