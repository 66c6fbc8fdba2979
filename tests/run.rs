//! The daemon as a service manager, a shell and a reader of its lines see it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

mod common;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/schema.rs"]
mod schema;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::Folder;
use ghostlight::frame::{Frame, PixelFormat};
use ghostlight::vision::{Pixels, to_rgb};
use serde_json::Value;

const SCHEMA: &str = include_str!("../src/sink/detections.schema.json");

fn parsed(line: &str) -> Value {
    schema::check(SCHEMA, line).unwrap();
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_folder_gives_a_line_a_picture_and_ends() {
    let folder = Folder::new();
    folder.picture("pictures/a.jpg", 64, 48);
    fs::write(folder.path().join("pictures/b.jpg"), b"\xff\xd8\xff\xe0 no picture").unwrap();
    folder.picture("pictures/c.jpg", 96, 64);
    let output = folder.ghostlight(&["run", "--source", "pictures"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(parsed).collect();
    let figures: Vec<_> = lines
        .iter()
        .map(|line| (line["seq"].as_u64(), line["image"]["width"].as_u64(), line["dropped_frames"].as_u64()))
        .collect();
    assert_eq!(figures, [(Some(0), Some(64), Some(0)), (Some(1), Some(96), Some(1))], "{said}");
    assert_eq!(lines[0]["source"], "pictures");
    assert!(lines[0]["timing_ms"]["total"].as_f64() >= lines[0]["timing_ms"]["inference"].as_f64());
    assert!(said.contains("a frame is skipped, 1 so far: broken JPEG"), "{said}");
}

#[test]
fn more_pictures_than_any_queue_holds_are_all_there() {
    let folder = Folder::new();
    for number in 0..150 {
        folder.picture(&format!("pictures/{number:03}.png"), 32 + number, 32);
    }
    let output = folder.ghostlight(&["run", "--source", "pictures"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let widths: Vec<u64> =
        text.lines().map(|line| parsed(line)["image"]["width"].as_u64().unwrap()).collect();
    assert_eq!(widths, (32..182).collect::<Vec<u64>>());
}

#[test]
fn a_wrong_configuration_ends_it_before_it_starts() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    for (text, words) in [
        (
            "devise = 'a'\n[model]\nconf = 2",
            &[":1: devise: no such key; did you mean 'device'?", ":3: [model] conf: "][..],
        ),
        ("[model]\npath = 'absent'", &[":2: [model] path: no file absent"]),
        ("[model]\nclasses = ['zebra']", &[":2: [model] classes: this model has no class 'zebra'"]),
        ("[classes.zebra]\nconfidence = 0.5", &[":2: [classes.zebra] confidence: this model has no class"]),
        ("[mqtt]\nenabled = true\nhost = 'a b'", &[":3: [mqtt] host: 'a b' is no host"]),
        ("[mqtt]\ntls = true\nca = 'absent.pem'", &[":3: [mqtt] ca: no file absent.pem"]),
        ("[mqtt]\nusername = 'u'\npassword_file = 'absent'", &[":3: [mqtt] password_file: no file absent"]),
        ("[[zones]]\nname = 'a'\npoints = [[0, 0], [1, 1]]", &[":3: [[zones]] 1 points: 2 points; give 3"]),
        ("[source", &[":1: not TOML: "]),
    ] {
        fs::write(folder.path().join("g.toml"), text).unwrap();
        let words_of = ["run", "--config", "g.toml", "--source", "pictures"];
        let mut command = folder.bare(&words_of);
        if !text.contains("path") {
            command.arg("--model").arg("tiny.safetensors");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0), "{text}: {said}");
        for word in words {
            assert!(said.contains(&format!("g.toml{word}")), "{text}: {said}");
        }
    }
    let output = folder.ghostlight(&["run", "--config", "absent.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.toml:1: no such file; check --config"));
}

#[test]
fn the_effective_configuration_says_where_it_comes_from() {
    let folder = Folder::new();
    fs::write(folder.path().join("g.toml"), "device = 'yard'\n[model]\nconf = 0.5\niou = 0.6\n").unwrap();
    let words = ["run", "--config", "g.toml", "--print-config", "--conf", "0.1"];
    let output = folder.ghostlight(&words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "device = \"yard\"  # g.toml:1\n",
        "path = \"tiny.safetensors\"  # --model\n",
        "conf = 0.1  # --conf\n",
        "iou = 0.6  # g.toml:4\n",
        "qos = 0  # default\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let output = folder
        .bare(&["run", "--print-config"])
        .env("GHOSTLIGHT_MODEL", "tiny.safetensors")
        .env("GHOSTLIGHT_CONFIG", "g.toml")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("path = \"tiny.safetensors\"  # $GHOSTLIGHT_MODEL\n"), "{text}");
    assert!(text.contains("conf = 0.5  # g.toml:3\n"), "{text}");
    let output = folder.ghostlight(&["run", "--check"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(0), false));
}

#[test]
fn other_commands_find_the_model_in_the_configuration() {
    let folder = Folder::new();
    folder.picture("a.png", 32, 32);
    fs::write(folder.path().join("g.toml"), "[model]\npath = 'tiny.safetensors'\n").unwrap();
    let mut command = folder.bare(&["detect", "a.png"]);
    assert_eq!(command.env("GHOSTLIGHT_CONFIG", "g.toml").output().unwrap().status.code(), Some(0));
    fs::write(folder.path().join("g.toml"), "[model]\npath = 'absent'\n").unwrap();
    let output = folder.bare(&["detect", "a.png"]).env("GHOSTLIGHT_CONFIG", "g.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_service_manager_hears_of_every_step() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    let lines = folder.path().join("lines");
    let config = |device: &str| {
        format!(
            "device = '{device}'\n[source]\nurl = 'pictures'\nloop = true\nfps = 50\n[jsonl]\npath = 'lines'\n"
        )
    };
    fs::write(folder.path().join("g.toml"), config("one")).unwrap();
    let mut running = folder.start(&["run", "--config", "g.toml"], Stdio::null());
    running.wait_for("READY=1");
    running.wait_for("WATCHDOG=1");
    running.wait_for(" fps, latency ");
    running.until("lines of the first device", || {
        fs::read_to_string(&lines).unwrap_or_default().contains("\"device\":\"one\"")
    });

    // A broken configuration changes nothing, and says what is wrong with it.
    fs::write(folder.path().join("g.toml"), "devise = 'two'\n").unwrap();
    running.signal("HUP");
    let message = running.wait_for("RELOADING=1");
    assert!(message.contains("MONOTONIC_USEC="), "{message}");
    running.wait_for("READY=1");
    running.wait_for("WATCHDOG=1");

    // A good one is taken over; the file, moved away meanwhile, is made anew.
    fs::write(folder.path().join("g.toml"), config("two")).unwrap();
    fs::rename(&lines, folder.path().join("lines.1")).unwrap();
    running.signal("HUP");
    running.wait_for("RELOADING=1");
    running.wait_for("READY=1");
    running.until("lines of the second device", || {
        fs::read_to_string(&lines).unwrap_or_default().contains("\"device\":\"two\"")
    });
    running.signal("TERM");
    running.wait_for("STOPPING=1");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("g.toml:1: devise: no such key; did you mean 'device'?"), "{said}");
    assert!(said.contains("the old configuration stays"), "{said}");
    assert_eq!(said.matches("pictures: ").count(), 1, "the source was opened once: {said}");
    for file in ["lines", "lines.1"] {
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.ends_with('\n'), "{file} ends in the middle of a line");
        let seqs: Vec<u64> = text.lines().map(|line| parsed(line)["seq"].as_u64().unwrap()).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

#[test]
fn an_absent_camera_is_awaited() {
    let folder = Folder::new();
    let mut running = folder.start(&["run", "--source", "/dev/video-absent"], Stdio::null());
    let message = running.wait_for("READY=1");
    assert!(message.contains("STATUS=source is away, trying again: /dev/video-absent"), "{message}");
    running.wait_for("WATCHDOG=1");
    running.wait_for("WATCHDOG=1");
    running.signal("INT");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("/dev/video-absent").count(), 1, "told once: {said}");
}

/// A frame of YUYV, brighter to the right, its colours changing.
fn yuyv(width: usize, height: usize) -> Frame {
    let pair =
        |x: usize, y: usize| [30 + 4 * x, 20 + 3 * y, 32 + 4 * x, 230 - 3 * x].map(|sample| sample as u8);
    let bytes = (0..height).flat_map(|y| (0..width / 2).flat_map(move |x| pair(x, y))).collect();
    Frame { format: PixelFormat::Yuyv, width, height, stride: 2 * width, bytes, ..Frame::default() }
}

const RAW: &str = "[source]\nurl = '-'\nformat = 'yuyv'\nwidth = 96\nheight = 64\n[model]\nconf = 0.01\n";

#[test]
fn a_raw_frame_gives_what_its_picture_gives() {
    let folder = Folder::new();
    let frame = yuyv(96, 64);
    let mut rgb = Vec::new();
    to_rgb(Pixels::from(&frame), &mut rgb).unwrap();
    image::RgbImage::from_raw(96, 64, rgb).unwrap().save(folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("film"), &frame.bytes).unwrap();
    fs::write(folder.path().join("g.toml"), RAW).unwrap();
    let film = fs::File::open(folder.path().join("film")).unwrap();
    let detections = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        parsed(String::from_utf8(output.stdout).unwrap().trim_end())["detections"].clone()
    };
    let raw = detections(folder.ghostlight(&["run", "--config", "g.toml"]).stdin(film));
    let words = ["detect", "a.png", "--conf", "0.01", "--format", "jsonl"];
    assert_eq!(raw, detections(&mut folder.ghostlight(&words)));
    assert!(!raw.as_array().unwrap().is_empty());
}

#[test]
fn a_raw_frame_becomes_a_picture_for_who_asks() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let metrics = format!("[metrics]\nlisten = '127.0.0.1:{port}'\n");
    // Without boxes drawn into it.
    fs::write(folder.path().join("g.toml"), RAW.replace("0.01", "1.0") + &metrics).unwrap();
    let frame = yuyv(96, 64);
    let mut child = folder
        .ghostlight(&["run", "--config", "g.toml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = frame.bytes.clone();
    let camera = std::thread::spawn(move || {
        while pipe.write_all(&bytes).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let ask = || {
        let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
        server
            .write_all(b"GET /snapshot.jpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        let start = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        image::load_from_memory(&answer[start..]).ok().map(|image| image.into_rgb8())
    };
    let began = Instant::now();
    let image = loop {
        if let Some(image) = ask() {
            break image;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no picture");
        std::thread::sleep(Duration::from_millis(50));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    camera.join().unwrap();
    let mut rgb = Vec::new();
    to_rgb(Pixels::from(&frame), &mut rgb).unwrap();
    assert_eq!(image.dimensions(), (96, 64));
    let off: u64 = image.as_raw().iter().zip(&rgb).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    assert!(off < 6 * rgb.len() as u64, "{} off on average", off / rgb.len() as u64);
}

#[test]
fn a_full_disk_stops_nothing() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    let text = "[source]\nurl = 'pictures'\nloop = true\n[jsonl]\npath = '/dev/full'\n";
    fs::write(folder.path().join("g.toml"), text).unwrap();
    let mut running = folder.start(&["run", "--config", "g.toml"], Stdio::null());
    running.wait_for("READY=1");
    running.wait_for(" lines lost");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("/dev/full: ").count(), 1, "warned once: {said}");
    // A finite source's lines were all wanted.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.ghostlight(&["run", "--source", "pictures"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74));
}

#[test]
fn a_closed_output_is_a_quiet_end() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    fs::write(folder.path().join("g.toml"), "[source]\nurl = 'pictures'\nloop = true\n").unwrap();
    let mut running = folder.start(&["run", "--config", "g.toml"], Stdio::piped());
    drop(running.child.stdout.take());
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("error"), "{said}");
}

#[test]
fn a_slow_reader_costs_lines_that_are_counted() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    fs::write(folder.path().join("g.toml"), "[source]\nurl = 'pictures'\nloop = true\n").unwrap();
    let mut running = folder.start(&["run", "--config", "g.toml"], Stdio::piped());
    // Nobody reads, and yet pictures are computed.
    running.wait_for(" lines lost");
    running.wait_for("WATCHDOG=1");
    let mut text = String::new();
    let mut out = running.child.stdout.take().unwrap();
    let mut chunk = [0; 4096];
    let gap = |text: &str| {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<Value> = whole.lines().map(parsed).collect();
        lines.windows(2).find_map(|pair| {
            let seq = |line: &Value| line["seq"].as_u64().unwrap();
            let skipped = seq(&pair[1]) - seq(&pair[0]) - 1;
            (skipped > 0).then(|| (skipped, pair[1]["dropped_frames"].as_u64().unwrap()))
        })
    };
    let (skipped, dropped) = loop {
        let count = out.read(&mut chunk).unwrap();
        assert!(count > 0, "the daemon ended");
        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        if let Some(found) = gap(&text) {
            break found;
        }
    };
    assert!(dropped >= skipped, "{skipped} lines are missing, {dropped} frames are said to be");
    // A reader that does not read cannot hold the end up.
    running.wait_for("STATUS=");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    drop(out);
}

#[test]
fn a_model_that_is_cut_short_meanwhile_does_no_harm() {
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    let text = "[source]\nurl = 'pictures'\nloop = true\nfps = 50\n[jsonl]\npath = 'lines'\n";
    fs::write(folder.path().join("g.toml"), text).unwrap();
    let mut running = folder.start(&["run", "--config", "g.toml"], Stdio::null());
    running.wait_for("READY=1");
    let model = fs::OpenOptions::new().write(true).open(folder.path().join("tiny.safetensors")).unwrap();
    model.set_len(10).unwrap();
    let lines = folder.path().join("lines");
    let length = || fs::metadata(&lines).map_or(0, |meta| meta.len());
    let before = length();
    running.until("lines after the model was cut", || length() > before + 5000);
    // Told to read it again, it keeps the one it has.
    running.signal("HUP");
    running.wait_for("RELOADING=1");
    let before = length();
    running.until("lines after the reload", || length() > before + 5000);
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("tiny.safetensors: ") && said.contains("the old configuration stays"), "{said}");
}

#[test]
fn words_in_the_journal_have_their_priority() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    folder.picture("pictures/a.png", 32, 32);
    let journal = folder.path().join("journal");
    let file = fs::File::create(&journal).unwrap();
    let meta = file.metadata().unwrap();
    for (stream, prefixes) in
        [(format!("{}:{}", meta.dev(), meta.ino()), ["<6>", "<3>"]), ("1:1".into(), ["", ""])]
    {
        fs::write(&journal, "").unwrap();
        for words in [&["run", "--source", "pictures"][..], &["run", "--config", "absent.toml"]] {
            let file = fs::OpenOptions::new().append(true).open(&journal).unwrap();
            let mut command = folder.ghostlight(words);
            command.env("JOURNAL_STREAM", &stream).stderr(file).output().unwrap();
        }
        let said = fs::read_to_string(&journal).unwrap();
        let [info, error] = prefixes;
        assert!(said.starts_with(&format!("{info}ghostlight: info: ")), "{said}");
        assert!(said.contains(&format!("\n{error}ghostlight: error: absent.toml:1")), "{said}");
    }
}

#[test]
fn the_units_name_what_the_program_has() {
    for unit in ["ghostlight.service", "ghostlight@.service"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
        let text = fs::read_to_string(path).unwrap();
        for line in [
            "Type=notify",
            "RestartPreventExitStatus=78",
            "WatchdogSec=30",
            "DynamicUser=yes",
            "StandardError=journal",
        ] {
            assert!(text.lines().any(|l| l == line), "{unit}: {line}");
        }
        assert!(text.contains("ExecStart=/usr/bin/ghostlight run --config /etc/ghostlight/"));
    }
    // The service manager's own judgement, where there is one.
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ghostlight.service");
    let judged = Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit).output();
    let Ok(output) = judged else { return eprintln!("skipped: no systemd-analyze") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(level) = text.split("exposure level for").nth(1) else {
        return eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
    };
    let level: f64 = level.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(level <= 1.5, "exposure {level}");
}
