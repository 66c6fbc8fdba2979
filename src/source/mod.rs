//! Where pictures come from.

pub mod files;
