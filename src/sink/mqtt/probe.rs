//! Whether a broker lets us in, without leaving a trace there.

use std::time::Duration;

use tokio::time::timeout;

use super::cause::Cause;
use super::link::{Happened, Plan, Runner, Sender};
use super::options::{Options, OptionsError};
use super::tls;
use crate::backoff::random;

/// Time for the goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// An option is wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No connection, or the broker does not let us in.
    #[error("{0}")]
    Broker(#[from] Cause),
    /// The runtime could not be started.
    #[error("the connection cannot be tried: {0}")]
    System(#[from] std::io::Error),
}

/// Connects as [`super::Mqtt`] does, for at most `patience`, and leaves again.
///
/// The client id is one of its own, and there is no last will: whoever is connected for this device stays so,
/// and nothing is published.
///
/// # Errors
/// [`ProbeError`], with what to do.
pub fn probe(options: &Options, patience: Duration) -> Result<(), ProbeError> {
    options.check()?;
    let transport = tls::client_config(options.tls.as_ref())?;
    // Begins as the daemon's: brokers may allow ids by their beginning.
    let client_id = format!("ghostlight-{}-{:08x}", options.device, random() as u32);
    let plan = Plan::new(options, None, &client_id, transport, options.login()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let (sender, mut runner) = plan.open();
        match timeout(patience, connected(&mut runner)).await {
            Err(_) => return Err(Cause::Silent),
            Ok(answer) => answer?,
        }
        // It has let us in: how the goodbye goes does not matter.
        let _ = timeout(FAREWELL, leave(&sender, &mut runner)).await;
        Ok(())
    });
    // A name being resolved cannot be interrupted; it ends by itself, with nobody waiting for it.
    runtime.shutdown_background();
    Ok(answer?)
}

async fn connected(runner: &mut Runner) -> Result<(), Cause> {
    loop {
        if let Happened::Connected { .. } = runner.next().await? {
            return Ok(());
        }
    }
}

async fn leave(sender: &Sender, runner: &mut Runner) {
    if sender.leave().is_err() {
        return;
    }
    while let Ok(happened) = runner.next().await {
        if happened == Happened::Left {
            return;
        }
    }
}
