//! A folder with a tiny model, and a daemon that runs in it under a service manager's socket.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::models;

/// Far more than anything here takes, on a loaded machine too.
const LIMIT: Duration = Duration::from_secs(120);

/// The folder.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let graph = models::graph(models::TINY);
        let model = models::parts(&graph, &models::fixed_ranges(&graph)).to_bytes().unwrap();
        std::fs::write(folder.path().join("tiny.safetensors"), model).unwrap();
        std::fs::create_dir(folder.path().join("pictures")).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn picture(&self, name: &str, width: u32, height: u32) {
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
        image.save(self.path().join(name)).unwrap();
    }

    /// The program, without the caller's settings.
    pub fn bare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
        command.current_dir(self.path()).args(words).stdin(Stdio::null());
        let settings = ["GHOSTLIGHT_MODEL", "GHOSTLIGHT_CONFIG", "RUST_LOG", "CREDENTIALS_DIRECTORY"];
        let manager = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"];
        for name in settings.into_iter().chain(manager) {
            command.env_remove(name);
        }
        command
    }

    /// The program with the tiny model.
    pub fn ghostlight(&self, words: &[&str]) -> Command {
        let mut command = self.bare(words);
        command.args(["--model", "tiny.safetensors"]);
        command
    }

    /// The daemon under a service manager that watches it.
    pub fn start(&self, words: &[&str], stdout: Stdio) -> Running {
        let socket = self.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let child = self
            .ghostlight(words)
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "1000000")
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child, manager }
    }
}

/// A daemon, and what it tells its manager.
pub struct Running {
    pub child: Child,
    manager: UnixDatagram,
}

impl Running {
    /// The next message that has `words`; others are passed over.
    pub fn wait_for(&mut self, words: &str) -> String {
        let mut heard = Vec::new();
        let began = Instant::now();
        let mut bytes = [0; 2000];
        while began.elapsed() < LIMIT {
            if let Ok(length) = self.manager.recv(&mut bytes) {
                let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if message.contains(words) {
                    return message;
                }
                heard.push(message);
            } else if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) before `{words}`: {}", self.said());
            }
        }
        panic!("no `{words}` among {heard:?}");
    }

    /// Waits for something that is not told; the manager listens on.
    pub fn until(&mut self, what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        let mut bytes = [0; 2000];
        while !done() {
            assert!(began.elapsed() < LIMIT, "no {what}");
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) before {what}: {}", self.said());
            }
            // Its socket's queue must not fill up.
            let _ = self.manager.recv(&mut bytes);
        }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// The exit code and all that was said on standard error.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.said());
            }
            if began.elapsed() > LIMIT {
                self.child.kill().unwrap();
                panic!("it does not end: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            err.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Running {
    /// A test that failed leaves no daemon behind.
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
