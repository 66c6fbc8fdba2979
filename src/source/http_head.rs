//! The head of a request and of its answer, in HTTP/1.1.

use super::SourceError;
use super::address::{self, Address, base64};

/// Largest head of an answer.
pub(super) const MAX_BYTES: usize = 16 << 10;
/// Characters of an answer's own words in a message.
const MAX_WORDS: usize = 200;

/// The request for an address.
pub(super) fn request(address: &Address) -> String {
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let port = address.port.map_or_else(String::new, |port| format!(":{port}"));
    let user = address.user.as_ref().map(|user| {
        let user = if user.contains(':') { user.clone() } else { format!("{user}:") };
        format!("Authorization: Basic {}\r\n", base64(user.as_bytes()))
    });
    format!(
        "GET {} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: ghostlight/{}\r\nAccept: */*\r\n{}Connection: close\r\n\r\n",
        address.path,
        env!("CARGO_PKG_VERSION"),
        user.unwrap_or_default(),
    )
}

/// Bytes of a whole head, its empty line included.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let end = |end: &[u8]| bytes.windows(end.len()).position(|bytes| bytes == end).map(|at| at + end.len());
    [end(b"\r\n\r\n"), end(b"\n\n")].into_iter().flatten().min()
}

/// What an answer's head refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing changes by asking again.
    Lasting(String),
    /// It may be otherwise later.
    Passing(String),
}

impl Refusal {
    /// As the fault of a source.
    pub(super) fn of(self, name: &str) -> SourceError {
        let name = name.to_owned();
        match self {
            Self::Lasting(cause) => SourceError::Unfit { name, cause },
            Self::Passing(cause) => SourceError::Absent { name, cause },
        }
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    status: u16,
    /// Names in lower case.
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let status =
            first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(1..)?.trim_start().get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("no answer of HTTP/1.1: '{}'", plain(first)))?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Ok(Self { status, fields: fields.collect() })
    }

    /// The value of a field; its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Checks that the answer is what was asked for. `signed_in`: a user was named.
    pub(super) fn check(&self, signed_in: bool) -> Result<(), Refusal> {
        let status = self.status;
        Err(match status {
            200 => return Ok(()),
            300..=399 => {
                let target =
                    self.field("location").map_or_else(|| "nowhere".into(), |to| address::shown(&plain(to)));
                Refusal::Lasting(format!("answer {status}: it is at {target}; write that address"))
            }
            401 | 407 => Refusal::Lasting(self.sign_in(signed_in)),
            404 => Refusal::Passing("answer 404: no such path there (yet?); check the address".into()),
            408 | 429 | 500..=599 => Refusal::Passing(format!("answer {status}: it has no pictures now")),
            _ => Refusal::Lasting(format!("answer {status}; check the address and the camera's settings")),
        })
    }

    fn sign_in(&self, signed_in: bool) -> String {
        let status = self.status;
        let basic = |(name, value): &(String, String)| {
            name == "www-authenticate" && value.to_ascii_lowercase().starts_with("basic")
        };
        match (self.field("www-authenticate"), signed_in) {
            (Some(_), _) if !self.fields.iter().any(basic) => {
                format!("answer {status}: it wants more than Basic authentication; allow Basic in the camera")
            }
            (_, true) => format!("answer {status}: it refuses this user and password"),
            (_, false) => {
                format!("answer {status}: it wants a user and password; write http://USER:PASSWORD@HOST/PATH")
            }
        }
    }

    /// Whether the body is one picture, not a stream of them; the error says that it is neither.
    pub(super) fn kind(&self) -> Result<bool, String> {
        let given = self.field("content-type").unwrap_or_default();
        let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "image/jpeg" | "image/jpg" | "image/pjpeg" => Ok(true),
            "" | "application/octet-stream" | "video/x-motion-jpeg" | "video/x-jpeg" => Ok(false),
            multipart if multipart.starts_with("multipart/") => Ok(false),
            _ => Err(format!("it gives '{}', no JPEG pictures; check the address's path", plain(given))),
        }
    }
}

/// An answer's words as they may be printed.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_request_names_host_and_user() {
        let address = Address::parse("http://u:p@cam:81/v?x").unwrap();
        let text = request(&address);
        assert!(
            text.starts_with("GET /v?x HTTP/1.1\r\nHost: cam:81\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nAuthorization: Basic dTpw\r\n"), "{text}");
        assert!(request(&Address::parse("http://[::1]").unwrap()).contains("Host: [::1]\r\n"));
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let text = b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\n\n";
        for end in 0..26 {
            assert_eq!(length(&text[..end]), (end >= 25).then_some(25), "{end}");
        }
        assert_eq!(length(b"HTTP/1.0 200 OK\n\nx"), Some(17));
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let head = head("HTTP/1.1 200 OK\r\ncontent-TYPE:  image/JPEG; x\r\nodd\r\n\r\n");
        assert_eq!(head.field("content-type"), Some("image/JPEG; x"));
        assert_eq!((head.check(false), head.kind()), (Ok(()), Ok(true)));
        for bad in ["", "HTTP/2 200", "HTTP/1.1 x", "SSH-2.0-\x1b[2J", "HTTP/1.é200"] {
            let fault = Head::parse(bad.as_bytes()).unwrap_err();
            assert!(fault.starts_with("no answer") && !fault.contains('\x1b'), "{fault}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let lasting = [
            ("302 Found\r\nLocation: https://u:p@cam/x", "it is at https://***@cam/x"),
            ("401 No\r\nWWW-Authenticate: Basic realm=x", "USER:PASSWORD@"),
            ("401 No\r\nWWW-Authenticate: Digest realm=x", "allow Basic"),
            ("403 No", "answer 403"),
        ];
        for (text, words) in lasting {
            let refusal = head(&format!("HTTP/1.1 {text}\r\n\r\n")).check(false).unwrap_err();
            assert!(matches!(&refusal, Refusal::Lasting(cause) if cause.contains(words)), "{refusal:?}");
        }
        let refusal = head("HTTP/1.1 401 No\r\n\r\n").check(true).unwrap_err();
        assert_eq!(refusal, Refusal::Lasting("answer 401: it refuses this user and password".into()));
        for status in [404, 408, 429, 500, 503] {
            let refusal = head(&format!("HTTP/1.1 {status} No\r\n\r\n")).check(false).unwrap_err();
            assert!(matches!(refusal, Refusal::Passing(_)), "{refusal:?}");
        }
    }

    #[test]
    fn a_page_is_no_stream() {
        let kind = |kind: &str| head(&format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n")).kind();
        assert_eq!(kind("multipart/x-mixed-replace;boundary=b"), Ok(false));
        assert!(kind("text/html").unwrap_err().contains("'text/html'"));
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").kind(), Ok(false));
    }
}
