//! The broker: reached, entered and left again.

use std::time::Duration;

use super::report::Line;
use crate::config::Config;
use crate::daemon;
use crate::sink::mqtt::{self, Options};

/// Longest wait for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries the configuration's broker.
pub fn look(config: &Config) -> Line {
    const CHECK: &str = "broker";
    let Some(options) = &config.mqtt else {
        return Line::ok(CHECK, "none: [mqtt] is not enabled");
    };
    let device = config.device.clone().unwrap_or_else(daemon::host_name);
    let options = Options { device, ..options.clone() };
    let broker = options.broker();
    match mqtt::probe(&options, PATIENCE) {
        Ok(()) => Line::ok(CHECK, format!("{broker} lets us in{}", as_whom(&options))),
        Err(error) => Line::warning(CHECK, format!("{broker}: {error}")),
    }
}

fn as_whom(options: &Options) -> String {
    options.credentials.as_ref().map_or_else(String::new, |user| format!(" as '{}'", user.username))
}
