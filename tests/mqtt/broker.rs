//! A real broker, who listens there, and what the library logs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Long enough for a loaded machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The program's path, or none with a message.
pub fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var("PATH").unwrap_or_default();
    let found = folders
        .split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running mosquitto on loopback, killed on drop.
pub struct Broker {
    child: Child,
    pub port: u16,
    _folder: TempDir,
}

impl Broker {
    /// On a free port, open to all.
    pub fn start() -> Option<Self> {
        Self::on(free_port(), "allow_anonymous true")
    }

    /// With more configuration for its listener.
    pub fn on(port: u16, config: &str) -> Option<Self> {
        let program = program("mosquitto")?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mosquitto.conf");
        // As root it would change its user and not read the tests' files.
        let text = format!("user root\npersistence false\nlistener {port} 127.0.0.1\n{config}\n");
        fs::write(&path, text).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Self { child, port, _folder: folder };
        eventually("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(broker)
    }

    /// Sends it a signal, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub retained: bool,
}

/// Subscribes to everything, again after each reconnect.
pub struct Listener {
    messages: Arc<Mutex<Vec<Message>>>,
    client: rumqttc::Client,
}

impl Listener {
    pub fn on(port: u16) -> Self {
        let mut options =
            rumqttc::MqttOptions::new(format!("listener-{port}-{:p}", &port), "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = rumqttc::Client::new(options, 10);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let subscribed = Arc::new(Mutex::new(false));
        let (log, mark, subscriber) = (Arc::clone(&messages), Arc::clone(&subscribed), client.clone());
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_))) => {
                        subscriber.try_subscribe("#", rumqttc::QoS::AtLeastOnce).unwrap();
                    }
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) => *mark.lock().unwrap() = true,
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(p))) => {
                        log.lock().unwrap().push(Message {
                            topic: p.topic,
                            payload: String::from_utf8_lossy(&p.payload).into_owned(),
                            retained: p.retain,
                        });
                    }
                    Ok(_) => {}
                    Err(rumqttc::ConnectionError::RequestsDone) => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        eventually("the listener listens", || *subscribed.lock().unwrap());
        Self { messages, client }
    }

    pub fn publish(&self, topic: &str, payload: &str) {
        self.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Payloads of a topic, in their order.
    pub fn of(&self, topic: &str) -> Vec<String> {
        self.messages(topic).into_iter().map(|m| m.payload).collect()
    }

    pub fn messages(&self, topic: &str) -> Vec<Message> {
        self.messages.lock().unwrap().iter().filter(|m| m.topic == topic).cloned().collect()
    }

    /// Waits for a retained message as one who comes late gets it.
    pub fn retained(port: u16, topic: &str) -> String {
        let late = Self::on(port);
        eventually(&format!("{topic} is retained"), || late.messages(topic).iter().any(|m| m.retained));
        late.of(topic)[0].clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LOGGER: Once = Once::new();

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("ghostlight") && record.level() <= log::Level::Warn {
            LOG.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Keeps what is logged from now on.
pub fn keep_log() {
    LOGGER.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// Warnings that name a broker's port.
pub fn warnings(port: u16) -> Vec<String> {
    let name = format!("127.0.0.1:{port}:");
    LOG.lock().unwrap().iter().filter(|line| line.contains(&name)).cloned().collect()
}
