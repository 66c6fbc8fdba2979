//! A folder with all that the documentation speaks of, and someone who types its commands there.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ghostlight::model::blocks::build;
use ghostlight::model::spec::ModelSpec;
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{Checkpoint, Recorder, models};

/// Far more than any command takes, on a loaded machine too.
const LIMIT: Duration = Duration::from_secs(180);

pub struct Reader {
    folder: tempfile::TempDir,
    camera: SocketAddr,
}

impl Reader {
    /// What a document `text` needs; its first `toml` block is `pi.toml`.
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["models", "systemd"] {
            std::os::unix::fs::symlink(repository.join(name), path(name)).unwrap();
        }
        for name in ["bin", "pictures", "images", "images/val", "labels", "labels/val"] {
            fs::create_dir(path(name)).unwrap();
        }
        for (seed, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            models::save_picture(&path(&format!("pictures/{name}.jpg")), seed, [64, 96]);
            fs::copy(path(&format!("pictures/{name}.jpg")), path(&format!("images/val/{name}.jpg"))).unwrap();
            fs::write(path(&format!("labels/val/{name}.txt")), "0 0.5 0.5 0.25 0.25\n").unwrap();
        }
        models::save_picture(&path("picture.jpg"), 9, [64, 96]);
        fs::write(path("data.yaml"), "path: .\nval: images/val\nnames: [empty, occupied]\n").unwrap();
        fs::write(path("film.mp4"), "a player reads it").unwrap();
        fs::write(path("tiny.safetensors"), models::tiny_bytes()).unwrap();
        fs::write(path("yolov8n.yaml"), models::TINY).unwrap();
        fs::write(path("state.safetensors"), state_dict()).unwrap();
        let names = vec!["empty", "occupied"];
        fs::write(path("best.pt"), Checkpoint { yaml: models::TINY, names, ..Checkpoint::default() }.write())
            .unwrap();
        fs::write(path("ghostlight.toml"), "[source]\ndevice = \"/dev/video0\"\n").unwrap();
        if let Some(block) = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()) {
            fs::write(path("pi.toml"), block).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ghostlight"), path("bin/ghostlight")).unwrap();
        // In place of a camera and a player: what they write, in their formats.
        let frame = "printf 'FRAME\\n'; head -c 6144 /dev/zero;";
        for (name, script) in [
            (
                "rpicam-vid",
                "case \"$*\" in *yuv420*) head -c 2764800 /dev/zero ;; *) cat pictures/a.jpg pictures/b.jpg ;; esac".to_owned(),
            ),
            ("ffmpeg", format!("printf 'YUV4MPEG2 W64 H64 F25:1 C420\\n'; {frame} {frame}")),
        ] {
            fs::write(path("bin").join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let camera = camera(fs::read(path("pictures/a.jpg")).unwrap());
        Self { folder, camera }
    }

    /// Runs a command to its end; one that has none is ended once it has given a line of detections. `Ok(false)`
    /// is a program that is not installed here.
    pub fn run(&self, command: &str) -> Result<bool, String> {
        // Nothing of this machine is changed.
        let outside = command.contains("sudo ") || command.starts_with("ghostlight init");
        assert!(!outside, "{command}: mark its block for a job of tests/vm");
        let program = command.split_whitespace().next().unwrap_or("");
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![self.folder.path().join("bin")];
        folders.extend(std::env::split_paths(&paths));
        if !folders.iter().any(|folder| folder.join(program).exists()) {
            return Ok(false);
        }
        let command = command.replace("camera.lan", &self.camera.to_string());
        let [out, err] = ["stdout", "stderr"].map(|name| self.folder.path().join(name));
        let mut child = Command::new("sh")
            .args(["-c", &command])
            .current_dir(self.folder.path())
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("GHOSTLIGHT_MODEL", "tiny.safetensors")
            .env_remove("GHOSTLIGHT_CONFIG")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let endless = command.contains("ghostlight run");
        let ended = wait(&mut child, || endless && has_line(&out));
        let told = || format!("{}{}", fs::read_to_string(&out).unwrap(), fs::read_to_string(&err).unwrap());
        match ended {
            Some(status) if status.success() => Ok(true),
            // The shell that waits for a pipe is ended together with it.
            Some(status) if endless && status.code().is_none() && has_line(&out) => Ok(true),
            Some(status) => Err(format!("{status}: {}", told())),
            None => Err(format!("did not end: {}", told())),
        }
    }
}

fn has_line(out: &PathBuf) -> bool {
    fs::read_to_string(out)
        .is_ok_and(|text| text.contains("\"schema\":\"ghostlight.detections/1\"") && text.contains('\n'))
}

/// Waits for the end, and asks for it when `enough`.
fn wait(child: &mut Child, enough: impl Fn() -> bool) -> Option<std::process::ExitStatus> {
    let (started, mut asked) = (Instant::now(), false);
    let group = format!("-{}", child.id());
    let signal = |name: &str| Command::new("kill").args([name, "--", &group]).status().unwrap();
    while started.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if !asked && enough() {
            asked = true;
            signal("-TERM");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    signal("-KILL");
    child.wait().unwrap();
    None
}

/// The tiny network's parameters without the network.
fn state_dict() -> Vec<u8> {
    let mut recorder = Recorder::new(&[]);
    build(&ModelSpec::parse(models::TINY, "tiny").unwrap(), &mut recorder).unwrap();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = recorder
        .tensors
        .iter()
        .map(|(key, shape, values)| (key.clone(), shape.clone(), bytes(values)))
        .collect();
    let views: HashMap<String, TensorView<'_>> = tensors
        .iter()
        .map(|(key, shape, data)| (key.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()))
        .collect();
    safetensors::serialize(views, None).unwrap()
}

/// A camera of the network: Motion JPEG for `.mjpg`, one picture for all else.
fn camera(jpeg: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let jpeg = jpeg.clone();
            // The other end goes when it has seen enough.
            std::thread::spawn(move || drop(answer(stream, &jpeg)));
        }
    });
    address
}

fn answer(mut stream: TcpStream, jpeg: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 2048];
    let length = stream.read(&mut request)?;
    let one = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
    if !String::from_utf8_lossy(&request[..length]).contains(".mjpg") {
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{one}").as_bytes())?;
        return stream.write_all(jpeg);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n")?;
    loop {
        stream.write_all(format!("--f\r\n{one}").as_bytes())?;
        stream.write_all(jpeg)?;
        stream.write_all(b"\r\n")?;
        std::thread::sleep(Duration::from_millis(50));
    }
}
