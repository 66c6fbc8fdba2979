//! Where the body of an answer in HTTP/1.1 ends: at its length, at its last chunk, or with the connection.

use super::http_head::Head;

/// Digits of a chunk's length; more would be past any memory.
const MAX_DIGITS: usize = 8;
/// Longest line behind a chunk's length, and longest trailer.
const MAX_LINE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until the connection ends.
    Open,
    /// So many bytes are left.
    Length(u64),
    /// In the digits of a chunk's length.
    Digits { value: u64, count: usize },
    /// Behind them, until the line ends.
    Line { length: u64, count: usize },
    /// In a chunk with so many bytes left.
    Chunk(u64),
    /// Behind a chunk, until the line ends.
    ChunkEnd,
    /// It ended.
    Ended,
}

/// What is left of a body.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
}

impl Body {
    /// The body that a head announces; the error says what cannot be read.
    pub(super) fn new(head: &Head) -> Result<Self, String> {
        let state = match head.field("transfer-encoding").map(str::to_ascii_lowercase).as_deref() {
            Some("chunked") => State::Digits { value: 0, count: 0 },
            Some(other) if other != "identity" => return Err("an unknown transfer encoding".into()),
            _ => match head.field("content-length") {
                Some(length) => {
                    State::Length(length.parse().map_err(|_| "a content length that is no number")?)
                }
                None => State::Open,
            },
        };
        Ok(Self { state })
    }

    /// Whether it ended by its own account.
    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended | State::Length(0))
    }

    /// Takes some bytes. Returns how many, and the part of them that is data.
    pub(super) fn take<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, &'b [u8]), &'static str> {
        let (data, next) = match self.state {
            State::Open => (bytes, State::Open),
            State::Length(left) => {
                let data = first(bytes, left);
                (data, State::Length(left - data.len() as u64))
            }
            State::Chunk(left) => {
                let data = first(bytes, left);
                let left = left - data.len() as u64;
                (data, if left == 0 { State::ChunkEnd } else { State::Chunk(left) })
            }
            State::Ended => return Ok((bytes.len(), &[])),
            _ => return self.between(bytes[0]).map(|()| (1, &[][..])),
        };
        self.state = next;
        Ok((data.len(), data))
    }

    /// Takes a byte between chunks.
    fn between(&mut self, byte: u8) -> Result<(), &'static str> {
        const BROKEN: &str = "a broken chunk";
        self.state = match self.state {
            State::Digits { value, count } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if count < MAX_DIGITS => {
                    State::Digits { value: 16 * value + u64::from(digit), count: count + 1 }
                }
                (None, b'\n') if count > 0 => behind(value),
                (None, b'\r' | b';' | b' ' | b'\t') if count > 0 => State::Line { length: value, count: 0 },
                _ => return Err(BROKEN),
            },
            State::Line { length, .. } if byte == b'\n' => behind(length),
            State::Line { count, .. } if count >= MAX_LINE => return Err(BROKEN),
            State::Line { length, count } => State::Line { length, count: count + 1 },
            State::ChunkEnd => match byte {
                b'\r' => State::ChunkEnd,
                b'\n' => State::Digits { value: 0, count: 0 },
                _ => return Err(BROKEN),
            },
            state => state,
        };
        Ok(())
    }
}

/// The state behind a chunk's length. Trailers mean nothing here: the connection is not used again.
fn behind(length: u64) -> State {
    if length == 0 { State::Ended } else { State::Chunk(length) }
}

fn first(bytes: &[u8], most: u64) -> &[u8] {
    &bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(fields: &str) -> Result<Body, String> {
        Body::new(&Head::parse(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes()).unwrap())
    }

    fn data(fields: &str, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let mut body = body(fields).unwrap();
        let mut found = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (taken, data) = body.take(piece)?;
                found.extend_from_slice(data);
                piece = &piece[taken..];
            }
        }
        Ok((found, body.ended()))
    }

    #[test]
    fn each_body_ends_where_it_says() {
        for piece in [1, 2, 5, 100] {
            let chunks = b"3\r\nabc\r\n0A ;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
            let found = data("Transfer-Encoding: Chunked", chunks, piece);
            assert_eq!(found, Ok((b"abc0123456789".to_vec(), true)), "by {piece}");
            assert_eq!(data("Content-Length: 3", b"abc", piece), Ok((b"abc".to_vec(), true)));
            assert_eq!(data("Content-Length: 4", b"abc", piece), Ok((b"abc".to_vec(), false)));
            assert_eq!(data("A: b", b"abc", piece), Ok((b"abc".to_vec(), false)));
        }
    }

    #[test]
    fn broken_chunks_and_unknown_encodings_are_refused() {
        for chunks in [&b"x\r\n"[..], b"\r\n", b"123456789\r\n", b"1\r\nab", b"-1\r\n"] {
            assert_eq!(data("Transfer-Encoding: chunked", chunks, 3), Err("a broken chunk"));
        }
        let endless = [&b"1;"[..], &[b'x'; 2000]].concat();
        assert!(data("Transfer-Encoding: chunked", &endless, 99).is_err());
        for fields in ["Transfer-Encoding: gzip", "Content-Length: -1", "Content-Length: x"] {
            assert!(body(fields).is_err(), "{fields}");
        }
    }

    proptest! {
        #[test]
        fn chunks_are_the_same_whatever_the_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'3'), any::<u8>()], 1..80),
            piece in 1usize..20,
        ) {
            let fields = "Transfer-Encoding: chunked";
            prop_assert_eq!(data(fields, &bytes, piece), data(fields, &bytes, bytes.len()));
        }
    }
}
