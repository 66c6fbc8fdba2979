//! MQTT against a real broker (mosquitto, where it is installed) and against one that misbehaves on purpose.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

mod broker;
mod fake;

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::{Broker, Listener, eventually, free_port, keep_log, program, warnings};
use fake::{Fake, Manner};
use ghostlight::sink::mqtt::{Backoff, Counts, Credentials, Mqtt, Options, Qos, State, Tls, Version, probe};

const DETECTIONS: &str = "ghostlight/yard/detections";
const STATE: &str = "ghostlight/yard/state";
const AVAILABILITY: &str = "ghostlight/yard/availability";
const CONFIG: &str = "homeassistant/device/ghostlight_yard/config";

fn options(port: u16) -> Options {
    let mut options = Options::new("yard", vec!["person".into(), "traffic light".into()]);
    options.host = "127.0.0.1".into();
    options.port = port;
    options.backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_millis(200) };
    options
}

fn at_least_once(port: u16) -> Options {
    Options { qos: Qos::AtLeastOnce, ..options(port) }
}

fn state(people: u32) -> State<'static> {
    let counts: &'static [u32] = match people {
        0 => &[0, 0],
        _ => &[1, 0],
    };
    let present: &'static [bool] = if people > 0 { &[true, false] } else { &[false, false] };
    State { counts, present, fps: 15.0, latency_ms: 40.0, dropped_frames: 0 }
}

/// Lines `from` to `to`, numbered.
fn publish(mqtt: &Mqtt, lines: std::ops::Range<usize>) {
    for line in lines {
        mqtt.publish_detections(format!("{line}\n").as_bytes());
    }
}

fn assert_sum(counts: Counts) {
    let Counts { accepted, delivered, dropped, refused, unconfirmed, queued, in_flight, .. } = counts;
    assert_eq!(accepted, delivered + dropped + refused + unconfirmed + queued + in_flight, "{counts:?}");
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn all_topics_of_both_versions() {
    for version in [Version::V3, Version::V5] {
        let Some(broker) = Broker::start() else { return };
        let listener = Listener::on(broker.port);
        let mqtt = Mqtt::start(Options { version, snapshots: true, ..options(broker.port) }).unwrap();
        publish(&mqtt, 0..50);
        mqtt.publish_snapshot(0, b"a picture".to_vec());
        mqtt.publish_snapshot(7, b"of no class".to_vec());
        eventually("lines arrive", || listener.of(DETECTIONS) == numbers(0..50));
        mqtt.publish_state(&state(1));
        eventually("QoS 0 is confirmed by a later answer", || mqtt.counts().delivered == 50);
        assert!(listener.messages(DETECTIONS).iter().all(|m| !m.retained));
        assert_eq!(Listener::retained(broker.port, AVAILABILITY), "online");
        let retained = Listener::retained(broker.port, STATE);
        assert!(retained.contains(r#""counts":{"person":1,"traffic light":0}"#), "{retained}");
        assert_eq!(Listener::retained(broker.port, "ghostlight/yard/event/person/snapshot"), "a picture");
        let config = Listener::retained(broker.port, CONFIG);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["components"]["person_count"]["state_topic"], STATE);

        let before = listener.of(CONFIG).len();
        listener.publish("homeassistant/status", "online");
        eventually("discovery follows Home Assistant's birth", || listener.of(CONFIG).len() > before);

        publish(&mqtt, 50..60);
        let counts = mqtt.shutdown();
        assert_sum(counts);
        assert_eq!((counts.accepted, counts.delivered), (60, 60), "{counts:?}");
        eventually("the last lines", || listener.of(DETECTIONS) == numbers(0..60));
        assert_eq!(Listener::retained(broker.port, AVAILABILITY), "offline");
    }
}

#[test]
fn a_broker_that_comes_late_or_returns_gets_everything() {
    if program("mosquitto").is_none() {
        return;
    }
    keep_log();
    comes_late_and_returns(Version::V3);
    comes_late_and_returns(Version::V5);
}

fn comes_late_and_returns(version: Version) {
    let port = free_port();
    let mqtt = Mqtt::start(Options { version, ..at_least_once(port) }).unwrap();
    publish(&mqtt, 0..30);
    mqtt.publish_state(&state(0));
    eventually("its absence is logged", || warnings(port).iter().any(|w| w.contains("nobody listens")));

    // Whoever listens from the start would race the first lines: the retained topics show the connection.
    let broker = Broker::on(port, "allow_anonymous true").unwrap();
    eventually("what waited is delivered", || mqtt.counts().delivered == 30);
    assert!(Listener::retained(port, STATE).contains("\"person\":0"));
    drop(broker);
    let absences = || warnings(port).iter().filter(|w| w.contains("nobody listens")).count();
    eventually("its second absence is logged", || absences() == 2);
    mqtt.publish_state(&state(1));
    publish(&mqtt, 30..40);

    // Without persistence a restarted broker has lost all retained messages.
    let _broker = Broker::on(port, "allow_anonymous true").unwrap();
    eventually("delivered after the restart", || mqtt.counts().delivered == 40);
    assert_eq!(Listener::retained(port, AVAILABILITY), "online");
    assert!(Listener::retained(port, STATE).contains("\"person\":1"));
    assert!(Listener::retained(port, CONFIG).contains("person_count"));
    let counts = mqtt.shutdown();
    assert_eq!((counts.accepted, counts.delivered, counts.dropped), (40, 40, 0), "{counts:?}");
    assert_eq!(absences(), 2, "once per absence");
}

#[test]
fn a_broker_killed_while_lines_flow() {
    let Some(mut broker) = Broker::start() else { return };
    let port = broker.port;
    let mqtt = Mqtt::start(Options { outbox: 100_000, ..at_least_once(port) }).unwrap();
    let mut next = 0;
    for round in 1..=3 {
        eventually("connected", || mqtt.counts().connections >= round);
        publish(&mqtt, next..next + 500);
        next += 500;
        drop(broker);
        publish(&mqtt, next..next + 100);
        next += 100;
        broker = Broker::on(port, "allow_anonymous true").unwrap();
    }
    eventually("all is delivered", || mqtt.counts().delivered == next as u64);
    let counts = mqtt.shutdown();
    assert_sum(counts);
    assert_eq!((counts.dropped, counts.refused, counts.unconfirmed), (0, 0, 0), "{counts:?}");
}

#[test]
fn a_frozen_broker_is_left_and_found_again() {
    let Some(broker) = Broker::start() else { return };
    let listener = Listener::on(broker.port);
    let mqtt =
        Mqtt::start(Options { keep_alive: Duration::from_secs(1), ..at_least_once(broker.port) }).unwrap();
    eventually("connected", || mqtt.counts().connected);
    broker.signal("STOP");
    publish(&mqtt, 0..50);
    // The socket stays open: only the missing answers tell.
    eventually("silence is noticed", || !mqtt.counts().connected);
    assert_sum(mqtt.counts());
    broker.signal("CONT");
    eventually("all is delivered", || mqtt.counts().delivered == 50);
    eventually("and arrives", || {
        let got: HashSet<String> = listener.of(DETECTIONS).into_iter().collect();
        got.len() == 50
    });
}

#[test]
fn a_frozen_broker_is_left_in_the_middle_of_a_write() {
    let Some(broker) = Broker::start() else { return };
    let keep_alive = Duration::from_secs(5);
    let mqtt = Mqtt::start(Options { version: Version::V5, keep_alive, ..options(broker.port) }).unwrap();
    eventually("connected", || mqtt.counts().connected);
    broker.signal("STOP");
    // More than the sockets' buffers take: the write does not end, and no ping goes out.
    let line = vec![b'x'; 100_000];
    for _ in 0..250 {
        mqtt.publish_detections(&line);
    }
    eventually("silence is noticed", || !mqtt.counts().connected);
    let counts = mqtt.counts();
    assert!(counts.queued > 0 && counts.unconfirmed > 0, "{counts:?}");
    broker.signal("CONT");
    eventually("the rest goes out", || mqtt.counts().queued == 0);
    let counts = mqtt.shutdown();
    assert_sum(counts);
    assert_eq!((counts.dropped, counts.refused), (0, 0), "{counts:?}");
}

#[test]
fn a_wrong_password_is_said_once() {
    let (Some(tool), Some(_)) = (program("mosquitto_passwd"), program("mosquitto")) else { return };
    keep_log();
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    run(Command::new(tool).args(["-c", "-b"]).arg(&users).args(["camera", "right"]));
    let config = format!("allow_anonymous false\npassword_file {}", users.display());
    let broker = Broker::on(free_port(), &config).unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let credentials = Credentials { username: "camera".into(), password_file: Some(password.clone()) };
    for version in [Version::V3, Version::V5] {
        let before = warnings(broker.port).len();
        fs::write(&password, "wrong\n").unwrap();
        let with = Options { version, credentials: Some(credentials.clone()), ..options(broker.port) };
        let mqtt = Mqtt::start(with.clone()).unwrap();
        eventually("the refusal is logged", || warnings(broker.port).len() > before);
        // Several more attempts, of which nothing is said.
        std::thread::sleep(Duration::from_secs(1));
        let said = warnings(broker.port);
        assert_eq!(said.len(), before + 1, "{said:?}");
        assert!(said[before].contains("refuses this user and password"), "{said:?}");
        drop(mqtt);
        fs::write(&password, "right\n").unwrap();
        let mqtt = Mqtt::start(with).unwrap();
        eventually("the right one is let in", || mqtt.counts().connected);
    }
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(done.success(), "{command:?}");
}

/// A certificate of `name` with its key, signed by an authority of its own, or of `ca`.
fn certificate(openssl: &Path, folder: &Path, name: &str, ca: Option<&str>) -> (PathBuf, PathBuf) {
    let file = |name: &str, ending: &str| folder.join(format!("{name}.{ending}"));
    let (certificate, key) = (file(name, "pem"), file(name, "key"));
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout"]).arg(&key);
    command.arg("-out").arg(&certificate);
    if let Some(ca) = ca {
        command.arg("-CA").arg(file(ca, "pem")).arg("-CAkey").arg(file(ca, "key"));
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
    }
    run(&mut command);
    (certificate, key)
}

#[test]
fn tls_trusts_whom_it_was_told_to() {
    let (Some(openssl), Some(_)) = (program("openssl"), program("mosquitto")) else { return };
    keep_log();
    let folder = tempfile::tempdir().unwrap();
    let of = |name, ca| certificate(&openssl, folder.path(), name, ca);
    let (ca, _) = of("authority", None);
    let (stranger, _) = of("stranger", None);
    let (server, key) = of("server", Some("authority"));
    let client = of("client", Some("authority"));
    let config = format!(
        "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        ca.display(),
        server.display(),
        key.display()
    );
    let broker = Broker::on(free_port(), &config).unwrap();
    for version in [Version::V3, Version::V5] {
        let with = |ca: &Path, client: Option<&(PathBuf, PathBuf)>| {
            let tls = Tls { ca: Some(ca.to_owned()), client: client.cloned() };
            Mqtt::start(Options { version, tls: Some(tls), ..at_least_once(broker.port) }).unwrap()
        };
        let mqtt = with(&ca, Some(&client));
        publish(&mqtt, 0..5);
        eventually("lines go out encrypted", || mqtt.counts().delivered == 5);
        drop(mqtt);
        for (ca, client, why) in
            [(&stranger, Some(&client), "invalid peer certificate"), (&ca, None, "alert")]
        {
            let before = warnings(broker.port).len();
            let mqtt = with(ca, client);
            eventually("a refusal is logged", || warnings(broker.port).len() > before);
            let said = warnings(broker.port)[before].clone();
            assert!(said.contains("TLS") && said.to_lowercase().contains(why), "{said}");
            assert!(!mqtt.counts().connected);
            let tls = Tls { ca: Some(ca.to_owned()), client: client.cloned() };
            let error = tried(&Options { version, tls: Some(tls), ..options(broker.port) }).unwrap_err();
            assert!(error.contains("check `ca`") && error.to_lowercase().contains(why), "{error}");
        }
        let tls = Tls { ca: Some(ca.clone()), client: Some(client.clone()) };
        assert_eq!(tried(&Options { version, tls: Some(tls), ..options(broker.port) }), Ok(()));
    }
}

#[test]
fn connections_that_die_at_any_moment_lose_nothing_uncounted() {
    for dies_after in [1, 2, 5, 16, 17, 40] {
        let dies = Manner { dies_after, answers: true };
        // Without answers no more than a window comes.
        let silent = Manner { dies_after: dies_after.min(5), answers: false };
        // QoS 1: everything arrives, what arrives twice was counted as sent again.
        let fake = Fake::start(vec![dies, dies, silent, Manner::GOOD]);
        let mqtt = Mqtt::start(at_least_once(fake.port)).unwrap();
        publish(&mqtt, 0..200);
        eventually("all is delivered", || mqtt.counts().delivered == 200);
        let counts = mqtt.shutdown();
        let received = fake.received();
        let distinct: HashSet<&String> = received.iter().collect();
        assert_eq!(distinct.len(), 200);
        assert!(received.len() as u64 <= 200 + counts.resent, "{} of {counts:?}", received.len());
        assert!(counts.resent > 0, "{counts:?}");
        assert_sum(counts);

        // QoS 0: nothing arrives twice, and what was lost in a dying connection lies within `unconfirmed`.
        let fake = Fake::start(vec![dies, dies, silent, Manner::GOOD]);
        let mqtt = Mqtt::start(options(fake.port)).unwrap();
        publish(&mqtt, 0..200);
        eventually("all is away", || mqtt.counts().queued == 0 && mqtt.counts().connections >= 2);
        let counts = mqtt.shutdown();
        let received = fake.received();
        let distinct: HashSet<&String> = received.iter().collect();
        assert_eq!(distinct.len(), received.len(), "QoS 0 never repeats");
        let received = received.len() as u64;
        assert!(counts.delivered <= received, "{received} of {counts:?}");
        assert!(received <= counts.delivered + counts.unconfirmed, "{received} of {counts:?}");
        assert_eq!((counts.queued, counts.in_flight), (0, 0));
        assert_sum(counts);
    }
}

#[test]
fn a_slow_broker_costs_the_oldest_lines_and_never_the_pipeline() {
    // It accepts and answers no publish: the window fills, then the outbox.
    let fake = Fake::start(vec![Manner { dies_after: usize::MAX, answers: false }]);
    let mqtt = Mqtt::start(Options { outbox: 64, ..at_least_once(fake.port) }).unwrap();
    eventually("connected", || mqtt.counts().connected);
    publish(&mqtt, 0..5000);
    let counts = mqtt.counts();
    assert_sum(counts);
    assert!(counts.queued <= 65 && counts.in_flight <= 16, "{counts:?}");
    assert!(counts.dropped >= 5000 - 65 - 16, "{counts:?}");
    // The farewell is limited too: what was not answered counts as dropped.
    let counts = mqtt.shutdown();
    assert_eq!((counts.delivered, counts.dropped), (0, 5000), "{counts:?}");
}

/// What a broker answers to somebody who only tries.
fn tried(options: &Options) -> Result<(), String> {
    probe(options, Duration::from_secs(20)).map_err(|error| error.to_string())
}

#[test]
fn a_broker_is_tried_without_a_trace() {
    let (Some(tool), Some(_)) = (program("mosquitto_passwd"), program("mosquitto")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    run(Command::new(tool).args(["-c", "-b"]).arg(&users).args(["camera", "right"]));
    let config = format!("allow_anonymous false\npassword_file {}", users.display());
    let strict = Broker::on(free_port(), &config).unwrap();
    let password = folder.path().join("password");
    let credentials = Credentials { username: "camera".into(), password_file: Some(password.clone()) };
    for version in [Version::V3, Version::V5] {
        let open = Broker::start().unwrap();
        let listener = Listener::on(open.port);
        let daemon = Mqtt::start(Options { version, ..options(open.port) }).unwrap();
        eventually("the daemon is connected", || listener.of(AVAILABILITY).contains(&"online".to_owned()));
        assert_eq!(tried(&Options { version, ..options(open.port) }), Ok(()));
        publish(&daemon, 0..1);
        eventually("the daemon goes on", || listener.of(DETECTIONS) == numbers(0..1));
        assert!(daemon.counts().connected);
        assert_eq!(listener.of(AVAILABILITY), ["online"], "the daemon stays connected");
        drop(daemon);

        let with = Options { version, credentials: Some(credentials.clone()), ..options(strict.port) };
        fs::write(&password, "right\n").unwrap();
        assert_eq!(tried(&with), Ok(()));
        fs::write(&password, "wrong\n").unwrap();
        let error = tried(&with).unwrap_err();
        assert!(error.contains("refuses this user and password; check `username`"), "{error}");
        assert!(
            tried(&Options { version, ..options(strict.port) }).unwrap_err().contains("refuses this user")
        );
        let error = tried(&Options { version, ..options(free_port()) }).unwrap_err();
        assert!(error.contains("nobody listens there; is the broker running"), "{error}");
    }
}

#[test]
fn a_silent_broker_is_not_waited_for_forever() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for version in [Version::V3, Version::V5] {
        let began = std::time::Instant::now();
        let error = probe(&Options { version, ..options(port) }, Duration::from_millis(500)).unwrap_err();
        // CONNECT: two bytes of head, seven of name and version, then the flags: a clean start and no will.
        let mut connect = [0; 10];
        listener.accept().unwrap().0.read_exact(&mut connect).unwrap();
        assert_eq!((connect[0], &connect[4..8], connect[9]), (0x10, &b"MQTT"[..], 0b10));
        assert!(error.to_string().contains("it does not answer"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    let nameless = Options { device: String::new(), ..options(port) };
    assert!(tried(&nameless).unwrap_err().contains("device"));
}
