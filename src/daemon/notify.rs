//! What systemd is told (sd_notify(3)): ready, reloading, stopping, status, and signs of life.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The service manager's socket; without one, every message goes nowhere.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Time between two signs of life at most; `None` where nobody watches.
    watchdog: Option<Duration>,
    started: Instant,
    /// Milliseconds after `started` at which the last sign of life went out, plus one; 0 before the first.
    fed: AtomicU64,
}

impl Notifier {
    /// As `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID` say.
    pub fn from_environment(feed: bool) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| feed && ours && usec > 0);
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Self::new(socket.as_deref(), watchdog.map(Duration::from_micros))
    }

    /// For a socket's path, or an abstract name that begins with `@`.
    pub fn new(socket: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let manager = socket.and_then(|name| {
            connect(name).map_err(|e| log::warn!("$NOTIFY_SOCKET {}: {e}", name.display())).ok()
        });
        Self { manager, watchdog, started: Instant::now(), fed: AtomicU64::new(0) }
    }

    /// Longest time that a thread may be silent without a missed sign of life: half of what is allowed.
    pub fn patience(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    /// All is open, or is known to be away and tried again.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is read again; [`Notifier::ready`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reading the configuration again"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// A sign of life, as often as it is wanted. To be called when work was done, never by a timer.
    pub fn feed(&self) {
        let Some(interval) = self.watchdog else { return };
        let now = self.started.elapsed().as_millis() as u64 + 1;
        let last = self.fed.load(Ordering::Relaxed);
        if last == 0 || now - last >= (interval / 4).as_millis() as u64 {
            self.fed.store(now, Ordering::Relaxed);
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, manager)) = &self.manager else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), manager) {
            log::debug!("the service manager does not listen: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the daemon.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 500];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    fn check(name: &OsStr, manager: &UnixDatagram) {
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(Some(name), Some(Duration::from_secs(3600)));
        notifier.ready("a");
        assert_eq!(received(manager).unwrap(), "READY=1\nSTATUS=a");
        notifier.reloading();
        let message = received(manager).unwrap();
        let usec = message.split("MONOTONIC_USEC=").nth(1).unwrap().lines().next().unwrap();
        assert!(message.starts_with("RELOADING=1\n") && usec.parse::<u64>().unwrap() > 0, "{message}");
        notifier.feed();
        notifier.feed();
        assert_eq!((received(manager).as_deref(), received(manager)), (Some("WATCHDOG=1"), None));
    }

    #[test]
    fn messages_reach_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        check(path.as_os_str(), &UnixDatagram::bind(&path).unwrap());
        let name = format!("ghostlight-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(OsStr::new(&format!("@{name}")), &UnixDatagram::bind_addr(&address).unwrap());
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::new(None, None);
        notifier.ready("a");
        notifier.feed();
        Notifier::new(Some(OsStr::new("/absent/socket")), None).stopping();
    }
}
