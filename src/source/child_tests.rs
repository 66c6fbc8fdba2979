use std::fs;

use super::*;
use crate::frame::{Frame, PixelFormat};
use crate::source::{Next, Source};

const LONG: Duration = Duration::from_secs(60);
/// One frame of 2x2 pixels.
const FRAME: &str = r"printf 'YUV4MPEG2 W2 H2\nFRAME\nabcdef'";

/// A player that runs `script`. A file that is being written is never run: the shell reads it.
fn player(folder: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = folder.path().join("ffmpeg");
    let staged = folder.path().join("staged");
    fs::write(&staged, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Copied by a child, so that no fork of another test's holds it open for writing.
    let copied = Command::new("cp").arg(&staged).arg(&path).status().unwrap();
    let made = Command::new("chmod").arg("755").arg(&path).status().unwrap();
    assert!(copied.success() && made.success());
    path
}

fn address() -> Input {
    Input::Address("rtsp://u:secret@cam/live".into())
}

fn file() -> Input {
    Input::File { path: "film.mp4".into(), repeat: false }
}

/// What becomes of `input` under a player that runs `script`, whether opening is quick enough to see it or not.
fn play(script: &str, input: Input) -> Result<Next, SourceError> {
    let folder = tempfile::tempdir().unwrap();
    open(input, Asked::default(), Some(&player(&folder, script))).and_then(end)
}

/// What came in the end of a source that is waited for.
fn end(mut pump: Pump) -> Result<Next, SourceError> {
    let mut frame = Frame::default();
    loop {
        match pump.next(&mut frame, LONG)? {
            Next::Frame => {
                assert_eq!((frame.format, frame.bytes.as_slice()), (PixelFormat::Yu12, &b"abcdef"[..]))
            }
            other => return Ok(other),
        }
    }
}

fn alive(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is dead, whoever is to take its status.
    !state.is_empty() && !state.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

fn pid_in(path: &Path) -> i32 {
    let deadline = Instant::now() + LONG;
    loop {
        if let Ok(pid) = fs::read_to_string(path).unwrap_or_default().trim().parse() {
            return pid;
        }
        assert!(Instant::now() < deadline, "no number in {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_ends_and_a_stream_is_read_anew() {
    assert_eq!(play(FRAME, file()).unwrap(), Next::End);
    let fault = play(FRAME, address()).unwrap_err();
    assert!(matches!(fault, SourceError::Read { .. }), "{fault}");
    let broken = format!("{FRAME}; echo 'moov atom gone' >&2; exit 7");
    assert_eq!(play(&broken, file()).unwrap(), Next::End);
    let fault = play(&broken, address()).unwrap_err().to_string();
    assert!(fault.contains("ended with code 7: moov atom gone"), "{fault}");
}

#[test]
fn what_gives_no_picture_says_the_players_last_words_without_secrets() {
    let says = |words: &str| format!("echo first >&2; echo \"{words}\" >&2; exit 1");
    let fault = play(&says("Invalid data found"), file()).unwrap_err();
    assert!(matches!(fault, SourceError::Unfit { .. }), "{fault}");
    assert!(fault.to_string().contains("first; Invalid data found"), "{fault}");
    let fault = play(&says("rtsp://u:secret@cam/live: Connection refused"), address()).unwrap_err();
    assert!(matches!(fault, SourceError::Absent { .. }), "{fault}");
    assert!(fault.to_string().contains("refused") && !fault.to_string().contains("secret"), "{fault}");
    let fault = play(&says("[tcp @ 0x5644d5] no; [rtsp @ 0xab]"), address()).unwrap_err();
    assert!(fault.to_string().ends_with("first; [tcp] no; [rtsp]"), "{fault}");
    for words in
        ["Server returned 401 Unauthorized", "gst_rtspsrc_send (): /GstRTSPSrc:source:; Unauthorized (401)"]
    {
        let fault = play(&format!("echo \"{words}\" >&2; exit 1"), address()).unwrap_err();
        assert!(matches!(fault, SourceError::Unfit { .. }), "{fault}");
    }
    let fault = play("echo no film; sleep 60", file()).unwrap_err();
    assert!(fault.to_string().contains("neither"), "{fault}");
    let fault = play("exec >&-; sleep 60", address()).unwrap_err();
    assert!(fault.to_string().contains("closed its output"), "{fault}");
}

#[test]
fn a_player_that_says_much_is_not_held_up() {
    let script =
        format!("i=0; while [ $i -lt 3000 ]; do echo {} >&2; i=$((i+1)); done; {FRAME}", "x".repeat(99));
    assert_eq!(play(&script, file()).unwrap(), Next::End);
}

#[test]
fn dropping_kills_the_player_and_its_children_whatever_they_ignore() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = format!(
        "trap '' TERM HUP INT; echo $$ > {}; sleep 600 & echo $! > {}; {FRAME}; wait",
        path("own").display(),
        path("child").display(),
    );
    let mut pump = open(address(), Asked::default(), Some(&player(&folder, &script))).unwrap();
    assert_eq!(pump.next(&mut Frame::default(), LONG).unwrap(), Next::Frame);
    let pids = [pid_in(&path("own")), pid_in(&path("child"))];
    assert!(pids.iter().all(|&pid| alive(pid)));
    drop(pump);
    let deadline = Instant::now() + LONG;
    // The player was waited for as well; whoever adopts its child may leave that a zombie.
    while Path::new(&format!("/proc/{}", pids[0])).exists() || alive(pids[1]) {
        assert!(Instant::now() < deadline, "{pids:?} live on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_player_gets_its_arguments() {
    let text = |player: &Player, input: &Input, size| {
        let arguments = player.arguments(input, size);
        arguments.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let ffmpeg = Player::find(Some(Path::new("/opt/ffmpeg"))).unwrap();
    let film = Input::File { path: "-a b.mp4".into(), repeat: true };
    assert_eq!(
        text(&ffmpeg, &film, Some((640, 480))),
        "-nostdin -hide_banner -loglevel error -re -stream_loop -1 -i file:-a b.mp4 -map 0:v:0 \
         -vf scale=640:480 -f yuv4mpegpipe -pix_fmt yuv420p -"
    );
    let rtsp = text(&ffmpeg, &address(), None);
    assert!(rtsp.contains("-rtsp_transport tcp") && !rtsp.contains("-re "), "{rtsp}");
    assert!(!text(&ffmpeg, &Input::Address("https://cam/x".into()), None).contains("rtsp"));
    let gstreamer = Player::find(Some(Path::new("/usr/bin/gst-launch-1.0"))).unwrap();
    assert!(text(&gstreamer, &address(), None).contains("uri=rtspt://u:secret@cam/live !"));
    let film = Input::File { path: "/a b!.mp4".into(), repeat: false };
    let film = text(&gstreamer, &film, Some((64, 48)));
    assert!(
        film.contains("uri=file:///a%20b%21.mp4 !") && film.contains("I420,width=64,height=48"),
        "{film}"
    );
}

#[test]
fn what_cannot_be_played_is_refused() {
    let open = |asked, player: &str| open(file(), asked, Some(Path::new(player))).unwrap_err().to_string();
    let fault = open(Asked::default(), "/absent/ffmpeg");
    assert!(fault.contains("/absent/ffmpeg does not start: No such file"), "{fault}");
    let fault = open(Asked { width: Some(3), ..Asked::default() }, "x");
    assert!(fault.contains("give both"), "{fault}");
    let fault = open(Asked { format: Some(PixelFormat::Rgb3), ..Asked::default() }, "x");
    assert!(fault.contains("leave out format"), "{fault}");
}
