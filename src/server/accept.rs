//! From a listening socket to connections: admits, makes room, turns away. Never stops listening while it serves.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Handler;
use super::connection::{self, Admitted, Worker};
use super::ending::linger;
use super::listen::WorkerListener;
use super::refusal::ServerRefusal;
use super::workers::Stage;

/// How long to wait when the process is out of descriptors or memory; trying again at once would only burn the CPU.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Callers that are told at the same time, on one worker, that there is no room. Beyond it connections just close.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// Accepts until the stage changes, then takes what the kernel has queued: those callers believe to be connected.
pub(super) async fn accept<H: Handler>(
    worker: Rc<Worker<H>>,
    listener: WorkerListener,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let door = Door { worker, tls: listener.tls, turning_away: Rc::new(Cell::new(0)) };
    let listener = TcpListener::from_std(listener.socket)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stage.wait_for(|stage| *stage != Stage::Serving) => break,
        };
        match accepted {
            Ok((tcp, addr)) => door.admit(tcp, addr),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                door.worker.counters.accept_errors.add();
                tracing::warn!(%error, "cannot accept connections");
                door.worker.rounds.evict_idle();
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    // Asked directly: the runtime may not have heard of the last arrivals yet.
    let listener = listener.into_std()?;
    while let Ok((tcp, addr)) = listener.accept() {
        tcp.set_nonblocking(true)?;
        door.admit(TcpStream::from_std(tcp)?, addr);
    }
    Ok(())
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

struct Door<H> {
    worker: Rc<Worker<H>>,
    tls: bool,
    turning_away: Rc<Cell<usize>>,
}

impl<H: Handler> Door<H> {
    /// When all places are taken, whoever has been idle the longest goes. If none is idle, the newcomer is told so.
    fn admit(&self, tcp: TcpStream, addr: SocketAddr) {
        let worker = &self.worker;
        worker.counters.accepted.add();
        let open = worker.counters.open.enter();
        if open >= worker.limits.max_connections as u64 && !worker.rounds.evict_idle() {
            worker.counters.open.leave();
            worker.counters.refused_full.add();
            return self.turn_away(tcp);
        }
        let admitted = Admitted::new(&worker.rounds, &worker.counters);
        tokio::task::spawn_local(connection::run(worker.clone(), admitted, tcp, addr, self.tls));
    }

    fn turn_away(&self, mut tcp: TcpStream) {
        // A TLS handshake would cost more than the request that it refuses.
        if self.tls || self.turning_away.get() >= TURNED_AWAY_AT_ONCE {
            return;
        }
        self.turning_away.set(self.turning_away.get() + 1);
        let turning_away = self.turning_away.clone();
        let words = (self.worker.words)(ServerRefusal::TooManyConnections);
        tokio::task::spawn_local(async move {
            // It fits into the empty buffer of a new socket; whoever has gone does not need it.
            if tcp.write_all(&words).await.is_ok() && tcp.shutdown().await.is_ok() {
                linger(&mut tcp).await;
            }
            turning_away.set(turning_away.get() - 1);
        });
    }
}
