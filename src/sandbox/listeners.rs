//! Sockets and the tasks behind them. A place can be taken down and brought up again at the same address.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::place::Place;
use super::site::{Shared, Site};

/// Binds every place; `same_ports` go first, `ports` is the first of a row, None leaves the choice to the system.
pub async fn bind(
    ip: IpAddr,
    ports: Option<u16>,
    same_ports: &BTreeMap<Place, u16>,
    with_control: bool,
) -> anyhow::Result<Vec<(Place, TcpListener)>> {
    let mut bound = Vec::new();
    for (offset, place) in (0..).zip(Place::ALL) {
        if place == Place::Control && !with_control {
            continue;
        }
        let port = match (same_ports.get(&place), ports) {
            (Some(same), _) => *same,
            (None, Some(first)) => first.checked_add(offset).context("the row of ports ends beyond 65535")?,
            (None, None) => 0,
        };
        let listener = TcpListener::bind((ip, port)).await;
        bound.push((place, listener.with_context(|| format!("the sandbox cannot listen on {ip}:{port}"))?));
    }
    Ok(bound)
}

/// The running tasks, one per place; dropping it ends them and their connections.
pub struct Listeners {
    shared: Arc<Shared>,
    acceptor: Option<TlsAcceptor>,
    connections: Arc<AtomicU64>,
    tasks: Mutex<HashMap<Place, JoinHandle<()>>>,
}

impl Listeners {
    pub fn run(shared: Arc<Shared>, acceptor: Option<TlsAcceptor>, bound: Vec<(Place, TcpListener)>) -> Self {
        let listeners = Self { shared, acceptor, connections: Arc::default(), tasks: Mutex::default() };
        for (place, listener) in bound {
            listeners.spawn(place, listener);
        }
        listeners
    }

    /// Connections to the place break and new ones are refused.
    pub async fn take_down(&self, place: Place) {
        let task = self.tasks().remove(&place);
        if let Some(task) = task {
            task.abort();
            // The socket is closed when the task is gone, and not before.
            let _ = task.await;
        }
    }

    pub async fn bring_up(&self, place: Place) -> io::Result<()> {
        let address = self.address(place)?;
        self.take_down(place).await;
        self.spawn(place, TcpListener::bind(address).await?);
        Ok(())
    }

    pub async fn stop(&self) {
        for place in Place::ALL {
            self.take_down(place).await;
        }
    }

    fn address(&self, place: Place) -> io::Result<SocketAddr> {
        self.shared.addresses.get(&place).copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn spawn(&self, place: Place, listener: TcpListener) {
        let site = Arc::new(Site { place, shared: self.shared.clone() });
        let acceptor = self.acceptor.clone().filter(|_| place != Place::Control);
        let task = tokio::spawn(accept(site, listener, acceptor, self.connections.clone()));
        self.tasks().insert(place, task);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<Place, JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in self.tasks().values() {
            task.abort();
        }
    }
}

/// Its connections live in this task's set, so they end with it.
async fn accept(
    site: Arc<Site>,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    connections: Arc<AtomicU64>,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                    running.spawn(connection(site.clone(), stream, acceptor.clone(), number));
                }
                // Out of descriptors, most likely: let some connection end before the next try.
                Err(_) => {
                    running.join_next().await;
                }
            },
            Some(_) = running.join_next() => {}
        }
    }
}

async fn connection(site: Arc<Site>, stream: TcpStream, acceptor: Option<TlsAcceptor>, number: u64) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                site.converse(stream, number).await;
            }
        }
        None => site.converse(stream, number).await,
    }
}
