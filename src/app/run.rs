//! `serve`'s frame: runtime, logs, signals, drain.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{self, LoadedConfig};
use crate::server::notify::{self, Notice, Signal, Signals};
use crate::server::{DrainReport, InheritedSockets, descriptor_limit};
use crate::telemetry::{self, LogHandle};

use super::{ControlPlane, Running, allocator};

/// Store, renewals, scheduler, admin: rarely busy, but a page must not wait for a fsync.
const CONTROL_THREADS: usize = 2;
/// How long the end waits for a refresh under way and for tokens that the store has not taken yet.
const LAST_REFRESHES: Duration = Duration::from_secs(15);
/// How long for each of what the store is still to be told, when accounts were used and the journal, and for
/// it to close.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long for work that cannot be called off, such as a file that does not answer.
const LAST_BLOCKING: Duration = Duration::from_secs(1);
/// How long an end at once may take before the process ends without it.
const FORCED_EXIT_AFTER: Duration = Duration::from_secs(3);

/// Runs the gateway until SIGTERM or SIGINT has drained it; a second one stops it at once.
pub fn run_until_stopped(LoadedConfig { config, warnings, .. }: LoadedConfig) -> anyhow::Result<()> {
    // Before any thread: descriptors that are handed over are found in the environment.
    let mut inherited = InheritedSockets::from_service_manager().context("sockets of the service manager")?;
    let mut signals = Signals::listen_and(force_exit).context("signals cannot be listened to")?;
    let logs = telemetry::init(&config.log, &config::process_env)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    descriptor_limit::raise();
    allocator::keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control runtime cannot be started")?;
    let outcome = runtime.block_on(async {
        let starting = super::start(config, Clock::system(), &mut inherited);
        let running = tokio::select! {
            started = starting => started?,
            () = signals.stop() => {
                tracing::info!("stopped before all had started");
                return Ok(());
            }
        };
        allocator::give_back();
        announce(&running);
        serve(running, &mut signals, &logs).await;
        Ok(())
    });
    // Dropped, it would wait for a file that does not answer for as long as that does not.
    runtime.shutdown_timeout(LAST_BLOCKING);
    telemetry::flush();
    outcome
}

async fn serve(running: Running, signals: &mut Signals, logs: &LogHandle) {
    let watchdog = tokio::spawn(notify::feed_watchdog());
    loop {
        match signals.next().await {
            Signal::Stop => break,
            Signal::Reload => {
                let _ = notify::tell(Notice::Reloading);
                running.reload().await;
                if let Err(error) = logs.apply(&running.config().log) {
                    tracing::error!(%error, "the log's settings stay as they were");
                }
                let _ = notify::tell(Notice::Ready);
            }
        }
    }
    let _ = notify::tell(Notice::Stopping);
    watchdog.abort();
    tracing::info!("draining; a second signal stops at once");
    let report = running.stop_or_abort(signals.stop()).await;
    tracing::info!(cut = report.cut, "stopped");
}

/// After the second signal. What is under way has its time; then the process ends, whatever it is waiting
/// for.
fn force_exit() {
    std::thread::sleep(FORCED_EXIT_AFTER);
    std::process::exit(1);
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn announce(running: &Running) {
    let bound = &running.bound;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = listed(&bound.data),
        data_tls = listed(&bound.data_tls),
        forward_proxy = listed(&bound.forward_proxy),
        admin = listed(&bound.admin),
        public = listed(&bound.public),
        accounts = running.registry().len(),
        "ready"
    );
    let _ = notify::tell(Notice::Ready);
}

impl Running {
    /// Drains: what is under way is finished, then the rest is closed.
    pub async fn stop(self) -> DrainReport {
        self.stop_or_abort(std::future::pending()).await
    }

    /// Callers first, so that `/readyz` says "draining" to balancers meanwhile; the pages and the store last.
    async fn stop_or_abort(self, abort_signal: impl Future<Output = ()>) -> DrainReport {
        let Running { state, mut data, mut admin, public, tasks, .. } = self;
        state.lifecycle.health.start_draining();
        data.drain();
        tokio::pin!(abort_signal);
        let mut cut_short = false;
        let report = tokio::select! {
            report = data.ended() => report,
            () = &mut abort_signal => {
                cut_short = true;
                data.stop();
                data.ended().await
            }
        };
        end_tasks(tasks).await;
        let control = &state.control;
        control.renewals.stop_scheduler().await;
        if !cut_short {
            let finished = tokio::time::timeout(LAST_REFRESHES, control.renewals.finish());
            tokio::select! {
                finished = finished => if finished.is_err() {
                    tracing::error!("tokens could not be saved before the end: accounts may need a new login");
                },
                () = &mut abort_signal => {}
            }
        }
        // Dropping stops at once: nobody is promised a response from these pages.
        drop(public);
        admin.stop();
        admin.ended().await;
        control.write_remaining().await;
        report
    }
}

async fn end_tasks(tasks: Vec<JoinHandle<()>>) {
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        // What it had in hand is put back before the last writing looks for it.
        let _ = task.await;
    }
}

impl ControlPlane {
    async fn write_remaining(&self) {
        in_time("when accounts were last used", self.last_seen.write_at_once()).await;
        in_time("the journal's last lines", self.journal.flush()).await;
        if let Some(Err(error)) = in_time("the store's last changes", self.store.close()).await {
            tracing::error!(%error, "the store could not be closed in good order; nothing is lost by that");
        }
    }
}

/// A store that does not answer does not keep the process from ending.
async fn in_time<T>(what: &str, write: impl Future<Output = T>) -> Option<T> {
    let written = tokio::time::timeout(LAST_WRITES, write).await.ok();
    if written.is_none() {
        tracing::warn!("{what} could not be saved in time");
    }
    written
}
