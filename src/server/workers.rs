//! Worker threads: one current-thread runtime each. They share nothing but counters, the failure log and the
//! drain stage.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use super::accept::accept;
use super::connection::Worker;
use super::drain::{DrainStage, drain};
use super::failure_log::FailureLog;
use super::listen::{ListenerKind, WorkerListener};
use super::timeouts::ConnectionTable;
use super::{Listeners, MakeHandler, ServerCounters, ServerLimits, TlsCertificates};

/// What all connections of a group of workers have in common.
#[derive(Clone)]
pub struct ServerOptions {
    /// Names the threads: `{name}-0`, `{name}-1`, …; Linux shows 15 letters.
    pub name: &'static str,
    pub limits: ServerLimits,
    /// Whose PROXY header is believed, and whose own address identifies nobody.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Needed where a listener is one for TLS.
    pub tls: Option<Arc<TlsCertificates>>,
    /// Needed where a listener is a forward proxy; of a private CA.
    pub forward_proxy: Option<Arc<TlsCertificates>>,
    /// One set for each group: `max_connections` is kept by the gauge in it.
    pub counters: Arc<ServerCounters>,
}

/// How a group of workers ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that had to be cut because their requests did not end in time.
    pub cut: usize,
    /// Workers that ended by themselves: a bug of ours.
    pub lost_workers: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerStartError {
    #[error("a worker thread cannot be started: {0}")]
    WorkerThread(io::Error),
    #[error("a listener for TLS needs a certificate and a key")]
    NoCertificate,
}

/// A running group. Dropped, it stops at once.
pub struct Workers {
    stage: watch::Sender<DrainStage>,
    running: usize,
    exits: mpsc::UnboundedReceiver<WorkerExit>,
    report: DrainReport,
}

impl Workers {
    pub fn start<M: MakeHandler>(
        listeners: Listeners,
        options: ServerOptions,
        make: Arc<M>,
    ) -> Result<Self, ServerStartError> {
        let has_proxy_hosts = options.forward_proxy.as_ref().is_some_and(|proxy| proxy.hosts().is_some());
        if (options.tls.is_none() && !listeners.addrs(ListenerKind::Tls).is_empty())
            || (!has_proxy_hosts && !listeners.addrs(ListenerKind::ForwardProxy).is_empty())
        {
            return Err(ServerStartError::NoCertificate);
        }
        let stage = watch::Sender::new(DrainStage::Serving);
        let (exits_sender, exits) = mpsc::unbounded_channel();
        let shares = listeners.into_shares();
        let running = shares.len();
        let failure_log = Arc::new(FailureLog::default());
        for (number, share) in shares.into_iter().enumerate() {
            let thread = WorkerThread {
                number,
                share,
                options: options.clone(),
                stage: stage.subscribe(),
                failure_log: failure_log.clone(),
            };
            thread.start(make.clone(), ExitNotifier { cut: None, exits_sender: exits_sender.clone() })?;
        }
        Ok(Self { stage, running, exits, report: DrainReport::default() })
    }

    /// Stops accepting, serves what has come, and ends when the last request is responded to or
    /// `drain_timeout` is over.
    pub fn drain(&self) {
        self.forward_to(DrainStage::Draining);
    }

    /// Cuts every connection now.
    pub fn stop(&self) {
        self.forward_to(DrainStage::Stopped);
    }

    /// Returns when all workers have ended. One that fails takes the others into a drain: a gateway that
    /// serves with half its workers helps nobody, and the service manager starts a complete one.
    pub async fn ended(&mut self) -> DrainReport {
        while self.running > 0 {
            let end = self.exits.recv().await.unwrap_or(WorkerExit::Lost);
            self.running -= 1;
            match end {
                WorkerExit::Drained { cut } => self.report.cut += cut,
                WorkerExit::Lost => {
                    self.report.lost_workers += 1;
                    self.drain();
                }
            }
        }
        self.report
    }

    /// Serves until `drain` is ready, then drains, and stops at once if `stop` is ready before all is done.
    pub async fn run_until(mut self, drain: impl Future, stop: impl Future) -> DrainReport {
        tokio::select! {
            report = self.ended() => return report,
            _ = drain => {}
        }
        self.drain();
        tokio::select! {
            report = self.ended() => return report,
            _ = stop => {}
        }
        self.stop();
        self.ended().await
    }

    fn forward_to(&self, next: DrainStage) {
        self.stage.send_if_modified(|stage| {
            let forward = *stage < next;
            if forward {
                *stage = next;
            }
            forward
        });
    }
}

/// How one worker ended.
enum WorkerExit {
    Drained { cut: usize },
    Lost,
}

/// Tells how a worker ended, even if it ends by a panic.
struct ExitNotifier {
    cut: Option<usize>,
    exits_sender: mpsc::UnboundedSender<WorkerExit>,
}

impl ExitNotifier {
    fn drained(&mut self, cut: usize) {
        self.cut = Some(cut);
    }
}

impl Drop for ExitNotifier {
    fn drop(&mut self) {
        // Fails when the group was dropped.
        let _ = self.exits_sender.send(self.cut.map_or(WorkerExit::Lost, |cut| WorkerExit::Drained { cut }));
    }
}

/// One worker, on its way to its thread.
struct WorkerThread {
    number: usize,
    share: Vec<WorkerListener>,
    options: ServerOptions,
    stage: watch::Receiver<DrainStage>,
    failure_log: Arc<FailureLog>,
}

impl WorkerThread {
    fn start<M: MakeHandler>(
        self,
        make: Arc<M>,
        mut exit_notifier: ExitNotifier,
    ) -> Result<(), ServerStartError> {
        let name = format!("{}-{}", self.options.name, self.number);
        // The runtime cannot leave the thread that builds it, so its failure has to be reported from there.
        let (built_sender, built) = std::sync::mpsc::channel();
        let work =
            move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = built_sender.send(Ok(()));
                    exit_notifier.drained(runtime.block_on(self.serve(&*make)));
                }
                Err(error) => {
                    let _ = built_sender.send(Err(error));
                }
            };
        std::thread::Builder::new().name(name).spawn(work).map_err(ServerStartError::WorkerThread)?;
        let built = built.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")));
        built.map_err(ServerStartError::WorkerThread)
    }

    /// Returns how many connections had to be cut.
    async fn serve<M: MakeHandler>(self, make: &M) -> usize {
        let ServerOptions { limits, trusted_proxies, tls, forward_proxy, counters, .. } = self.options;
        let handler = Rc::new(make.make(self.number));
        let connections = ConnectionTable::new(limits.clone());
        let worker = Rc::new(Worker {
            render_refusal: Worker::refusal_renderer(&handler),
            handler,
            connections: connections.clone(),
            counters,
            trusted_proxies,
            tls,
            forward_proxy,
            failure_log: self.failure_log,
            limits: limits.clone(),
        });
        tokio::task::spawn_local(connections.clone().run());
        let acceptors: Vec<_> = self
            .share
            .into_iter()
            .map(|listener| tokio::task::spawn_local(accept(worker.clone(), listener, self.stage.clone())))
            .collect();
        for acceptor in acceptors {
            if let Ok(Err(error)) = acceptor.await {
                tracing::error!(%error, worker = self.number, "a listener failed");
            }
        }
        drain(&connections, self.stage, limits.drain_timeout).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_never_goes_back() {
        let (_tell_end, exits) = mpsc::unbounded_channel();
        let stage = watch::Sender::new(DrainStage::Serving);
        let workers = Workers { stage, running: 0, exits, report: DrainReport::default() };
        workers.stop();
        workers.drain();
        assert_eq!(*workers.stage.borrow(), DrainStage::Stopped);
    }
}
