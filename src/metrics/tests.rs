use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use image::RgbImage;

use super::*;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(vec!["person".into(), "a \"b\"\\".into()]))
}

fn server(metrics: &Arc<Metrics>) -> Server {
    Server::start(Options::new("127.0.0.1:0".parse().unwrap()), Arc::clone(metrics)).unwrap()
}

/// The answer to what is sent, head and body.
fn ask(server: &Server, request: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

fn get(server: &Server, path: &str) -> (String, String) {
    let (head, body) = ask(server, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    (head, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn the_page_counts_what_the_pipeline_did() {
    let metrics = metrics();
    metrics.frame(&[2, 1], Duration::from_millis(23), Duration::from_millis(48));
    metrics.frame(&[1, 0], Duration::from_millis(21), Duration::from_secs(7));
    metrics.dropped(Reason::Overtaken, 3);
    metrics.dropped(Reason::Failed, 1);
    metrics.set_fps(14.5);
    metrics.set_camera_up(true);
    metrics.reconnected();
    metrics.set_mqtt(|| Counts { connected: true, queued: 4, dropped: 9, ..Counts::default() });
    let server = server(&metrics);
    let (head, body) = get(&server, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    for line in [
        "ghostlight_frames_total 2",
        "ghostlight_detections_total{class=\"person\"} 3",
        "ghostlight_detections_total{class=\"a \\\"b\\\"\\\\\"} 1",
        "ghostlight_dropped_frames_total{reason=\"overtaken\"} 3",
        "ghostlight_dropped_frames_total{reason=\"undecodable\"} 0",
        "ghostlight_dropped_frames_total{reason=\"failed\"} 1",
        "ghostlight_fps 14.5",
        "ghostlight_latency_seconds_bucket{le=\"0.05\"} 1",
        "ghostlight_latency_seconds_bucket{le=\"+Inf\"} 2",
        "ghostlight_latency_seconds_count 2",
        "ghostlight_inference_seconds_sum 0.044",
        "ghostlight_camera_up 1",
        "ghostlight_camera_reconnects_total 1",
        "ghostlight_mqtt_connected 1",
        "ghostlight_mqtt_queued 4",
        "ghostlight_mqtt_messages_total{outcome=\"dropped\"} 9",
        "# TYPE ghostlight_latency_seconds histogram",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
    }
    assert!(body.contains("ghostlight_resident_memory_bytes ") && body.contains("ghostlight_build_info{"));
    // Each sample belongs to a metric with a type.
    for line in body.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
        assert!(
            body.contains(&format!("# TYPE {base} ")) || body.contains(&format!("# TYPE {name} ")),
            "{line}"
        );
    }
}

#[test]
fn health_follows_the_frames() {
    let metrics = metrics();
    let server = server(&metrics);
    let (head, body) = get(&server, "/healthz");
    assert!(head.contains(" 503 ") && body.contains("no frame since the start"), "{head} {body}");
    assert!(body.contains("the source is absent"));
    metrics.set_camera_up(true);
    assert!(matches!(metrics.health(Duration::from_secs(9)), Health::Unwell(why) if why.contains("open")));
    metrics.frame(&[0, 0], Duration::ZERO, Duration::ZERO);
    assert_eq!(metrics.health(Duration::from_secs(3600)), Health::Ok);
    let (head, body) = get(&server, "/healthz?x");
    assert!(head.contains(" 200 ") && body == "ok\n", "{head} {body}");
    std::thread::sleep(Duration::from_millis(5));
    assert!(matches!(metrics.health(Duration::ZERO), Health::Unwell(why) if why.contains("no frame for")));
}

#[test]
fn a_picture_is_made_when_asked_for() {
    let metrics = metrics();
    let server = server(&metrics);
    assert!(!metrics.snapshot().wanted());
    let pipeline = {
        let metrics = Arc::clone(&metrics);
        std::thread::spawn(move || {
            while !metrics.snapshot().wanted() {
                std::thread::sleep(Duration::from_millis(1));
            }
            metrics.snapshot().fill(&RgbImage::new(64, 32), &[], &[]);
        })
    };
    let (head, body) = ask(&server, b"GET /snapshot.jpg HTTP/1.1\r\n\r\n");
    pipeline.join().unwrap();
    assert!(head.contains(" 200 ") && head.contains("image/jpeg"), "{head}");
    let picture = image::load_from_memory(&body).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 32));
    assert!(!metrics.snapshot().wanted());
    let (head, _) = get(&server, "/snapshot.jpg");
    assert!(head.contains(" 503 "), "no frame came: {head}");
}

#[test]
fn what_is_no_request_gets_an_answer() {
    let server = server(&metrics());
    for (request, status) in [
        (&b"GET /nothing HTTP/1.1\r\n\r\n"[..], " 404 "),
        (b"POST /metrics HTTP/1.1\r\n\r\n", " 405 "),
        (b"hello\r\n\r\n", " 400 "),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", " 403 "),
        (b"GET /metrics HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", " 200 "),
        (&[b'x'; http::MOST_BYTES], " 431 "),
    ] {
        let (head, _) = ask(&server, request);
        assert!(head.contains(status), "{head}");
    }
    // One who says nothing and leaves stops nothing.
    TcpStream::connect(server.address()).unwrap().shutdown(Shutdown::Both).unwrap();
    assert!(get(&server, "/metrics").0.contains(" 200 "));
}

#[test]
fn slow_ones_take_no_more_than_their_places() {
    let server = server(&metrics());
    let mut slow: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HT").unwrap();
    }
    // The ninth is closed unanswered, whether it sees an end or a reset.
    let mut ninth = TcpStream::connect(server.address()).unwrap();
    assert!(!matches!(ninth.read(&mut [0; 9]), Ok(1..)));
    // A place that is given back serves again.
    drop(slow.pop());
    let answered = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        let mut answer = Vec::new();
        sent.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
    });
    assert!(answered);
    // The others end by themselves, within the limit for a request.
    for mut stream in slow {
        stream.set_read_timeout(Some(http::LIMIT * 10)).unwrap();
        assert!(matches!(stream.read(&mut [0; 9]), Ok(0) | Err(_)));
    }
}

#[test]
fn others_are_kept_out_unless_allowed() {
    let mut options = Options::new("0.0.0.0:0".parse().unwrap());
    let refused = Server::start(options.clone(), metrics()).unwrap_err();
    assert!(refused.to_string().contains("allow_remote"), "{refused}");
    options.allow_remote = true;
    let server = Server::start(options, metrics()).unwrap();
    let taken = Options::new(([127, 0, 0, 1], server.address().port()).into());
    let refused = Server::start(taken, metrics()).unwrap_err();
    assert!(matches!(refused, ServerError::Bind { .. }), "{refused}");
}
