//! The listener: a thread that accepts, and one for each of at most eight connections.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::http::{Request, Response, Status, read};
use super::{Health, Metrics, text};

/// Connections at once; further ones are closed unanswered.
const CONNECTIONS: usize = 8;
/// Stack of a connection's thread: it holds a request and a page.
const STACK: usize = 256 * 1024;
/// How long one who asks for a picture waits for the next frame.
const NEXT_FRAME: Duration = Duration::from_secs(2);
/// Pause after a failed accept: without file descriptors it fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Options of [`Server`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether `listen` may be reached from elsewhere. There is no password: whoever reaches it sees the pictures.
    pub allow_remote: bool,
    /// Without a frame for this long, the daemon is unwell.
    pub healthy_within: Duration,
}

impl Options {
    /// Defaults: loopback only, unwell after 10 s.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, allow_remote: false, healthy_within: Duration::from_secs(10) }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can be reached from elsewhere.
    #[error(
        "{listen} can be reached by others, who then see the pictures: use 127.0.0.1, or set `allow_remote`"
    )]
    Remote {
        /// The address given.
        listen: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen on {listen}: {source}")]
    Bind {
        /// The address given.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The running server. Dropping it closes the listener.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What every connection needs.
struct Site {
    metrics: Arc<Metrics>,
    options: Options,
    open: AtomicUsize,
}

impl Server {
    /// Listens, and answers from threads of its own.
    pub fn start(options: Options, metrics: Arc<Metrics>) -> Result<Self, ServerError> {
        let listen = options.listen;
        if !options.allow_remote && !listen.ip().is_loopback() {
            return Err(ServerError::Remote { listen });
        }
        let bind = |source| ServerError::Bind { listen, source };
        let listener = TcpListener::bind(listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let stop = Arc::new(AtomicBool::new(false));
        let site = Arc::new(Site { metrics, options, open: AtomicUsize::new(0) });
        let stopped = Arc::clone(&stop);
        let accept = move || accept(&listener, &site, &stopped);
        let thread = Builder::new().name("metrics".into()).spawn(accept).map_err(bind)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Accepting blocks: a connection wakes it. 0.0.0.0 is reached over loopback.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback: IpAddr = if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            };
            address.set_ip(loopback);
        }
        let woken = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
            && thread.join().is_err()
        {
            log::error!("the metrics thread ended by a bug of ours");
        }
    }
}

fn accept(listener: &TcpListener, site: &Arc<Site>, stop: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match accepted {
            Ok((stream, _)) => serve(stream, site),
            Err(e) => {
                log::debug!("metrics: {e}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Answers in a thread of its own, if there is room.
fn serve(mut stream: TcpStream, site: &Arc<Site>) {
    let Some(place) = Place::take(site) else { return };
    let answer = move || {
        let site = &place.0;
        let done = read(&mut stream).and_then(|request| {
            let response = request.map_or_else(|refusal| refusal, |request| site.answer(&request));
            response.write(&mut stream)
        });
        if let Err(e) = done {
            log::debug!("metrics: a connection ended: {e}");
        }
    };
    if let Err(e) = Builder::new().name("metrics-get".into()).stack_size(STACK).spawn(answer) {
        log::debug!("metrics: {e}");
    }
}

/// One of the places for connections, given back on drop.
struct Place(Arc<Site>);

impl Place {
    fn take(site: &Arc<Site>) -> Option<Self> {
        // Only the accepting thread takes places: between the two lines they can only become fewer.
        if site.open.load(Ordering::Relaxed) >= CONNECTIONS {
            return None;
        }
        site.open.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(site)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Site {
    fn answer(&self, request: &Request) -> Response {
        if !self.options.allow_remote && !request.host.as_deref().is_none_or(is_local) {
            // A page whose name was made to point at loopback must not read the pictures.
            return Response::text(Status::Forbidden, "ask by a loopback name");
        }
        match request.path.as_str() {
            "/metrics" => Response {
                status: Status::Ok,
                content_type: text::CONTENT_TYPE,
                body: text::render(&self.metrics).into_bytes(),
            },
            "/healthz" => match self.metrics.health(self.options.healthy_within) {
                Health::Ok => Response::text(Status::Ok, "ok"),
                Health::Unwell(why) => Response::text(Status::Unavailable, why),
            },
            "/snapshot.jpg" => match self.metrics.snapshot().jpeg(NEXT_FRAME) {
                Some(body) => Response { status: Status::Ok, content_type: "image/jpeg", body },
                None => Response::text(Status::Unavailable, "no frame came"),
            },
            _ => Response::text(Status::NotFound, "here are /metrics, /healthz and /snapshot.jpg"),
        }
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
