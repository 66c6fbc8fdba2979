//! Cameras that give Motion JPEG, or one picture at a time, over plain HTTP/1.1.
//!
//! The client is small on purpose: one request, Basic authentication, no redirects. Whatever the boundary of a
//! multipart stream says, pictures are found by their own markers.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::address::{self, Address};
use super::http_body::Body;
use super::http_head::{self, Head};
use super::pump::{Gate, Pump, STEP, read};
use super::stream::{Asked, Decoder};
use super::{SourceError, period};
use crate::frame::PixelFormat;

/// Longest wait for a connection, and for a request to leave.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for bytes.
const SILENCE: Duration = Duration::from_secs(15);
/// Pictures a second where they are asked for one by one, and nobody says how often.
const FPS: f64 = 5.0;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Opens the camera at an address of `http://`.
///
/// # Errors
/// The address is none, or the camera refuses at once.
pub(super) fn open(from: &str, format: Option<PixelFormat>, fps: Option<f64>) -> Result<Pump, SourceError> {
    let name = address::shown(from);
    let unfit = |cause: &str| SourceError::Unfit { name: name.clone(), cause: cause.into() };
    let address = Address::parse(from).map_err(unfit)?;
    if format.is_some_and(|format| format != PixelFormat::Mjpeg) {
        return Err(unfit("over HTTP come JPEG pictures; leave out format"));
    }
    let client = Client { name: name.clone(), address, period: period(fps.unwrap_or(FPS)), silence: SILENCE };
    Pump::start(name, true, move |gate| client.watch(gate))
}

/// Whether the camera is still wanted: `None` is no.
type Wanted<T> = Result<Option<T>, SourceError>;

struct Client {
    name: String,
    address: Address,
    /// Time between two single pictures.
    period: Duration,
    silence: Duration,
}

impl Client {
    /// Reads pictures until the gate is closed.
    fn watch(&self, gate: &Gate) -> Result<(), SourceError> {
        let asked = Asked { format: Some(PixelFormat::Mjpeg), ..Asked::default() };
        let mut decoder = Decoder::new(asked).map_err(|error| error.of(&self.name))?;
        let mut due = Instant::now();
        while !gate.closed() {
            let Some((connection, head, rest)) = self.request(gate)? else { break };
            let single = head.kind().map_err(|cause| self.unfit(cause))?;
            gate.opened(|| Some(if single { "single JPEG pictures" } else { "MJPEG" }.into()));
            let body = Body::new(&head).map_err(|cause| self.broken(cause))?;
            self.receive(gate, &connection, body, rest, &mut decoder)?;
            if !single {
                if gate.closed() {
                    break;
                }
                return Err(self.broken("the camera ended the stream"));
            }
            due = (due + self.period).max(Instant::now());
            gate.sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Asks for the address. Gives what came behind the answer's head, too.
    fn request(&self, gate: &Gate) -> Wanted<(TcpStream, Head, Vec<u8>)> {
        let mut connection = self.connect()?;
        let sent = connection.set_write_timeout(Some(CONNECT)).and_then(|()| {
            let request = http_head::request(&self.address);
            connection.write_all(request.as_bytes())
        });
        sent.map_err(|error| self.failed(error))?;
        let mut bytes = Vec::new();
        let end = Instant::now() + self.silence;
        let mut buffer = vec![0; http_head::MAX_BYTES];
        while !gate.closed() {
            if let Some(length) = http_head::length(&bytes) {
                let head = Head::parse(&bytes[..length]).map_err(|cause| self.broken(cause))?;
                let signed_in = self.address.user.is_some();
                head.check(signed_in).map_err(|refusal| refusal.of(&self.name))?;
                return Ok(Some((connection, head, bytes.split_off(length))));
            }
            if bytes.len() >= http_head::MAX_BYTES {
                return Err(self.broken("the answer's head is larger than 16 KB"));
            }
            let room = http_head::MAX_BYTES - bytes.len();
            match read(&connection, &mut buffer[..room], STEP).map_err(|error| self.failed(error))? {
                None if Instant::now() > end => return Err(self.silent()),
                None => {}
                Some(0) => return Err(self.broken("the camera closed the connection without an answer")),
                Some(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(None)
    }

    fn connect(&self) -> Result<TcpStream, SourceError> {
        let absent = |cause: String| SourceError::Absent { name: self.name.clone(), cause };
        let (host, port) = (self.address.host.as_str(), self.address.port.unwrap_or(80));
        let found =
            (host, port).to_socket_addrs().map_err(|error| absent(format!("host {host}: {error}")))?;
        let mut fault = "no such host".to_owned();
        for place in found {
            match TcpStream::connect_timeout(&place, CONNECT) {
                Ok(connection) => return Ok(connection),
                Err(error) => fault = format!("{place}: {error}"),
            }
        }
        Err(absent(fault))
    }

    /// Reads an answer's body to its end.
    fn receive(
        &self,
        gate: &Gate,
        connection: &TcpStream,
        mut body: Body,
        rest: Vec<u8>,
        decoder: &mut Decoder,
    ) -> Result<(), SourceError> {
        let mut take = |body: &mut Body, mut bytes: &[u8]| {
            while !bytes.is_empty() && !body.ended() {
                let (taken, data) = body.take(bytes).map_err(|cause| self.broken(cause))?;
                bytes = &bytes[taken..];
                decoder.take(data, |frame| gate.put(frame)).map_err(|error| error.of(&self.name))?;
            }
            Ok(())
        };
        take(&mut body, &rest)?;
        let mut buffer = vec![0; PIECE];
        let mut last = Instant::now();
        while !gate.closed() && !body.ended() {
            match read(connection, &mut buffer, STEP).map_err(|error| self.failed(error))? {
                None if last.elapsed() > self.silence => return Err(self.silent()),
                None => {}
                Some(0) => break,
                Some(count) => {
                    last = Instant::now();
                    take(&mut body, &buffer[..count])?;
                }
            }
        }
        Ok(())
    }

    fn unfit(&self, cause: String) -> SourceError {
        SourceError::Unfit { name: self.name.clone(), cause }
    }

    fn failed(&self, error: io::Error) -> SourceError {
        SourceError::Read { name: self.name.clone(), error }
    }

    fn broken(&self, cause: impl Into<String>) -> SourceError {
        self.failed(io::Error::new(io::ErrorKind::InvalidData, cause.into()))
    }

    fn silent(&self) -> SourceError {
        let cause = format!("the camera sends nothing for {} s", self.silence.as_secs());
        self.failed(io::Error::new(io::ErrorKind::TimedOut, cause))
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
