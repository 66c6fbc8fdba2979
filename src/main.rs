//! The `ghostlight` command: see `ghostlight --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostlight::cli::run(std::env::args_os(), &mut std::io::stdout().lock()).into()
}
