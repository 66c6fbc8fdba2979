//! What a user may choose, checked before anything is opened.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;

/// Longest name of a device.
const DEVICE_LENGTH: usize = 64;
/// Longest password file: more is no password but a wrong file.
const PASSWORD_BYTES: u64 = 4096;
/// Room for the largest line and for discovery of 80 classes.
const LEAST_PACKET: usize = 16 * 1024;
/// Payloads above it are not worth a broker's memory.
const MOST_PACKET: usize = 16 * 1024 * 1024;

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// MQTT 3.1.1, which every broker speaks.
    #[default]
    V3,
    /// MQTT 5.
    V5,
}

/// How detections are sent. Retained topics always go at least once.
///
/// There is no "exactly once": without a session stored on both sides it holds no more than "at least once",
/// and receivers can tell a repeated line by its `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Qos {
    /// 0: written to the connection, never repeated.
    #[default]
    AtMostOnce,
    /// 1: kept until the broker has acknowledged it, repeated after a reconnect.
    AtLeastOnce,
}

/// A user of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub username: String,
    /// File that holds the password, one line; none for a user without one.
    pub password_file: Option<PathBuf>,
}

/// An encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// PEM file of the authorities to trust; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// PEM files of this client's certificate chain and private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Options of [`super::Mqtt`].
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Name of this device in topics and ids: letters, digits, `_` and `-`.
    pub device: String,
    /// Classes that state and discovery report; [`super::State`] has a value for each, in this order.
    pub classes: Vec<String>,
    /// The broker's name or address.
    pub host: String,
    /// Its port: by custom 1883, with TLS 8883.
    pub port: u16,
    /// Version of the protocol.
    pub version: Version,
    /// Encryption; none where it is off.
    pub tls: Option<Tls>,
    /// User and password; none for anonymous access.
    pub credentials: Option<Credentials>,
    /// How detections are sent.
    pub qos: Qos,
    /// Detections that wait at most.
    pub outbox: usize,
    /// Time between signs of life. A broker that is silent for two of them is left. MQTT 5: 5 s or more.
    pub keep_alive: Duration,
    /// Bytes of a packet at most.
    pub max_packet: usize,
    /// Prefix of Home Assistant's discovery; none where it is off.
    pub home_assistant: Option<String>,
    /// Whether a picture is published when a class appears.
    pub snapshots: bool,
    /// Delays between attempts to connect.
    pub backoff: Backoff,
}

impl Options {
    /// Defaults: `localhost:1883`, MQTT 3.1.1, QoS 0, 256 messages, keep-alive 30 s, packets up to 1 MiB,
    /// discovery below `homeassistant`, no snapshots.
    pub fn new(device: impl Into<String>, classes: Vec<String>) -> Self {
        Self {
            device: device.into(),
            classes,
            host: "localhost".into(),
            port: 1883,
            version: Version::default(),
            tls: None,
            credentials: None,
            qos: Qos::default(),
            outbox: 256,
            keep_alive: Duration::from_secs(30),
            max_packet: 1024 * 1024,
            home_assistant: Some("homeassistant".into()),
            snapshots: false,
            backoff: Backoff::default(),
        }
    }

    /// `mqtt://host:port`, or `mqtts://…` with TLS: how messages name the broker.
    pub fn broker(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Checks all that can be told without opening anything.
    pub fn check(&self) -> Result<(), OptionsError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.device.is_empty() || self.device.len() > DEVICE_LENGTH || !self.device.chars().all(plain) {
            return Err(OptionsError::Device { found: self.device.clone() });
        }
        if self.host.is_empty() || self.host.contains(['/', ' ']) {
            return Err(OptionsError::Host { found: self.host.clone() });
        }
        if self.port == 0 {
            return Err(OptionsError::Port);
        }
        if self.outbox == 0 {
            return Err(OptionsError::Outbox);
        }
        let least = match self.version {
            Version::V3 => 1,
            Version::V5 => 5,
        };
        let seconds = self.keep_alive.as_secs();
        if seconds < least || seconds > u64::from(u16::MAX) {
            return Err(OptionsError::KeepAlive { found: seconds, least });
        }
        if !(LEAST_PACKET..=MOST_PACKET).contains(&self.max_packet) {
            return Err(OptionsError::MaxPacket {
                found: self.max_packet,
                least: LEAST_PACKET,
                most: MOST_PACKET,
            });
        }
        match &self.home_assistant {
            Some(prefix) if !is_topic(prefix) => Err(OptionsError::Prefix { found: prefix.clone() }),
            _ => Ok(()),
        }
    }

    /// User and password, the latter read from its file without the line's end.
    pub(super) fn login(&self) -> Result<Option<(String, String)>, OptionsError> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let Some(path) = &credentials.password_file else {
            return Ok(Some((credentials.username.clone(), String::new())));
        };
        let unreadable = |source| OptionsError::PasswordFile { path: path.clone(), source };
        let length = fs::metadata(path).map_err(unreadable)?.len();
        if length > PASSWORD_BYTES {
            return Err(OptionsError::PasswordTooLong { path: path.clone(), found: length });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(OptionsError::PasswordEmpty { path: path.clone() });
        }
        Ok(Some((credentials.username.clone(), password.to_owned())))
    }
}

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The device's name cannot stand in topics and ids.
    #[error("device {found:?}: use 1 to {DEVICE_LENGTH} letters, digits, `_` or `-`")]
    Device {
        /// The name given.
        found: String,
    },
    /// The host is no host.
    #[error("host {found:?}: give a name or address only, without scheme, port or path")]
    Host {
        /// The host given.
        found: String,
    },
    /// Port 0.
    #[error("port 0: give the broker's port, by custom 1883, with TLS 8883")]
    Port,
    /// An outbox that holds nothing.
    #[error("outbox 0: give at least 1")]
    Outbox,
    /// The keep-alive is out of range.
    #[error("keep-alive of {found} s: give {least} to {} s", u16::MAX)]
    KeepAlive {
        /// Seconds given.
        found: u64,
        /// Least for this version.
        least: u64,
    },
    /// The packet limit is out of range.
    #[error("packets of at most {found} bytes: give {least} to {most}")]
    MaxPacket {
        /// Bytes given.
        found: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// The discovery prefix is no topic.
    #[error("discovery prefix {found:?}: give a topic without `+`, `#` or an empty level")]
    Prefix {
        /// The prefix given.
        found: String,
    },
    /// The password's file cannot be read.
    #[error("password file {}: {source}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The password's file is too long to be one.
    #[error("password file {} has {found} bytes: give a file with one line, the password", path.display())]
    PasswordTooLong {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
    },
    /// The password's file holds none.
    #[error("password file {} is empty: put the password into it", path.display())]
    PasswordEmpty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key cannot be used.
    #[error("{what} {}: {reason}", path.display())]
    Certificate {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system trusts nobody.
    #[error(
        "TLS without a CA file, and the system has no certificates: set `ca`, or install ca-certificates"
    )]
    NoAuthorities,
    /// The certificate and key of the client do not go together, or TLS cannot be set up with them.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// Whether a text may be published to: no wildcards, no empty levels.
fn is_topic(text: &str) -> bool {
    !text.contains(['+', '#', '\0']) && text.split('/').all(|level| !level.is_empty())
}

/// A class's name in topics and ids: lower case, `_` for all but ASCII letters and digits. Where two classes
/// would be the same, or nothing is left, the place in the list tells them apart.
pub(super) fn slugs(classes: &[String]) -> Vec<String> {
    let slug = |name: &String| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
    };
    let all: Vec<String> = classes.iter().map(slug).collect();
    let shared = |s: &String| all.iter().filter(|other| *other == s).count() > 1;
    let blank = |s: &String| s.chars().all(|c| c == '_');
    all.iter()
        .enumerate()
        .map(|(index, s)| if blank(s) || shared(s) { format!("{s}_{index}") } else { s.clone() })
        .collect()
}

/// Topics below `ghostlight/DEVICE`, and Home Assistant's.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) availability: Arc<str>,
    pub(super) detections: Arc<str>,
    pub(super) state: Arc<str>,
    /// One a class where snapshots are on.
    pub(super) snapshots: Vec<Arc<str>>,
    /// Where Home Assistant says that it has started.
    pub(super) birth: Option<String>,
}

impl Topics {
    pub(super) fn of(options: &Options) -> Self {
        let below = |name: &str| -> Arc<str> { topic(&options.device, name).into() };
        let snapshots = if options.snapshots { slugs(&options.classes) } else { Vec::new() };
        Self {
            availability: below("availability"),
            detections: below("detections"),
            state: below("state"),
            snapshots: snapshots.iter().map(|slug| below(&format!("event/{slug}/snapshot"))).collect(),
            birth: options.home_assistant.as_ref().map(|prefix| format!("{prefix}/status")),
        }
    }
}

/// `ghostlight/DEVICE/NAME`
pub(super) fn topic(device: &str, name: &str) -> String {
    format!("ghostlight/{device}/{name}")
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
