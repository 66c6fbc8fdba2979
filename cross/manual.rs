//! Writes man pages and shell completions, from the same definition as `--help`.
//!
//! ```sh
//! cargo run --example manual -- target/manual
//! ```
//!
//! Makes `man/ghostlight*.1`, `ghostlight.bash`, `_ghostlight` (zsh) and `ghostlight.fish` there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap_complete::Shell;

/// What the man page of the program tells beyond `--help`.
const MORE: &str = include_str!("manual.roff");

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("name the folder to write to: target/manual"));
    };
    // What an older version had is not packed.
    match fs::remove_dir_all(folder.join("man")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder.join("man"))?,
    }
    // `ghostlight help` has no page of its own to name.
    let mut command = ghostlight::cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &folder.join("man"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut ghostlight::cli::command(), "ghostlight", &folder)?;
    }
    Ok(())
}

/// A page for the program, and one for each of its commands.
fn pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    page.write_all(MORE.as_bytes())?;
    fs::write(folder.join("ghostlight.1"), page)?;
    for sub in command.get_subcommands() {
        clap_mangen::Man::new(sub.clone()).generate_to(folder)?;
    }
    Ok(())
}
