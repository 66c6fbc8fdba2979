//! Addresses of the network: their parts, and how they are shown.

/// An address of a scheme, `SCHEME://…`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// User and password, decoded.
    pub(super) user: Option<String>,
    /// Name or number of the host.
    pub(super) host: String,
    /// Its port.
    pub(super) port: Option<u16>,
    /// Path and query.
    pub(super) path: String,
}

impl Address {
    /// Takes an address apart; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("an address has no spaces; write them as %20");
        }
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(decode(user)), host),
            None => (None, authority),
        };
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("?"))),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| BAD_PORT)).transpose()?;
        // Some schemes listen on a port of this machine.
        if host.is_empty() && port.is_none() {
            return Err("the address has no host");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { user, host: host.to_owned(), port, path: format!("{slash}{path}") })
    }
}

const BAD_PORT: &str = "the port is no number; write '/', ':' and '@' of a password as %2F, %3A and %40";

/// The scheme of an address in lower case.
pub(super) fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (!scheme.is_empty() && scheme.chars().all(plain)).then(|| scheme.to_ascii_lowercase())
}

/// The address without user, password and query, which may hold another password.
pub(super) fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password with a '/' in it is no valid address, but it is to be hidden all the same.
    let broken = rest[..end].rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_err());
    let searched = if broken && !rest[..end].contains('@') { rest } else { &rest[..end] };
    let (secret, rest) = searched.rfind('@').map_or(("", rest), |at| ("***@", &rest[at + 1..]));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    format!("{scheme}://{secret}{rest}{query}")
}

/// Words of another program about `address`, without what [`shown`] hides.
pub(super) fn hide(words: &str, address: &str) -> String {
    let words = words.replace(address, &shown(address));
    let hidden =
        words.split(' ').map(|word| if word.contains("://") { shown(word) } else { word.to_owned() });
    let mut hidden = hidden.collect::<Vec<_>>().join(" ");
    let user = Address::parse(address).ok().and_then(|address| address.user);
    let password = user.as_deref().and_then(|user| user.split_once(':')).map(|(_, password)| password);
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        hidden = hidden.replace(password, "***");
    }
    hidden
}

/// `%41` → `A`; what is no such pair stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((16 * high + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A path as part of an address.
pub(super) fn encode(path: &[u8]) -> String {
    path.iter().fold(String::new(), |text, &byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            text + &char::from(byte).to_string()
        }
        _ => format!("{text}%{byte:02X}"),
    })
}

/// Base64 with padding, for `Authorization: Basic`.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, user, host, port, path) in [
            ("http://cam", None, "cam", None, "/"),
            ("http://cam:81/a?b=c#d", None, "cam", Some(81), "/a?b=c"),
            ("http://cam?b", None, "cam", None, "/?b"),
            ("http://u:p%40%2f%@cam/x@y", Some("u:p@/%"), "cam", None, "/x@y"),
            ("http://[fe80::1]:8080/", None, "fe80::1", Some(8080), "/"),
            ("udp://@:5000", Some(""), "", Some(5000), "/"),
            ("http://[::1]", None, "::1", None, "/"),
        ] {
            let address = Address::parse(text).unwrap();
            let found = (address.user.as_deref(), address.host.as_str(), address.port, address.path.as_str());
            assert_eq!(found, (user, host, port, path), "{text}");
        }
        for bad in [
            "http://",
            "http://cam:x/",
            "http://cam:99999",
            "http://a b",
            "http://a/\r\nX: y",
            "http://u:p@/",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(scheme("RTSP://x").as_deref(), Some("rtsp"));
        assert!(scheme("/dev/video0").is_none() && scheme("a b://x").is_none());
    }

    #[test]
    fn secrets_are_hidden() {
        for (text, expected) in [
            ("/dev/video0", "/dev/video0"),
            ("http://cam:81/a@b", "http://cam:81/a@b"),
            ("rtsp://u:secret@cam/x", "rtsp://***@cam/x"),
            ("rtsp://u:sec/ret@cam/x", "rtsp://***@cam/x"),
            ("rtsp://u:sec@ret@cam", "rtsp://***@cam"),
            ("http://cam/v?pwd=secret", "http://cam/v?***"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let words = "rtsp://u:s%40t@cam/x: refused; Authorization s@t of http://a:b@c";
        assert_eq!(
            hide(words, "rtsp://u:s%40t@cam/x"),
            "rtsp://***@cam/x: refused; Authorization *** of http://***@c"
        );
    }

    #[test]
    fn base64_and_paths_are_encoded() {
        for (text, expected) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("u:p?>", "dTpwPz4=")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(encode(b"/a b/!\xc3"), "/a%20b/%21%C3");
    }
}
