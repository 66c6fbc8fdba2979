//! As much of HTTP/1.1 as `GET` of three pages needs: one request a connection, everything bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes of a request at most.
pub(super) const MOST_BYTES: usize = 8 * 1024;
/// Time for a request, and for its answer.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// What is asked for, or the answer to what is no request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Without its query.
    pub(super) path: String,
    /// The `Host` header, without its port.
    pub(super) host: Option<String>,
}

/// A page.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

/// A status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Response {
    pub(super) fn text(status: Status, body: impl Into<String>) -> Self {
        let mut body = body.into();
        body.push('\n');
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into_bytes() }
    }

    /// Writes it within [`LIMIT`], however slowly it is read.
    pub(super) fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            self.status.line(),
            self.content_type,
            self.body.len(),
            if self.status == Status::MethodNotAllowed { "Allow: GET\r\n" } else { "" },
        );
        let end = Instant::now() + LIMIT;
        write_until(stream, head.as_bytes(), end)?;
        write_until(stream, &self.body, end)
    }
}

/// Reads a request within [`LIMIT`], however slowly it comes; the answer where it is none.
pub(super) fn read(stream: &mut TcpStream) -> io::Result<Result<Request, Response>> {
    let end = Instant::now() + LIMIT;
    let mut bytes = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if let Some(head) = head(&bytes) {
            return Ok(parse(head));
        }
        if bytes.len() >= MOST_BYTES {
            return Ok(Err(Response::text(Status::TooLarge, "the request is too large")));
        }
    }
}

/// The bytes up to the empty line, once it is there.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|end| &bytes[..end])
}

fn parse(head: &[u8]) -> Result<Request, Response> {
    let bad = |why: &str| Response::text(Status::BadRequest, why);
    let text = std::str::from_utf8(head).map_err(|_| bad("the request is no text"))?;
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Err(bad("the request line has no three words")) };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(bad("the request line is not of HTTP/1"));
    }
    if method != "GET" {
        return Err(Response::text(Status::MethodNotAllowed, "GET only"));
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let host = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| without_port(value.trim()).to_ascii_lowercase());
    Ok(Request { path, host })
}

/// `localhost` of `localhost:9100`, `::1` of `[::1]:9100`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn write_until(stream: &mut TcpStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What is left until `end`; an error when nothing is (a timeout of zero would mean none).
fn left(end: Instant) -> io::Result<Duration> {
    end.checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_what_is_none() {
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: LocalHost:9100", Ok(("/metrics", Some("localhost")))),
            ("GET /a?b=c HTTP/1.0", Ok(("/a", None))),
            ("GET / HTTP/1.1\r\nhost:[::1]:80", Ok(("/", Some("::1")))),
            ("POST /metrics HTTP/1.1", Err(Status::MethodNotAllowed)),
            ("GET  / HTTP/1.1", Err(Status::BadRequest)),
            ("GET /", Err(Status::BadRequest)),
            ("GET / HTTP/2", Err(Status::BadRequest)),
            ("GET http://x/ HTTP/1.1", Err(Status::BadRequest)),
            ("", Err(Status::BadRequest)),
        ] {
            let got = parse(head.as_bytes()).map_err(|response| response.status);
            let expected =
                expected.map(|(path, host)| Request { path: path.into(), host: host.map(String::from) });
            assert_eq!(got, expected, "{head:?}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.1").unwrap_err().status, Status::BadRequest);
        assert_eq!(head(b"GET / HTTP/1.1\r\n\r"), None);
    }
}
