use std::fs;
use std::net::TcpListener;

use super::*;
use crate::cli::doctor::report::Status;

fn options(from: &str) -> SourceOptions {
    let want = Size { width: 640, height: 640 };
    let (format, width, height, fps, repeat, player) = (None, None, None, None, false, None);
    SourceOptions { from: from.into(), format, width, height, fps, want, repeat, player }
}

fn camera(formats: &[&str]) -> Camera {
    Camera { name: "Cam".into(), formats: formats.iter().map(|f| f.to_string()).collect() }
}

fn nodes() -> Found {
    let path = |n: u8| PathBuf::from(format!("/dev/video{n}"));
    vec![
        (path(1), Ok(None)),
        (path(2), Err(io::ErrorKind::PermissionDenied.into())),
        (path(3), Ok(Some(camera(&[])))),
        (path(4), Err(io::ErrorKind::NotFound.into())),
    ]
}

#[test]
fn no_camera_is_said() {
    let [line] = &lines(&Vec::new(), true)[..] else { panic!("one line") };
    assert!(line.status == Status::Warning && line.text.contains("none found"), "{line:?}");
    assert_eq!(lines(&Vec::new(), false)[0].status, Status::Ok);
}

#[test]
fn cameras_with_formats_and_faults() {
    let mut found = nodes();
    let good = camera(&["MJPG 1280x720 640x480", "YUYV 640x480"]);
    found.insert(0, (PathBuf::from("/dev/video0"), Ok(Some(good))));
    let lines = lines(&found, true);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0], Line::ok("camera", "/dev/video0 'Cam': MJPG 1280x720 640x480; YUYV 640x480"));
    assert!(lines[1].text.contains("group 'video'"));
    assert!(lines[1..].iter().all(|line| line.status == Status::Warning), "{lines:?}");
}

#[test]
fn the_first_usable_camera_or_none_that_may_be_opened() {
    let mut found = nodes();
    assert_eq!((first(&found), denied(&found)), (None, true));
    found.push(("/dev/video7".into(), Ok(Some(camera(&["YUYV 640x480"])))));
    assert_eq!((first(&found), denied(&found)), (Some(Path::new("/dev/video7")), false));
    assert!(!denied(&Vec::new()));
}

#[test]
fn which_texts_mean_a_camera() {
    for (from, is) in [
        ("/dev/video0", true),
        ("/dev/v4l/by-id/usb-x", true),
        ("UVC Camera", true),
        ("-", false),
        ("http://cam/x", false),
        ("pictures/", false),
        ("Cargo.toml", false),
    ] {
        assert_eq!(is_camera(from), is, "{from}");
    }
}

#[test]
fn one_picture_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    image::RgbImage::new(80, 60).save(folder.path().join("a.png")).unwrap();
    let (line, sight) = look(&options(folder.path().to_str().unwrap()), &root, false);
    assert_eq!((line.status, sight), (Status::Ok, Sight::Seen), "{line:?}");
    assert!(line.text.contains("a picture of 80x60 after 0."), "{line:?}");
    let (line, sight) = look(&options("-"), &root, false);
    assert_eq!((line.status, sight), (Status::Ok, Sight::Untried));
}

#[test]
fn what_gives_no_picture_says_why() {
    let root = Root::at("/absent");
    for (from, words) in [
        ("/dev/video-absent", "no such device; plug the camera in"),
        ("/dev/null", "no V4L2 device"),
        ("absent/folder", "no such device, file or folder"),
    ] {
        let (line, sight) = look(&options(from), &root, true);
        assert_eq!((line.status, sight), (Status::Warning, Sight::Nothing));
        assert!(line.text.contains(words), "{line:?}");
    }
}

#[test]
fn silence_is_not_waited_for_forever() {
    // Takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = format!("http://user:secret@{}/x", listener.local_addr().unwrap());
    let began = Instant::now();
    let fault = take(&options(&from), Duration::from_millis(300)).unwrap_err();
    assert!(matches!(fault, Fault::Silence { damaged: false }), "{fault:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(within(Duration::from_millis(20), || std::thread::sleep(Duration::from_secs(60))), None);
    assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    for (camera, damaged, words) in [
        (true, false, ["no picture", "power"]),
        (true, true, ["damaged", "port"]),
        (false, false, ["no picture", "network"]),
    ] {
        let text = silence("x", camera, damaged);
        assert!(words.iter().all(|words| text.contains(words)), "{text}");
    }
}

#[test]
fn who_holds_a_busy_camera_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    let device = root.path("/dev/video0");
    fs::create_dir_all(device.parent().unwrap()).unwrap();
    fs::write(&device, "").unwrap();
    assert_eq!(holders(&root, "/dev/video0"), []);
    for (id, name, target) in
        [("12", "bash\n", Path::new("/dev/null")), ("345", "motion\n", device.as_path())]
    {
        let fd = root.path(format!("/proc/{id}/fd"));
        fs::create_dir_all(&fd).unwrap();
        fs::write(root.path(format!("/proc/{id}/comm")), name).unwrap();
        std::os::unix::fs::symlink(target, fd.join("3")).unwrap();
    }
    // Not a process.
    fs::create_dir_all(root.path("/proc/sys/fd")).unwrap();
    assert_eq!(holders(&root, "/dev/video0"), [("motion".to_owned(), 345)]);
    // By a link, as those in /dev/v4l/by-id are.
    std::os::unix::fs::symlink("video0", root.path("/dev/link")).unwrap();
    assert_eq!(holders(&root, "/dev/link").len(), 1);

    let told = |holders: Vec<Holder>, running| busy("source", "/dev/video0", holders, running);
    let (line, sight) = told(vec![("motion".into(), 345)], true);
    assert!(line.text.contains("motion (process 345) uses it") && sight == Sight::Nothing, "{line:?}");
    let (line, sight) = told(vec![("ghostlight".into(), 7)], false);
    assert_eq!((line.status, sight), (Status::Ok, Sight::Seen), "{line:?}");
    let (line, sight) = told(vec![], true);
    assert_eq!((line.status, sight), (Status::Ok, Sight::Seen), "{line:?}");
    let (line, sight) = told(vec![], false);
    assert!(line.text.contains("fuser -v /dev/video0") && sight == Sight::Nothing, "{line:?}");
}
