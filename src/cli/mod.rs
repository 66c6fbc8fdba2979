//! The command line: one file a command. Data goes to standard output, words to standard error.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

pub mod args;
pub mod backend;
pub mod bench;
pub mod cameras;
pub mod convert;
mod convert_report;
pub mod detect;
pub mod doctor;
pub mod error;
pub mod eval;
mod eval_report;
pub mod init;
pub mod inspect;
mod log;
pub mod model_path;
pub mod models;
pub mod root;
pub mod run;
mod table;

pub use error::{CliError, Exit};

/// How a command ended that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All was done.
    Done,
    /// Some inputs failed, the others were done; the faults are told already.
    SomeFailed,
    /// Every input failed, with this code; the faults are told already.
    AllFailed(Exit),
}

/// Finds objects in pictures with an int8 YOLOv8 on small boards
#[derive(Debug, Parser)]
#[command(
    name = "ghostlight",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  ghostlight detect photo.jpg\n\n'ghostlight COMMAND --help' shows a command's flags."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error; -vv says everything
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 900)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 901)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Detect(detect::Args),
    Run(Box<run::Args>),
    Convert(convert::Args),
    Inspect(inspect::Args),
    Models(models::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Init(init::Args),
}

/// The definition of the command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command in `words` (the program's name first), its data to `out`.
pub fn run(words: impl IntoIterator<Item = OsString>, out: &mut dyn Write) -> Exit {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // Standard error may be closed: nothing is left to tell it to.
            let _ = error.print();
            return Exit::Usage;
        }
        // Help and version are data.
        Err(text) => {
            return end(write!(out, "{}", text.render()).map(|()| Outcome::Done).map_err(CliError::from));
        }
    };
    // A daemon tells its changes of state; a command is silent while all goes well.
    let usual = match &cli.command {
        Command::Run(_) => ::log::LevelFilter::Info,
        _ => ::log::LevelFilter::Warn,
    };
    log::start(cli.verbose, cli.quiet, usual);
    let result = match &cli.command {
        Command::Detect(args) => detect::run(args, cli.quiet, out),
        Command::Run(args) => run::run(args, out),
        Command::Convert(args) => convert::run(args, cli.quiet, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Models(args) => models::run(args, out),
        Command::Eval(args) => eval::run(args, cli.quiet, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Doctor(args) => doctor::run(args, out),
        Command::Init(args) => init::run(args, out),
    };
    end(result.and_then(|outcome| Ok(out.flush().map(|()| outcome)?)))
}

fn end(result: Result<Outcome, CliError>) -> Exit {
    match result {
        Ok(Outcome::Done) => Exit::Done,
        Ok(Outcome::SomeFailed) => Exit::SomeFailed,
        Ok(Outcome::AllFailed(exit)) => exit,
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Done {
                tell(&error);
            }
            exit
        }
    }
}

/// Prints an error: `ghostlight: error: FILE: cause; what to do`.
fn tell(error: &dyn std::fmt::Display) {
    let priority = log::priority(::log::Level::Error);
    // One write: threads' lines do not mix. A closed standard error is nobody's concern.
    let _ = io::stderr().write_all(format!("{priority}ghostlight: error: {error}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("ghostlight {}", command.get_name())), "{}", command.get_name());
        }
    }
}
