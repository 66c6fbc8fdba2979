//! The types of `linux/videodev2.h` for 64-bit little-endian Linux.
//!
//! A stand-in for the crate of the same name, which runs bindgen at build time and so wants libclang
//! on every machine and in every cross image. `bindings.rs` is bindgen 0.65's output for the kernel
//! header (allowlist: types `v4l2_.*`, constants `V4L2_.*`); x86-64 and aarch64 give the same text.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, clippy::all, missing_docs)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("these bindings are for 64-bit little-endian Linux; generate others with bindgen");

include!("bindings.rs");
