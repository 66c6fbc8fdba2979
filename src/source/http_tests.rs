use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;
use crate::frame::Frame;
use crate::source::{Next, Source};

const LONG: Duration = Duration::from_secs(60);

fn jpeg(salt: u8) -> Vec<u8> {
    vec![0xff, 0xd8, 0xff, 0xda, 0, 4, 1, 2, 9, salt, 0xff, 0xd9]
}

/// What the camera does with one connection.
enum Answer {
    /// Sends this and closes.
    Close(Vec<u8>),
    /// Sends this and keeps silent until the client leaves.
    Stall(Vec<u8>),
}

/// A camera on loopback that gives one answer after the other. Its address, and the requests that came.
fn camera(answers: Vec<Answer>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for answer in answers {
            let Ok((mut connection, _)) = listener.accept() else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|count| count > 0) {
                request.push(byte[0]);
            }
            let _ = sender.send(String::from_utf8(request).unwrap());
            let (Answer::Close(bytes) | Answer::Stall(bytes)) = &answer;
            // In pieces, so that nothing depends on what comes at once. The client may have left.
            for piece in bytes.chunks(7) {
                let _ = connection.write_all(piece);
            }
            if matches!(answer, Answer::Stall(_)) {
                let _ = connection.read(&mut byte);
            }
        }
    });
    (format!("http://{address}/video"), requests)
}

fn answer(fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes(), body].concat()
}

fn multipart(length: bool, salts: &[u8]) -> Vec<u8> {
    let part = |&salt: &u8| {
        let length = if length { "Content-Length: 12\r\n" } else { "" };
        [b"--x\r\nContent-Type: image/jpeg\r\n", length.as_bytes(), b"\r\n", &jpeg(salt), b"\r\n"].concat()
    };
    salts.iter().flat_map(part).collect()
}

fn client(address: &str, silence: Duration) -> Client {
    let (name, address) = (address::shown(address), Address::parse(address).unwrap());
    Client { name, address, period: Duration::from_millis(1), silence }
}

/// Runs the client; its last frames' salts up to one with `last`, and what became of it.
fn watch(client: Client, last: u8) -> (Pump, Frame) {
    let name = client.name.clone();
    let mut pump = Pump::start(name, true, move |gate| client.watch(gate)).unwrap();
    let mut frame = Frame::default();
    while frame.bytes.get(9) != Some(&last) {
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!(frame.bytes, jpeg(frame.bytes[9]));
    }
    (pump, frame)
}

const MULTIPART: &str = "Content-Type: multipart/x-mixed-replace; boundary=other";

#[test]
fn a_multipart_stream_gives_its_pictures_and_its_end_is_a_fault() {
    for length in [true, false] {
        let (address, requests) =
            camera(vec![Answer::Close(answer(MULTIPART, &multipart(length, &[1, 2, 3])))]);
        let (mut pump, frame) = watch(client(&address, LONG), 3);
        assert_eq!(frame.sequence, 2);
        assert!(requests.recv().unwrap().starts_with("GET /video HTTP/1.1\r\nHost: 127.0.0.1:"));
        let fault = pump.next(&mut Frame::default(), LONG).unwrap_err();
        assert!(fault.to_string().contains("ended the stream") && fault.may_recover(), "{fault}");
    }
}

#[test]
fn a_chunked_stream_is_joined() {
    let stream = multipart(true, &[1, 2]);
    let mut chunks = Vec::new();
    for chunk in stream.chunks(11) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    let fields = format!("{MULTIPART}\r\nTransfer-Encoding: chunked");
    let (address, _requests) = camera(vec![Answer::Stall(answer(&fields, &chunks))]);
    let (pump, frame) = watch(client(&address, LONG), 2);
    assert_eq!(frame.sequence, 1);
    assert!(pump.describe().ends_with("/video: MJPEG"), "{}", pump.describe());
}

#[test]
fn a_single_picture_is_asked_for_again_and_again() {
    let single = |salt| Answer::Close(answer("Content-Type: image/jpeg", &jpeg(salt)));
    let kept = Answer::Stall(answer("Content-Type: image/jpeg\r\nContent-Length: 12", &jpeg(2)));
    let (address, requests) = camera(vec![single(1), kept, single(3)]);
    let (mut pump, frame) = watch(client(&address.replace("//", "//u:p@"), LONG), 3);
    assert_eq!(frame.sequence, 2);
    assert!(requests.iter().take(3).all(|request| request.contains("Authorization: Basic dTpw\r\n")));
    // The camera is gone.
    while pump.next(&mut Frame::default(), LONG).is_ok() {}
}

#[test]
fn a_camera_that_falls_silent_is_left() {
    for bytes in [answer(MULTIPART, &multipart(true, &[1])), b"HTTP/1.1 200 OK\r\n".to_vec()] {
        let (address, _requests) = camera(vec![Answer::Stall(bytes)]);
        let client = client(&address, Duration::from_millis(300));
        let opened = Pump::start("x".into(), true, move |gate| client.watch(gate));
        let fault = opened.and_then(end).unwrap_err();
        assert!(fault.to_string().contains("sends nothing") && fault.may_recover(), "{fault}");
    }
}

fn end(mut pump: Pump) -> Result<(), SourceError> {
    let mut frame = Frame::default();
    while pump.next(&mut frame, LONG)? != Next::End {}
    Ok(())
}

#[test]
fn each_refusal_has_its_kind_and_no_secrets() {
    let oversized = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'x'; 20_000]].concat();
    for (bytes, words, recovers) in [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n".to_vec(), "answer 401", false),
        (b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), "answer 404", true),
        (b"HTTP/1.1 503 Busy\r\n\r\n".to_vec(), "answer 503", true),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://cam/\r\n\r\n".to_vec(), "https://cam/", false),
        (answer("Content-Type: text/html", b"<html>"), "'text/html'", false),
        (answer("Transfer-Encoding: gzip", b""), "transfer encoding", true),
        (answer("Transfer-Encoding: chunked", b"zz"), "broken chunk", true),
        (b"garbage\r\n\r\n".to_vec(), "'garbage'", true),
        (oversized, "larger than 16 KB", true),
        (b"HTTP/1.1 200".to_vec(), "without an answer", true),
    ] {
        let (address, _requests) = camera(vec![Answer::Close(bytes)]);
        let from = address.replace("//", "//u:secret@");
        let fault = open(&from, None, None).and_then(end).unwrap_err();
        let text = fault.to_string();
        assert!(text.contains(words) && fault.may_recover() == recovers, "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn nobody_there_is_absent() {
    // Bound and closed again: nothing listens on it.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = open(&format!("http://{free}/"), None, None).and_then(end).unwrap_err();
    assert!(matches!(fault, SourceError::Absent { .. }), "{fault}");
    assert!(
        open("http://cam/", Some(PixelFormat::Grey), None)
            .unwrap_err()
            .to_string()
            .contains("leave out format")
    );
}

#[test]
fn dropping_leaves_a_silent_camera() {
    let (address, requests) = camera(vec![Answer::Stall(answer(MULTIPART, &multipart(true, &[1])))]);
    let (pump, _) = watch(client(&address, LONG), 1);
    drop(pump);
    // The camera's thread ends, and with it the channel, once the client closed the connection.
    assert_eq!(requests.iter().count(), 1);
}
