//! `[mqtt]` and `[metrics]`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::scope::{Findings, Scope};
use crate::sink::mqtt::{Credentials, Options, OptionsError, Qos, Tls, Version};

/// Where systemd puts what `LoadCredential=` names.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Ports by custom, without and with TLS.
const PORTS: [u16; 2] = [1883, 8883];
/// What MQTT 5 takes as the least; 3.1.1 would take 1.
const LEAST_KEEP_ALIVE: i64 = 5;

/// The broker. A section that is not enabled is checked all the same.
pub fn mqtt(mut scope: Scope, findings: &mut Findings) -> Option<Options> {
    let before = findings.problems.len();
    let enabled = scope.flag("enabled", false, findings);
    let host = scope.text_or("host", "localhost", findings);
    if !is_host(&host) {
        let cause = format!("'{host}' is no host; give a name or an address, without scheme, port or path");
        scope.fault("host", cause, findings);
    }
    let tls = scope.flag("tls", false, findings);
    let port = scope.whole("port", 1..=i64::from(u16::MAX), "1883, with tls 8883", findings);
    let tls_files = Files {
        ca: file(&mut scope, "ca", "the system's authorities", findings),
        cert: file(&mut scope, "client_cert", "", findings),
        key: file(&mut scope, "client_key", "", findings),
    };
    let username = scope.text("username", "anonymous", findings);
    let password_file = file(&mut scope, "password_file", "", findings);
    if password_file.is_some() && username.is_none() {
        scope.fault("password_file", "a password needs a user; set username too".into(), findings);
    }
    tls_files.check(tls, &scope, findings);
    // The device's name and the model's classes are known later.
    let mut options = Options::new("", Vec::new());
    options.host = host;
    options.port = port.map_or(PORTS[usize::from(tls)], |port| port as u16);
    options.version = scope.choice("version", &[("3.1.1", Version::V3), ("5", Version::V5)], 0, findings);
    options.tls = tls.then(|| Tls { ca: tls_files.ca, client: tls_files.cert.zip(tls_files.key) });
    options.credentials = username.map(|username| Credentials { username, password_file });
    options.qos = match scope.whole_or("qos", 0..=1, 0, findings) {
        0 => Qos::AtMostOnce,
        _ => Qos::AtLeastOnce,
    };
    options.outbox = scope.whole_or("outbox", 1..=100_000, options.outbox as i64, findings) as usize;
    let seconds = LEAST_KEEP_ALIVE..=i64::from(u16::MAX);
    let keep_alive = scope.whole_or("keep_alive", seconds, options.keep_alive.as_secs() as i64, findings);
    options.keep_alive = Duration::from_secs(keep_alive as u64);
    options.home_assistant = discovery(&mut scope, findings);
    // What cannot be read as a key is told already.
    if enabled && findings.problems.len() == before {
        verify(&options, &scope, findings);
    }
    scope.close(findings);
    enabled.then_some(options)
}

/// What the files hold.
fn verify(options: &Options, scope: &Scope, findings: &mut Findings) {
    let named = Options { device: "any".into(), ..options.clone() };
    let Err(error) = named.verify() else { return };
    let key = match &error {
        OptionsError::PasswordFile { .. }
        | OptionsError::PasswordTooLong { .. }
        | OptionsError::PasswordEmpty { .. } => "password_file",
        OptionsError::Certificate { .. } | OptionsError::NoAuthorities | OptionsError::Tls(_) => "tls",
        _ => "enabled",
    };
    scope.fault(key, error.to_string(), findings);
}

fn discovery(scope: &mut Scope, findings: &mut Findings) -> Option<String> {
    let on = scope.flag("discovery", true, findings);
    let prefix = scope.text_or("discovery_prefix", "homeassistant", findings);
    if prefix.contains(['+', '#', '\0']) || prefix.split('/').any(str::is_empty) {
        let cause = format!("'{prefix}' is no topic; leave out '+', '#' and empty levels");
        scope.fault("discovery_prefix", cause, findings);
    }
    on.then_some(prefix)
}

/// PEM files of an encrypted connection.
struct Files {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Files {
    fn check(&self, tls: bool, scope: &Scope, findings: &mut Findings) {
        match (&self.cert, &self.key) {
            (Some(_), None) => scope.fault("client_cert", "set client_key too".into(), findings),
            (None, Some(_)) => scope.fault("client_key", "set client_cert too".into(), findings),
            _ => {}
        }
        for (key, file) in [("ca", &self.ca), ("client_cert", &self.cert), ("client_key", &self.key)] {
            if file.is_some() && !tls {
                scope.fault(key, "this is for an encrypted connection; set tls = true".into(), findings);
            }
        }
    }
}

/// A file that must be readable, if it is given. A bare name means one of systemd's credentials, where there
/// are any.
fn file(
    scope: &mut Scope,
    key: &'static str,
    note: &'static str,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let path = credential(&PathBuf::from(scope.text(key, note, findings)?));
    let advice = match is_bare(&path) {
        true => "give a path; a bare name is a credential that only the service is given (LoadCredential=)",
        false => "check the path",
    };
    must_exist(scope, key, &path, advice, findings);
    Some(path)
}

/// Whether it may name a credential.
fn is_bare(path: &Path) -> bool {
    path.components().count() == 1
}

fn credential(path: &Path) -> PathBuf {
    let folder = std::env::var_os(CREDENTIALS).filter(|_| is_bare(path));
    folder.map(|folder| Path::new(&folder).join(path)).filter(|p| p.exists()).unwrap_or(path.to_path_buf())
}

/// A file must be there and readable; `advice` says what to do where it is not there.
pub fn must_exist(scope: &Scope, key: &'static str, path: &Path, advice: &str, findings: &mut Findings) {
    let cause = match File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_dir() => format!("{} is a folder; name a file", path.display()),
        Ok(_) => return,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("no file {}; {advice}", path.display())
        }
        Err(error) => format!("{}: {error}; check its owner and mode", path.display()),
    };
    scope.fault(key, cause, findings);
}

/// An address, or a name of labels.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    host.parse::<std::net::IpAddr>().is_ok()
        || (name.len() <= 253 && name.split('.').all(label) && !name.split('.').all(is_number))
}

/// A name of numbers alone is a mistyped address.
fn is_number(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
}

/// The metrics' server.
pub fn metrics(mut scope: Scope, findings: &mut Findings) -> Option<SocketAddr> {
    let parse = |text: &str| {
        text.parse::<SocketAddr>()
            .map_err(|_| format!("'{text}' is no address with a port; write one like \"127.0.0.1:9477\""))
    };
    let listen = scope.parsed("listen", "no server", parse, findings);
    if listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        // There is no password: whoever reaches it sees the pictures.
        let cause = "it must be this machine's own, like \"127.0.0.1:9477\"; let a proxy serve it to others";
        scope.fault("listen", cause.into(), findings);
    }
    scope.close(findings);
    listen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in ["localhost", "broker.lan", "192.168.1.2", "::1", "a-b_c.example.", "4chan.org"] {
            assert!(is_host(host), "{host}");
        }
        let long = "a".repeat(64);
        for host in ["", "mqtt://x", "x:1883", "a b", "-a", "a..b", "192.168.1", "300.1.1.1", &long] {
            assert!(!is_host(host), "{host}");
        }
    }
}
