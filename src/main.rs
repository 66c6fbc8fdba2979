//! The `ghostlight` command: see `ghostlight --help`.

fn main() {}
