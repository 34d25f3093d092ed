//! Accepts connections, closes idle ones to make room, and rejects where there is none. Never stops listening
//! while it serves.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Handler;
use super::closer::linger;
use super::connection::{self, ConnectionGuard, Worker};
use super::drain::DrainStage;
use super::listen::{ListenerKind, WorkerListener};
use super::refusal::ServerRefusal;

/// How long to wait when the process is out of descriptors or memory; trying again at once would only burn
/// the CPU.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Rejections that one worker writes at the same time. Beyond it connections are just closed.
const MAX_CONCURRENT_REJECTIONS: usize = 64;

/// Accepts until the stage changes, then takes what the kernel has queued: those callers believe to be
/// connected.
pub(super) async fn accept<H: Handler>(
    worker: Rc<Worker<H>>,
    listener: WorkerListener,
    mut stage: watch::Receiver<DrainStage>,
) -> io::Result<()> {
    let acceptor = Acceptor { worker, kind: listener.kind, rejecting: Rc::new(Cell::new(0)) };
    let listener = TcpListener::from_std(listener.socket)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stage.wait_for(|stage| *stage != DrainStage::Serving) => break,
        };
        match accepted {
            Ok((tcp, addr)) => acceptor.start_connection(tcp, addr),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                acceptor.worker.counters.accept_errors.add();
                tracing::warn!(%error, "cannot accept connections");
                acceptor.worker.connections.evict_idle();
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Asked directly: the runtime may not have heard of the last arrivals yet.
    let listener = listener.into_std()?;
    while let Ok((tcp, addr)) = listener.accept() {
        tcp.set_nonblocking(true)?;
        acceptor.start_connection(TcpStream::from_std(tcp)?, addr);
    }
    Ok(())
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

struct Acceptor<H> {
    worker: Rc<Worker<H>>,
    kind: ListenerKind,
    rejecting: Rc<Cell<usize>>,
}

impl<H: Handler> Acceptor<H> {
    /// When all places are taken, whoever has been idle the longest goes. If none is idle, the newcomer is
    /// told so.
    fn start_connection(&self, tcp: TcpStream, addr: SocketAddr) {
        let worker = &self.worker;
        worker.counters.accepted.add();
        let open = worker.counters.open.enter();
        if open >= worker.limits.max_connections as u64 && !worker.connections.evict_idle() {
            worker.counters.open.leave();
            worker.counters.connection_limit.add();
            return self.reject(tcp);
        }
        let guard = ConnectionGuard::new(&worker.connections, &worker.counters);
        tokio::task::spawn_local(connection::run(worker.clone(), guard, tcp, addr, self.kind));
    }

    fn reject(&self, mut tcp: TcpStream) {
        // A TLS handshake would cost more than the request that it refuses.
        if self.kind == ListenerKind::Tls || self.rejecting.get() >= MAX_CONCURRENT_REJECTIONS {
            return;
        }
        self.rejecting.set(self.rejecting.get() + 1);
        let rejecting = self.rejecting.clone();
        let refusal = (self.worker.render_refusal)(ServerRefusal::TooManyConnections);
        tokio::task::spawn_local(async move {
            // It fits into the empty buffer of a new socket; whoever has gone does not need it.
            if tcp.write_all(&refusal).await.is_ok() && tcp.shutdown().await.is_ok() {
                linger(&mut tcp).await;
            }
            rejecting.set(rejecting.get() - 1);
        });
    }
}
