//! As much of a broker as it takes to know exactly what arrived, and to misbehave at a chosen moment.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a connection does.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Detections after which it dies, the last one unanswered.
    pub dies_after: usize,
    /// Whether it answers publishes.
    pub answers: bool,
}

impl Manner {
    pub const GOOD: Self = Self { dies_after: usize::MAX, answers: true };
}

/// A broker for one client; the nth connection has the nth manner, later ones the last.
pub struct Fake {
    pub port: u16,
    received: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(manners: Vec<Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let manner = manners.get(index).or(manners.last()).copied().unwrap_or(Manner::GOOD);
                let _ = serve(stream.unwrap(), manner, &log);
            }
        });
        Self { port, received }
    }

    /// Detections that arrived so far.
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, manner: Manner, log: &Mutex<Vec<String>>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut detections = 0;
    loop {
        let (head, body) = packet(&mut stream)?;
        match head >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0])?,
            3 => {
                let (topic, rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
                let id = if head & 6 == 0 { 0 } else { 2 };
                if topic.ends_with(b"/detections") {
                    log.lock().unwrap().push(String::from_utf8(rest[id..].to_vec()).unwrap());
                    detections += 1;
                }
                if detections >= manner.dies_after {
                    return Ok(());
                }
                if id > 0 && manner.answers {
                    stream.write_all(&[0x40, 2, rest[0], rest[1]])?;
                }
            }
            8 => stream.write_all(&[0x90, 3, body[0], body[1], 1])?,
            12 => stream.write_all(&[0xd0, 0])?,
            _ => return Ok(()),
        }
    }
}

fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let head = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}
