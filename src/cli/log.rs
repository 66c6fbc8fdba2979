//! Words on standard error; in systemd's journal with their priority.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use log::{Level, LevelFilter};

/// Starts logging on standard error; `RUST_LOG` overrules the flags. `usual` is the level without flags.
pub fn start(verbose: u8, quiet: bool, usual: LevelFilter) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => usual,
        (false, 1) => LevelFilter::Info.max(usual),
        (false, _) => LevelFilter::Trace,
    };
    let started = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format(|out, record| {
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "{}ghostlight: {level}: {}", priority(record.level()), record.args())
        })
        .try_init();
    // Only a second run in one process finds a logger already there; it serves as well.
    drop(started);
}

/// The priority by which the journal sorts (sd-daemon(3)); empty where standard error is no journal.
pub fn priority(level: Level) -> &'static str {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    match (JOURNAL.get_or_init(|| is_journal().unwrap_or(false)), level) {
        (false, _) => "",
        (true, Level::Error) => "<3>",
        (true, Level::Warn) => "<4>",
        (true, Level::Info) => "<6>",
        (true, Level::Debug | Level::Trace) => "<7>",
    }
}

/// Whether standard error is the very stream that `$JOURNAL_STREAM` names; it may be redirected.
fn is_journal() -> Option<bool> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = stream.split_once(':')?;
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    Some(device.parse() == Ok(stderr.dev()) && inode.parse() == Ok(stderr.ino()))
}
