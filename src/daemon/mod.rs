//! The daemon: capture → newest frame → detections → sinks, under systemd's eyes.
//!
//! ```text
//! capture thread ── Slot (newest frame) ── compute thread ── Queue ── lines thread → file or standard output
//!                                                       └── Mqtt's outbox (own thread)
//! main thread: signals, reloading, status
//! ```
//!
//! No thread waits for a slower one behind it: frames and lines that nobody took give way to newer ones and
//! are counted. A finite source is the exception: nothing of it is lost.

mod capture;
mod compute;
mod lines;
mod notify;
mod queue;
mod report;
mod signals;
mod slot;
mod supervise;

use std::path::PathBuf;

use crate::config::{Loaded, Source as SourceConfig, Watch};
use crate::source::{Source, SourceError};
use crate::vision::{Detection, NmsOptions, Pixels};

pub use report::StageTimes;
pub use supervise::{host_name, run};

/// A network that looks at pictures.
pub trait Network: Send {
    /// `NAME@HASH`, as lines name it.
    fn id(&self) -> &str;

    /// Class names, by class id.
    fn classes(&self) -> &[String];

    /// Detections in a picture, the most confident first.
    ///
    /// # Errors
    /// A picture that cannot be computed, in words.
    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Look, String>;
}

/// What [`Network::detect`] found.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Detections.
    pub detections: Vec<Detection>,
    /// How long it took.
    pub times: StageTimes,
}

/// What the daemon asks of the command that runs it: to read and to open.
pub trait Host {
    /// Reads the configuration again.
    ///
    /// # Errors
    /// Every fault, a line each.
    fn load(&mut self) -> Result<Loaded, Vec<String>>;

    /// Opens the model of a configuration, and looks its classes up. Without a model where the one that was
    /// opened last is still the same.
    ///
    /// # Errors
    /// Every fault, a line each.
    fn open_model(&mut self, loaded: &Loaded) -> Result<Opened, Vec<String>>;

    /// The model opened last is not used after all.
    fn forget_model(&mut self);

    /// How the capture thread opens the source.
    fn opener(&self) -> Opener;
}

/// A model that was opened.
pub struct Opened {
    /// `None` where the last one stays.
    pub network: Option<Box<dyn Network>>,
    /// What to look for with it.
    pub watch: Watch,
}

/// Opens a source.
pub type Opener = Box<dyn FnMut(&SourceConfig) -> Result<Box<dyn Source>, SourceError> + Send>;

/// How the daemon ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal, at the stream's end, or because standard output was closed.
    Done,
    /// The source cannot be used as asked.
    Unfit(String),
    /// So many lines of a finite source could not be written.
    LinesLost(u64),
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file for lines cannot be opened.
    #[error("{}: cannot be written: {error}", path.display())]
    Lines {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// MQTT cannot be set up.
    #[error("[mqtt] {0}")]
    Mqtt(#[from] crate::sink::mqtt::MqttError),
    /// The metrics' server cannot be started.
    #[error("[metrics] {0}")]
    Metrics(#[from] crate::metrics::ServerError),
    /// The classes or zones cannot be watched.
    #[error("{0}")]
    Rules(#[from] crate::events::RulesError),
    /// A thread or a signal handler could not be set up.
    #[error("{0}")]
    System(#[from] std::io::Error),
}
