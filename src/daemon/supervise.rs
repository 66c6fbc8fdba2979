//! The main thread: it starts the others, waits for signals and changes of state, and ends them in order.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::capture::{Capture, Orders};
use super::compute::{Compute, Desk, Setup, SharedMqtt};
use super::lines::Lines;
use super::notify::Notifier;
use super::report::Names;
use super::slot::Slot;
use super::{End, Host, Network, Opened, StartError, signals};
use crate::config::{Config, Loaded, Watch};
use crate::events::Rules;
use crate::metrics::{self, Metrics, Server};
use crate::sink::mqtt::{self, Mqtt};
use crate::source;

/// Time between two lines of status.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Time for the picture at hand, once the end was asked for.
const LAST_PICTURE: Duration = Duration::from_millis(800);
/// Time for lines that a reader may not read, counted from the same moment.
const LAST_LINES: Duration = Duration::from_millis(1200);

/// What the main thread waits for.
#[derive(Debug)]
pub enum Event {
    /// The source is open.
    Opened(String),
    /// The source is away, and is tried again.
    Lost(String),
    /// The source cannot be used as asked.
    Unfit(String),
    /// Nothing more is to be computed.
    Computed,
    /// Whoever read standard output went away.
    OutputClosed,
    /// The configuration is to be read again.
    Reload,
    /// The end is asked for.
    Stop,
}

/// Runs until a signal, the source's end, or a fault that no retry removes.
///
/// # Errors
/// [`StartError`]: something could not be started.
pub fn run(loaded: Loaded, opened: Opened, host: &mut dyn Host) -> Result<End, StartError> {
    let (sender, events) = mpsc::channel();
    signals::listen(sender.clone())?;
    let mut daemon = Daemon::start(loaded, opened, host, sender)?;
    let end = daemon.serve(&events, host);
    let lost = daemon.finish(&end, &events);
    Ok(match end {
        Reason::Unfit(cause) => End::Unfit(cause),
        // Of a finite source all lines were wanted.
        Reason::Computed if lost > 0 => End::LinesLost(lost),
        Reason::Stop | Reason::OutputClosed | Reason::Computed => End::Done,
    })
}

/// Why the daemon ends.
enum Reason {
    Stop,
    OutputClosed,
    Computed,
    Unfit(String),
}

struct Daemon {
    config: Config,
    watch: Watch,
    names: Arc<Names>,
    metrics: Arc<Metrics>,
    server: Option<Server>,
    lines: Option<Lines>,
    mqtt: SharedMqtt,
    slot: Arc<Slot>,
    desk: Arc<Desk>,
    orders: Arc<Orders>,
    notifier: Arc<Notifier>,
    sender: Sender<Event>,
    compute: JoinHandle<()>,
    status: Status,
}

impl Daemon {
    fn start(
        loaded: Loaded,
        opened: Opened,
        host: &mut dyn Host,
        sender: Sender<Event>,
    ) -> Result<Self, StartError> {
        let (config, watch) = (loaded.config, opened.watch);
        let network = opened.network.ok_or_else(|| std::io::Error::other("no model was opened"))?;
        let names = Arc::new(names(&config, network.id(), network.classes()));
        let lines = Lines::start(&config.jsonl, sender.clone())?;
        let metrics = Arc::new(Metrics::new(watch.names.clone()));
        let server = serve_metrics(&config, &metrics)?;
        let mqtt = SharedMqtt::default();
        connect(&config, &names, &watch, &metrics, &mqtt)?;
        let notifier = Arc::new(Notifier::from_environment(config.watchdog));
        let (slot, desk) = (Arc::new(Slot::default()), Arc::new(Desk::default()));
        let orders = Arc::new(Orders::new(config.source.clone(), Arc::clone(&metrics)));
        let rules = Rules::new(watch.rules.clone())?;
        let setup = setup(&config, &watch, None, &names, &metrics, lines.as_ref(), None);
        let compute = Compute {
            network,
            rules,
            setup,
            slot: Arc::clone(&slot),
            desk: Arc::clone(&desk),
            mqtt: Arc::clone(&mqtt),
            notifier: Arc::clone(&notifier),
        };
        let done = sender.clone();
        let compute = Builder::new().name("compute".into()).spawn(move || {
            compute.run();
            // The main thread ends last, but for a second signal.
            let _ = done.send(Event::Computed);
        })?;
        let capture = Capture {
            open: host.opener(),
            slot: Arc::clone(&slot),
            orders: Arc::clone(&orders),
            events: sender.clone(),
            notifier: Arc::clone(&notifier),
        };
        Builder::new().name("capture".into()).spawn(move || capture.run())?;
        let status = Status::new();
        Ok(Self {
            config,
            watch,
            names,
            metrics,
            server,
            lines,
            mqtt,
            slot,
            desk,
            orders,
            notifier,
            sender,
            compute,
            status,
        })
    }

    /// Waits for what happens, until the end.
    fn serve(&mut self, events: &Receiver<Event>, host: &mut dyn Host) -> Reason {
        let mut next_status = Instant::now() + STATUS_EVERY;
        loop {
            let patience = next_status.saturating_duration_since(Instant::now());
            match events.recv_timeout(patience) {
                Ok(Event::Opened(what)) => {
                    log::info!("{what}");
                    self.metrics.set_camera_up(true);
                    (self.status.open, self.status.source) = (true, what);
                    self.tell_source();
                }
                Ok(Event::Lost(cause)) => {
                    log::warn!("{cause}; trying again");
                    self.metrics.set_camera_up(false);
                    self.status.open = false;
                    self.status.source = format!("source is away, trying again: {cause}");
                    self.tell_source();
                }
                Ok(Event::Unfit(cause)) => return Reason::Unfit(cause),
                Ok(Event::Computed) => return Reason::Computed,
                Ok(Event::OutputClosed) => return Reason::OutputClosed,
                Ok(Event::Reload) => self.reload(host),
                Ok(Event::Stop) => return Reason::Stop,
                Err(RecvTimeoutError::Timeout) => {
                    next_status = Instant::now() + STATUS_EVERY;
                    let lines_lost = self.lines.as_ref().map_or(0, Lines::lost);
                    let status = self.status.line(&self.desk, lines_lost);
                    if self.status.told {
                        self.notifier.status(&status);
                    }
                }
                // `self` holds a sender.
                Err(RecvTimeoutError::Disconnected) => return Reason::Stop,
            }
        }
    }

    /// The first word about the source, good or bad, is that all is started.
    fn tell_source(&mut self) {
        match std::mem::replace(&mut self.status.told, true) {
            false => self.notifier.ready(&self.status.source),
            true => self.notifier.status(&self.status.source),
        }
    }

    /// Reads the configuration again. Whatever is wrong with it is told, and the old one stays.
    fn reload(&mut self, host: &mut dyn Host) {
        self.notifier.reloading();
        let changed = host.load().and_then(|loaded| {
            let opened = host.open_model(&loaded)?;
            self.change(loaded.config, opened).map_err(|error| {
                host.forget_model();
                vec![error.to_string()]
            })
        });
        match changed {
            Ok(()) => log::info!("the configuration was read again"),
            Err(problems) => {
                for problem in &problems {
                    log::error!("{problem}");
                }
                log::error!("the old configuration stays");
            }
        }
        // Before the first word about the source, that word is still to come.
        if self.status.told {
            self.notifier.ready(&self.status.source);
        }
    }

    /// Goes over to another configuration, leaving alone what did not change.
    fn change(&mut self, config: Config, opened: Opened) -> Result<(), StartError> {
        let names = match &opened.network {
            Some(network) => names(&config, network.id(), network.classes()),
            None => names(&config, &self.names.model, &self.names.classes),
        };
        let names = Arc::new(names);
        // What can fail comes first, and changes nothing where it does.
        let rules = match opened.watch == self.watch {
            true => None,
            false => Some(Rules::new(opened.watch.rules.clone())?),
        };
        self.change_lines(&config)?;
        let other_broker = opened.watch.names != self.watch.names
            || config.events.snapshot != self.config.events.snapshot
            || config.mqtt != self.config.mqtt
            || names.device != self.names.device;
        if other_broker {
            self.change_broker(&config, &names, &opened.watch);
        }
        if other_broker || config.metrics != self.config.metrics {
            // The old one gives its address back first.
            self.server = None;
            self.server = serve_metrics(&config, &self.metrics)
                .inspect_err(|error| log::error!("{error}; there are no metrics until the next reload"))
                .unwrap_or(None);
        }
        if config.source != self.config.source {
            self.orders.change(config.source.clone());
        }
        let lines = self.lines.as_ref();
        self.desk.leave(setup(&config, &opened.watch, rules, &names, &self.metrics, lines, opened.network));
        (self.config, self.watch, self.names) = (config, opened.watch, names);
        Ok(())
    }

    /// Another client, with counters that begin anew: they are by class and of this client.
    fn change_broker(&mut self, config: &Config, names: &Names, watch: &Watch) {
        self.metrics = Arc::new(Metrics::new(watch.names.clone()));
        self.metrics.set_camera_up(self.status.open);
        self.orders.count_in(Arc::clone(&self.metrics));
        // The old one says that it is offline before the new one is online.
        drop(self.mqtt.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Err(error) = connect(config, names, watch, &self.metrics, &self.mqtt) {
            log::error!("{error}; nothing is published until the next reload");
        }
    }

    fn change_lines(&mut self, config: &Config) -> Result<(), StartError> {
        match &self.lines {
            Some(lines) if config.jsonl == self.config.jsonl => lines.reopen(),
            Some(lines) if config.jsonl.enabled => lines.move_to(&config.jsonl.path)?,
            Some(_) => self.lines = None,
            None => self.lines = Lines::start(&config.jsonl, self.sender.clone())?,
        }
        Ok(())
    }

    /// Ends the threads in the order of the frames' way, and leaves none of them more than its time. Gives the
    /// number of lines that were lost.
    fn finish(self, end: &Reason, events: &Receiver<Event>) -> u64 {
        self.notifier.stopping();
        let began = Instant::now();
        let hurry = !matches!(end, Reason::Computed);
        self.orders.stop();
        self.slot.close();
        self.desk.stop();
        if !wait(began + LAST_PICTURE, || self.compute.is_finished()) {
            log::warn!("the last picture was not done in time");
        }
        if let Some(lines) = &self.lines {
            lines.close();
        }
        // Sends what is queued and `offline`, for a second at most.
        drop(self.mqtt.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(lines) = &self.lines else { return 0 };
        let mut deadline = hurry.then_some(began + LAST_LINES);
        while !wait(Instant::now() + Duration::from_millis(50), || lines.finished()) {
            // A finite source's lines wait for their reader, until a signal.
            match events.try_recv() {
                Ok(Event::Stop | Event::OutputClosed) => deadline = Some(Instant::now()),
                _ if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    log::warn!("lines are lost: nobody reads them");
                    break;
                }
                _ => {}
            }
        }
        lines.lost()
    }
}

/// Waits for something until a moment; whether it came.
fn wait(until: Instant, done: impl Fn() -> bool) -> bool {
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(2));
    }
    true
}

fn names(config: &Config, model: &str, classes: &[String]) -> Names {
    Names {
        device: config.device.clone().unwrap_or_else(host_name),
        // Lines are read by others.
        source: source::shown(&config.source.address),
        model: model.to_owned(),
        classes: classes.to_vec(),
    }
}

/// The host's name, as far as it may stand in topics.
pub fn host_name() -> String {
    // Not by /proc/sys, which a hardened service does not see.
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    let name: String = name.chars().map(plain).take(64).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

fn setup(
    config: &Config,
    watch: &Watch,
    rules: Option<Rules>,
    names: &Arc<Names>,
    metrics: &Arc<Metrics>,
    lines: Option<&Lines>,
    network: Option<Box<dyn Network>>,
) -> Setup {
    Setup {
        network,
        nms: watch.nms.clone(),
        rules,
        names: Arc::clone(names),
        metrics: Arc::clone(metrics),
        lines: lines.map(Lines::sender),
        period: config.source.fps.map(|fps| Duration::from_secs_f64(1.0 / fps)),
        snapshots: config.events.snapshot,
    }
}

fn serve_metrics(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Server>, StartError> {
    let Some(listen) = config.metrics else { return Ok(None) };
    let server = Server::start(metrics::Options::new(listen), Arc::clone(metrics))?;
    log::info!("metrics: http://{}/metrics", server.address());
    Ok(Some(server))
}

/// Starts the client that the configuration asks for.
fn connect(
    config: &Config,
    names: &Names,
    watch: &Watch,
    metrics: &Metrics,
    mqtt: &SharedMqtt,
) -> Result<(), StartError> {
    let Some(options) = &config.mqtt else { return Ok(()) };
    let options = mqtt::Options {
        device: names.device.clone(),
        classes: watch.names.clone(),
        snapshots: config.events.snapshot,
        ..options.clone()
    };
    log::info!("publishing to {}", options.broker());
    let client = Mqtt::start(options)?;
    metrics.set_mqtt(client.counter());
    *mqtt.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    Ok(())
}

/// The figures of the last status, to tell what came since.
struct Status {
    /// The manager knows that all is started.
    told: bool,
    /// The source is open.
    open: bool,
    /// What was opened, or why it is not.
    source: String,
    at: Instant,
    frames: u64,
    micros: u64,
}

impl Status {
    fn new() -> Self {
        Self {
            told: false,
            open: false,
            source: "opening the source".into(),
            at: Instant::now(),
            frames: 0,
            micros: 0,
        }
    }

    fn line(&mut self, desk: &Desk, lines_lost: u64) -> String {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (frames, micros) = (load(&desk.frames), load(&desk.micros));
        let fps = (frames - self.frames) as f64 / self.at.elapsed().as_secs_f64().max(1e-3);
        let latency = (micros - self.micros) as f64 / 1e3 / (frames - self.frames).max(1) as f64;
        (self.at, self.frames, self.micros) = (Instant::now(), frames, micros);
        let mut line = format!("{fps:.1} fps, latency {latency:.0} ms, {} dropped", load(&desk.lost));
        for (count, what) in [(load(&desk.broken), "broken frames"), (lines_lost, "lines lost")] {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        format!("{line}; {}", self.source)
    }
}
