//! Sockets and the tasks behind them. A host can be taken down and brought up again at the same address.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::context::{SandboxContext, VirtualHost};
use super::host_role::HostRole;

/// Binds every host; `same_ports` go first, `ports` is the first of a
/// row, None leaves the choice to the system.
pub async fn bind(
    ip: IpAddr,
    ports: Option<u16>,
    same_ports: &BTreeMap<HostRole, u16>,
    with_control: bool,
) -> anyhow::Result<Vec<(HostRole, TcpListener)>> {
    let mut bound = Vec::new();
    for (offset, role) in (0..).zip(HostRole::ALL) {
        if role == HostRole::Control && !with_control {
            continue;
        }
        let port = match (same_ports.get(&role), ports) {
            (Some(same), _) => *same,
            (None, Some(first)) => first.checked_add(offset).context("the row of ports ends beyond 65535")?,
            (None, None) => 0,
        };
        let listener = TcpListener::bind((ip, port)).await;
        bound.push((role, listener.with_context(|| format!("the sandbox cannot listen on {ip}:{port}"))?));
    }
    Ok(bound)
}

/// The running tasks, one per host; dropping it ends them and their connections.
pub struct HostListeners {
    context: Arc<SandboxContext>,
    acceptor: Option<TlsAcceptor>,
    connections: Arc<AtomicU64>,
    tasks: Mutex<HashMap<HostRole, JoinHandle<()>>>,
}

impl HostListeners {
    pub fn run(
        context: Arc<SandboxContext>,
        acceptor: Option<TlsAcceptor>,
        bound: Vec<(HostRole, TcpListener)>,
    ) -> Self {
        let listeners = Self { context, acceptor, connections: Arc::default(), tasks: Mutex::default() };
        for (role, listener) in bound {
            listeners.spawn(role, listener);
        }
        listeners
    }

    /// Connections to the host break and new ones are refused.
    pub async fn take_down(&self, role: HostRole) {
        let task = self.tasks().remove(&role);
        if let Some(task) = task {
            task.abort();
            // The socket is closed when the task is gone, and not before.
            let _ = task.await;
        }
    }

    pub async fn bring_up(&self, role: HostRole) -> io::Result<()> {
        let address = self.address(role)?;
        self.take_down(role).await;
        self.spawn(role, TcpListener::bind(address).await?);
        Ok(())
    }

    pub async fn stop(&self) {
        for role in HostRole::ALL {
            self.take_down(role).await;
        }
    }

    fn address(&self, role: HostRole) -> io::Result<SocketAddr> {
        self.context.addresses.get(&role).copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn spawn(&self, role: HostRole, listener: TcpListener) {
        let host = Arc::new(VirtualHost { role, context: self.context.clone() });
        let acceptor = self.acceptor.clone().filter(|_| role != HostRole::Control);
        let task = tokio::spawn(accept(host, listener, acceptor, self.connections.clone()));
        self.tasks().insert(role, task);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<HostRole, JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HostListeners {
    fn drop(&mut self) {
        for task in self.tasks().values() {
            task.abort();
        }
    }
}

/// Its connections live in this task's set, so they end with it.
async fn accept(
    host: Arc<VirtualHost>,
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
                    running.spawn(connection(host.clone(), stream, acceptor.clone(), number));
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

async fn connection(host: Arc<VirtualHost>, stream: TcpStream, acceptor: Option<TlsAcceptor>, number: u64) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                host.serve_connection(stream, number).await;
            }
        }
        None => host.serve_connection(stream, number).await,
    }
}
