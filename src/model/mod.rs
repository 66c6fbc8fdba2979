//! What a YOLOv8 model is: its graph, the blocks it is built from, and the checkpoints it comes in.

pub mod blocks;
pub mod checkpoint;
pub mod fuse;
pub mod graph;
pub mod params;
pub mod pickle;
pub mod shapes;
pub mod spec;
pub mod yaml;
