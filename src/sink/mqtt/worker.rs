//! The thread that keeps a connection: connects, hands messages over, reports what became of them, waits.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use super::cause::Cause;
use super::link::{Happened, Plan, Runner, Sender};
use super::options::{Options, Topics};
use super::outbox::Outbox;
use super::state::Thermometer;
use crate::backoff::{Delays, random};

/// Time for what is queued, `offline` and the goodbye, after [`super::Mqtt::shutdown`].
const FAREWELL: Duration = Duration::from_secs(1);
/// Pings without an answer after which the broker is left.
const PINGS: u32 = 2;
/// A connection that held for this long was a good one: delays begin anew. In multiples of the first delay.
const HELD: u32 = 10;
/// The temperature is read no more often.
const TEMPERATURE_PERIOD: Duration = Duration::from_secs(5);
/// No temperature known.
const UNKNOWN: i32 = i32::MIN;
/// Longest wait for nothing in particular.
const IDLE: Duration = Duration::from_secs(3600);

/// What the pipeline and the worker share.
#[derive(Debug)]
pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    wake: Notify,
    /// Thousandths of a degree.
    temperature: AtomicI32,
}

impl Shared {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self { outbox: Mutex::new(outbox), wake: Notify::new(), temperature: AtomicI32::new(UNKNOWN) }
    }

    /// Runs `work` on the outbox. All of its methods are short: nobody waits here for the network.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        work(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.with(Outbox::close);
        self.wake();
    }

    pub(super) fn temperature(&self) -> Option<f64> {
        let milli = self.temperature.load(Ordering::Relaxed);
        (milli != UNKNOWN).then(|| f64::from(milli) / 1000.0)
    }
}

/// How a connection ended.
enum End {
    /// As we wished.
    Left,
    /// It failed.
    Failed(Cause),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    plan: Plan,
    broker: String,
    birth: Option<String>,
    /// Without any event for this long, the connection is dead. rumqttc's own limit does not hold while it writes.
    patience: Duration,
    delays: Delays,
    held: Duration,
    thermometer: Option<Thermometer>,
    /// The cause logged last, until a connection succeeds.
    logged: Option<Cause>,
}

impl Worker {
    pub(super) fn new(
        options: Options,
        topics: Topics,
        tls: Option<Arc<ClientConfig>>,
        login: Option<(String, String)>,
        thermometer: Option<Thermometer>,
        shared: Arc<Shared>,
    ) -> Self {
        // A second connection of the same id would throw the first one out: the suffix differs in each run.
        let client_id = format!("ghostlight-{}-{:08x}", options.device, random() as u32);
        Self {
            shared,
            plan: Plan::new(&options, Some(&topics.availability), &client_id, tls, login),
            broker: options.broker(),
            birth: topics.birth,
            patience: options.keep_alive * PINGS,
            delays: Delays::new(options.backoff),
            held: options.backoff.first * HELD,
            thermometer,
            logged: None,
        }
    }

    /// Until [`Shared::stop`].
    pub(super) fn run(mut self, runtime: Runtime) {
        runtime.block_on(self.live());
        // A name being resolved cannot be interrupted; it ends by itself, with nobody waiting for it.
        runtime.shutdown_background();
    }

    async fn live(&mut self) {
        loop {
            let began = Instant::now();
            let end = Session::run(self).await;
            self.shared.with(Outbox::disconnected);
            let End::Failed(cause) = end else { return };
            if began.elapsed() >= self.held {
                self.delays.reset();
            }
            let delay = self.delays.next(cause.is_lasting());
            self.log(cause, delay);
            if !self.pause(delay).await {
                return;
            }
        }
    }

    fn closing(&self) -> bool {
        self.shared.with(|outbox| outbox.is_closing())
    }

    /// Each cause once, until it changes or a connection succeeds.
    fn log(&mut self, cause: Cause, delay: Duration) {
        if self.logged.as_ref() != Some(&cause) {
            log::warn!("{}: {cause}. Trying again, next in {:.1} s", self.broker, delay.as_secs_f64());
            self.logged = Some(cause);
        }
    }

    /// Waits; false when asked to stop.
    async fn pause(&self, delay: Duration) -> bool {
        let over = sleep(delay);
        tokio::pin!(over);
        loop {
            if self.closing() {
                return false;
            }
            tokio::select! {
                () = &mut over => return true,
                () = self.shared.wake.notified() => {}
            }
        }
    }

    fn read_temperature(&self) {
        if let Some(celsius) = self.thermometer.as_ref().and_then(Thermometer::celsius) {
            self.shared.temperature.store((celsius * 1000.0) as i32, Ordering::Relaxed);
        }
    }
}

/// One connection.
struct Session<'a> {
    worker: &'a mut Worker,
    sender: Sender,
    /// rumqttc has a request that it has not written yet.
    busy: bool,
    /// The subscription is to be made.
    subscribe: bool,
    /// The goodbye is said.
    leaving: bool,
}

impl Session<'_> {
    async fn run(worker: &mut Worker) -> End {
        let (sender, mut runner) = worker.plan.open();
        let mut session = Session { worker, sender, busy: false, subscribe: false, leaving: false };
        session.drive(&mut runner).await
    }

    async fn drive(&mut self, runner: &mut Runner) -> End {
        let mut connected = false;
        let mut farewell: Option<Instant> = None;
        let mut temperature_due = Instant::now();
        let mut patience = self.worker.patience;
        loop {
            let mut silent = Instant::now() + patience;
            let next = runner.next();
            tokio::pin!(next);
            let happened = loop {
                let now = Instant::now();
                if self.worker.closing() {
                    if !connected {
                        return End::Left;
                    }
                    farewell.get_or_insert(now + FAREWELL);
                }
                if farewell.is_some_and(|end| now >= end) {
                    return End::Left;
                }
                // Pings may be answered where publishes are not.
                if let Some(since) = self.worker.shared.with(|outbox| outbox.waits_since()) {
                    silent = silent.min(since + patience);
                }
                // Establishing a connection has rumqttc's own limit.
                if connected && now >= silent {
                    return End::Failed(Cause::Silent);
                }
                if now >= temperature_due {
                    self.worker.read_temperature();
                    temperature_due = now + TEMPERATURE_PERIOD;
                }
                if connected && !self.busy {
                    self.hand_over(now);
                }
                let due = self.worker.shared.with(|outbox| outbox.next_due()).filter(|due| *due > now);
                let limits = [farewell, due, Some(temperature_due), connected.then_some(silent)];
                let until = limits.into_iter().flatten().min().unwrap_or(now + IDLE);
                tokio::select! {
                    happened = &mut next => break happened,
                    () = self.worker.shared.wake.notified() => {}
                    () = sleep_until(until.into()) => {}
                }
            };
            match happened {
                Ok(Happened::Left) => return End::Left,
                Ok(Happened::Connected { limit, keep_alive }) => {
                    connected = true;
                    patience = keep_alive.map_or(patience, |between| between * PINGS);
                    self.connected(limit);
                }
                Ok(happened) => self.note(happened),
                Err(_) if self.leaving => return End::Left,
                Err(cause) => return End::Failed(cause),
            }
        }
    }

    fn connected(&mut self, limit: Option<usize>) {
        log::info!("{}: connected", self.worker.broker);
        self.worker.logged = None;
        self.subscribe = self.worker.birth.is_some();
        self.worker.shared.with(|outbox| outbox.connected(limit));
    }

    /// Hands the next request to rumqttc, which has none.
    fn hand_over(&mut self, now: Instant) {
        let shared = &self.worker.shared;
        if self.subscribe
            && let Some(topic) = &self.worker.birth
        {
            self.subscribe = false;
            self.busy = self.sender.subscribe(topic).is_ok();
            return;
        }
        if let Some(message) = shared.with(|outbox| outbox.next(now)) {
            self.busy = self.sender.publish(&message).is_ok();
            if !self.busy {
                shared.with(Outbox::rejected);
            }
        } else if !self.leaving && shared.with(|outbox| outbox.is_done()) {
            self.leaving = true;
            self.busy = self.sender.leave().is_ok();
        }
    }

    fn note(&mut self, happened: Happened) {
        let shared = &self.worker.shared;
        match happened {
            Happened::Written(packet) => {
                self.busy = false;
                shared.with(|outbox| outbox.written(packet, Instant::now()));
            }
            Happened::Subscribed => self.busy = false,
            Happened::Acknowledged { packet, taken } => {
                shared.with(|outbox| outbox.acknowledged(packet, taken));
            }
            Happened::Pinged => shared.with(Outbox::pinged),
            Happened::Ponged => shared.with(Outbox::ponged),
            Happened::Received { topic, payload } => {
                if Some(&topic) == self.worker.birth.as_ref() && payload == b"online" {
                    log::info!("Home Assistant has started: discovery goes out again");
                    shared.with(Outbox::republish);
                }
            }
            Happened::Connected { .. } | Happened::Left | Happened::Other => {}
        }
    }
}
