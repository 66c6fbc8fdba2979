use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use super::*;
use crate::cli::cameras::Camera;
use crate::cli::error::Exit;

#[test]
fn a_camera_is_named_so_that_it_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    fs::create_dir_all(root.path("/dev/v4l/by-id")).unwrap();
    for node in ["video0", "video1", "video2"] {
        fs::write(root.path("/dev").join(node), "").unwrap();
    }
    for (link, node) in [("usb-A-video-index0", "video0"), ("usb-A-video-index1", "video1")] {
        symlink(format!("../../{node}"), root.path("/dev/v4l/by-id").join(link)).unwrap();
    }
    symlink("../../absent", root.path("/dev/v4l/by-id/usb-Z")).unwrap();
    let camera = |name: &str, formats: &[&str]| {
        Ok(Some(Camera { name: name.into(), formats: formats.iter().map(|f| f.to_string()).collect() }))
    };
    let found: camera::Found = vec![
        ("/dev/video0".into(), camera("A", &["MJPG 640x480"])),
        ("/dev/video1".into(), Ok(None)),
        ("/dev/video2".into(), camera("B", &["YUYV 640x480"])),
        ("/dev/video3".into(), camera("ribbon", &[])),
        ("/dev/video4".into(), Err(io::ErrorKind::PermissionDenied.into())),
    ];
    let text = |path: &str, name: &str| (path.to_owned(), name.to_owned());
    let expected = [text("/dev/v4l/by-id/usb-A-video-index0", "A"), text("/dev/video2", "B")];
    assert_eq!(choices(&found, &root), expected);
    assert_eq!(stable(Path::new("/dev/video9"), &root), Path::new("/dev/video9"));
}

#[test]
fn a_file_is_kept_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.toml");
    write_file(&path, b"new", false).unwrap();
    let error = write_file(&path, b"newer", false).unwrap_err();
    assert!(error.exit() == Exit::Io && error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"new");
    write_file(&path, b"newer", true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"newer");
    // A link that leads nowhere is somebody's, too.
    symlink("absent", folder.path().join("link")).unwrap();
    assert_eq!(write_file(&folder.path().join("link"), b"", false).unwrap_err().exit(), Exit::Io);
    let error = write_file(folder.path(), b"", true).unwrap_err().to_string();
    assert!(error.contains("it is a folder"), "{error}");
    let error = write_file(&folder.path().join("a/g.toml"), b"", false).unwrap_err().to_string();
    assert!(error.contains("no such folder; make it"), "{error}");
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_broker_is_there_if_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert!(answers_there(address));
    drop(listener);
    assert!(!answers_there(address));
    assert!(!answers_there(("absent.invalid", 1883)));
}

#[test]
fn it_tells_what_it_wrote_and_what_comes_next() {
    let told = |path: &str, known: &Known| {
        let mut out = Vec::new();
        tell(Path::new(path), known, &[], &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let mut known =
        Known { device: "yard".into(), classes: vec!["a".into(), "b".into()], ..Known::default() };
    let text = told("my file.toml", &known);
    assert!(text.starts_with("wrote    my file.toml\n"), "{text}");
    assert!(text.contains("\nclasses  all: a, b\n") && text.contains("camera   none found"), "{text}");
    assert!(
        text.ends_with("next     ghostlight doctor --config 'my file.toml'  # tries all of it\n"),
        "{text}"
    );
    known.kept = vec!["b".into()];
    known.broker = true;
    known.camera = Some("/dev/video0".into());
    let text = told(config::USUAL, &known);
    assert!(text.contains("\nclasses  b\n") && text.contains("\nbroker   localhost:1883\n"), "{text}");
    assert!(text.contains("\nnext     ghostlight doctor  #"), "{text}");
}

#[test]
fn the_service_does_not_see_homes() {
    assert!(hidden(Path::new("/home/pi/m")) && hidden(Path::new("/root/m")) && !hidden(Path::new("/srv/m")));
}
