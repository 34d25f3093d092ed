//! Graceful shutdown of one worker: running requests are finished, then what is left is cut.

use std::time::Duration;

use tokio::sync::watch;

use super::timeouts::ConnectionTable;

/// How far a group of workers has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainStage {
    Serving,
    Draining,
    Stopped,
}

/// How long connections may take to notice that they were cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn drain(
    connections: &ConnectionTable,
    mut stage: watch::Receiver<DrainStage>,
    drain_timeout: Duration,
) -> usize {
    // A worker without listeners has no connections either, and still waits for the signal.
    let _ = stage.wait_for(|stage| *stage != DrainStage::Serving).await;
    connections.drain();
    tokio::select! {
        () = connections.until_empty() => {}
        () = tokio::time::sleep(drain_timeout) => {}
        _ = stage.wait_for(|stage| *stage == DrainStage::Stopped) => {}
    }
    let cut = connections.stop_all();
    let _ = tokio::time::timeout(CUT_TIMEOUT, connections.until_empty()).await;
    cut
}
