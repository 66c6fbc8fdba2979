//! Runs the commands of the documentation, as its reader would.
//!
//! Each `sh` block of the README and of `docs/` runs here, line by line, in a folder that has what the text speaks
//! of: a checkpoint, pictures, a camera in the network. A comment above a block says where else it runs:
//!
//! ```text
//! <!-- run in FILE… -->     each of its lines stands in one of these files, or it is followed by a job of tests/vm
//! <!-- not run: WHY -->     nothing runs it
//! ```

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

mod common;
#[path = "support/reader.rs"]
mod reader;
#[path = "support/sources.rs"]
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use reader::Reader;
use sources::source_files;

/// Blocks that nothing runs: more are a sign that the mark is too handy.
const MOST_NOT_RUN: usize = 6;

#[derive(Debug)]
struct Block {
    file: PathBuf,
    line: usize,
    /// The comment above, without its brackets.
    mark: Option<String>,
    /// Whole commands: lines that end in `\` are joined, comments are gone.
    commands: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)));
    files.retain(|file| file.extension().is_some_and(|e| e == "md"));
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    files
}

fn blocks(file: &Path) -> Vec<Block> {
    let text = fs::read_to_string(file).unwrap();
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut above = "";
    while let Some((number, line)) = lines.next() {
        if line == "```sh" {
            let mark = above.strip_prefix("<!-- ").and_then(|m| m.strip_suffix(" -->"));
            let inside: Vec<&str> = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "```").collect();
            found.push(Block {
                file: file.to_owned(),
                line: number + 1,
                mark: mark.map(str::to_owned),
                commands: commands(&inside.join("\n")),
            });
        } else if line.starts_with("```") {
            lines.by_ref().find(|(_, l)| *l == "```");
        }
        above = line;
    }
    found
}

fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let bare = joined.lines().map(|line| line.split("  #").next().unwrap_or("").trim());
    bare.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// One space between words, so that a break of a line does not matter.
fn plain(text: &str) -> String {
    text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn marked_commands_run_where_they_say() {
    let mut not_run = Vec::new();
    for block in documents().iter().flat_map(|file| blocks(file)) {
        let place = format!("{}:{}", block.file.display(), block.line);
        match block.mark.as_deref() {
            Some(mark) if mark.starts_with("not run: ") => not_run.push(place),
            Some(mark) if mark.starts_with("run in ") => {
                let names: Vec<&str> = mark["run in ".len()..].split(' ').collect();
                let texts = names.iter().map(|name| {
                    plain(
                        &fs::read_to_string(root().join(name))
                            .unwrap_or_else(|_| panic!("{place}: no {name}")),
                    )
                });
                let text = texts.collect::<Vec<_>>().join(" ");
                for command in &block.commands {
                    let followed = names.iter().any(|name| {
                        name.starts_with("tests/vm/jobs/")
                            && text.contains(&format!(
                                "follow {}",
                                Path::new(name).file_stem().unwrap().display()
                            ))
                    });
                    assert!(
                        followed || text.contains(&plain(command)),
                        "{place}: {names:?} do not run '{command}'"
                    );
                }
            }
            _ => {}
        }
    }
    assert!(not_run.len() <= MOST_NOT_RUN, "nothing runs {not_run:#?}");
}

#[test]
fn the_other_commands_run() {
    let mut ran = 0;
    for file in documents() {
        let blocks = blocks(&file);
        let here = blocks.iter().filter(|b| b.mark.as_ref().is_none_or(|m| !m.contains("run")));
        let mut reader = None;
        for block in here {
            for command in &block.commands {
                let reader = reader.get_or_insert_with(|| Reader::new(&fs::read_to_string(&file).unwrap()));
                match reader.run(command) {
                    Ok(true) => ran += 1,
                    Ok(false) => println!("skipped, not installed here: {command}"),
                    Err(cause) => panic!("{}:{}: {command}\n{cause}", file.display(), block.line),
                }
            }
        }
    }
    println!("{ran} commands ran");
    assert!(ran > 20, "{ran}");
}

/// Every link to a file of the repository leads somewhere.
#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let path = file.parent().unwrap().join(target.split('#').next().unwrap());
            assert!(path.exists(), "{}: {target}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

/// Messages that are explained are messages that the program has: each piece between `…` stands in the sources.
#[test]
fn explained_messages_exist() {
    let sources: String = source_files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let text = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut checked = 0;
    for (message, _) in rows {
        for piece in message.split('…').map(str::trim).filter(|piece| piece.len() > 2) {
            assert!(sources.contains(piece), "no message has '{piece}'");
        }
        checked += 1;
    }
    assert!(checked > 15, "{checked}");
}
