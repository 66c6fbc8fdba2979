//! What a YOLOv8 model is: its graph, the blocks it is built from, and the checkpoints it comes in.

pub mod graph;
