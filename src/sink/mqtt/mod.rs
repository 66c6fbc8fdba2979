//! MQTT: detections, state and Home Assistant's discovery, by a thread of its own.
//!
//! ```text
//! pipeline → Mqtt (a lock held for a push) → outbox → worker → link (rumqttc, 3.1.1 or 5) → broker
//! ```
//!
//! The pipeline never waits for the network: detections go into a ring that drops its oldest, retained topics
//! into a slot that keeps their newest. A message leaves the outbox only when the broker has it; what becomes
//! of each is counted in [`Counts`]. `docs/mqtt.md` tells users about topics, losses and set-up.

mod cause;
pub mod home_assistant;
mod link;
mod options;
mod outbox;
mod probe;
mod state;
mod tls;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use crate::backoff::Backoff;
pub use cause::Cause;
pub use options::{Credentials, Options, OptionsError, Qos, Tls, Version};
pub use outbox::Counts;
pub use probe::{ProbeError, probe};
pub use state::{State, Thermometer};

use options::Topics;
use outbox::SlotId;
use worker::{Shared, Worker};

/// Why MQTT did not start. A broker that is away is no such reason: it is tried again until it answers.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// An option is wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The thread or its runtime could not be started.
    #[error("the MQTT thread does not start: {0}")]
    Thread(#[from] std::io::Error),
}

impl Options {
    /// Checks all that can be told without a connection, password and certificates among it.
    pub fn verify(&self) -> Result<(), OptionsError> {
        self.check()?;
        tls::client_config(self.tls.as_ref())?;
        self.login().map(drop)
    }
}

/// The connection to a broker. Its methods return at once, whatever the broker does.
///
/// Dropping it does what [`Mqtt::shutdown`] does.
#[derive(Debug)]
pub struct Mqtt {
    shared: Arc<Shared>,
    classes: Vec<String>,
    slots: Slots,
    thread: Option<JoinHandle<()>>,
}

/// Retained topics in the outbox.
#[derive(Debug)]
struct Slots {
    state: SlotId,
    /// One a class; empty without snapshots.
    snapshots: Vec<SlotId>,
}

impl Mqtt {
    /// Checks the options, reads password and certificates, and starts to connect.
    pub fn start(options: Options) -> Result<Self, MqttError> {
        options.check()?;
        let transport = tls::client_config(options.tls.as_ref())?;
        let login = options.login()?;
        let topics = Topics::of(&options);
        let temperature = state::Thermometer::find();

        let mut outbox = outbox::Outbox::new(&topics, options.qos, options.outbox, options.max_packet);
        if let Some(prefix) = &options.home_assistant {
            let config = home_assistant::discovery(&options, temperature.is_some());
            let topic = home_assistant::config_topic(prefix, &options.device);
            let slot = outbox.slot(topic.into());
            outbox.replace(slot, config.to_string().into_bytes());
        }
        let slots = Slots {
            state: outbox.slot(topics.state.clone()),
            snapshots: topics.snapshots.iter().map(|topic| outbox.slot(topic.clone())).collect(),
        };
        let shared = Arc::new(Shared::new(outbox));
        let classes = options.classes.clone();
        let worker = Worker::new(options, topics, transport, login, temperature, Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("mqtt".into()).spawn(move || worker.run(runtime))?;
        Ok(Self { shared, classes, slots, thread: Some(thread) })
    }

    /// Queues a detection line (without its newline). When the outbox is full, the oldest is dropped.
    pub fn publish_detections(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.shared.with(|outbox| outbox.push(line));
        self.shared.wake();
    }

    /// Replaces the state. Figures go out at most once a second, a change of presence at once.
    pub fn publish_state(&self, state: &State<'_>) {
        let payload = state.to_json(&self.classes, self.shared.temperature());
        let present = state.present.to_vec();
        self.shared.with(|outbox| outbox.set_state(self.slots.state, payload, present));
        self.shared.wake();
    }

    /// Replaces the retained picture of a class (its place in [`Options::classes`]).
    ///
    /// Ignored where snapshots are off, the class is not among the options', or the picture exceeds
    /// [`Options::max_packet`] (logged).
    pub fn publish_snapshot(&self, class: usize, jpeg: Vec<u8>) {
        let Some(&slot) = self.slots.snapshots.get(class) else { return };
        self.shared.with(|outbox| outbox.replace(slot, jpeg));
        self.shared.wake();
    }

    /// What became of the messages so far.
    pub fn counts(&self) -> Counts {
        self.shared.with(|outbox| outbox.counts())
    }

    /// A handle that reads the counts, for metrics.
    pub fn counter(&self) -> impl Fn() -> Counts + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.with(|outbox| outbox.counts())
    }

    /// Sends what is queued and `offline`, for at most a second, and disconnects. Returns the final counts, in
    /// which what could not be sent is dropped.
    pub fn shutdown(mut self) -> Counts {
        self.stop();
        self.counts()
    }

    fn stop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the MQTT thread ended by a bug of ours");
        }
        self.shared.with(|outbox| outbox.give_up());
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.stop();
    }
}
