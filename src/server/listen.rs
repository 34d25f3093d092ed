//! Bound sockets. A port that someone else has is an error, never shared in silence.
//!
//! Each worker gets a socket of its own (SO_REUSEPORT, Linux spreads connections over them); a socket handed
//! over by the service manager, and every socket where the system cannot spread, is shared by all workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that wait in the kernel for a worker. The kernel lowers it to its own `somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{addr} is already in use; stop the other program (`ss -ltnp` names it) or listen elsewhere")]
    InUse { addr: SocketAddr },
    #[error(
        "{addr} needs the right to use ports below 1024 (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    )]
    NotPermitted { addr: SocketAddr },
    #[error("{addr} is no address of this machine")]
    NotOurs { addr: SocketAddr },
    #[error("{addr} cannot be listened on: {error}")]
    Other { addr: SocketAddr, error: io::Error },
}

/// The sockets of one group of workers, bound and listening.
#[derive(Debug)]
pub struct Listeners {
    workers: usize,
    bound: Vec<BoundAddress>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    Plain,
    Tls,
    /// Requests for the hosts of a private CA, in a tunnel or by URL.
    ForwardProxy,
}

#[derive(Debug)]
struct BoundAddress {
    addr: SocketAddr,
    kind: ListenerKind,
    /// One for each worker.
    sockets: Vec<TcpListener>,
}

/// One worker's share.
pub(super) struct WorkerListener {
    pub(super) socket: TcpListener,
    pub(super) kind: ListenerKind,
}

impl Listeners {
    /// For `workers` workers, at least one.
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), bound: Vec::new() }
    }

    /// Takes the socket for `addr` from what the service manager handed over, else binds it. Port 0 takes a
    /// free port.
    pub fn listen(
        &mut self,
        addr: SocketAddr,
        kind: ListenerKind,
        inherited: &mut InheritedSockets,
    ) -> Result<(), BindError> {
        let bound = match inherited.take(addr) {
            Some(socket) => share(socket, self.workers),
            None => bind(addr, self.workers),
        };
        let (addr, sockets) = bound.map_err(|error| explain(addr, error))?;
        self.bound.push(BoundAddress { addr, kind, sockets });
        Ok(())
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The addresses of one kind of listener.
    pub fn addrs(&self, kind: ListenerKind) -> Vec<SocketAddr> {
        self.bound.iter().filter(|bound| bound.kind == kind).map(|bound| bound.addr).collect()
    }

    pub(super) fn into_shares(self) -> Vec<Vec<WorkerListener>> {
        let mut shares: Vec<Vec<WorkerListener>> = (0..self.workers).map(|_| Vec::new()).collect();
        for bound in self.bound {
            for (share, socket) in shares.iter_mut().zip(bound.sockets) {
                share.push(WorkerListener { socket, kind: bound.kind });
            }
        }
        shares
    }
}

fn explain(addr: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { addr },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { addr },
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs { addr },
        _ => BindError::Other { addr, error },
    }
}

fn bind(addr: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // The first bind is exclusive: it fails if anyone else has the port, another gateway of the same user
    // included.
    let first = socket(addr)?;
    first.bind(&addr.into())?;
    #[cfg(target_os = "linux")]
    {
        let first: TcpListener = first.into();
        let addr = first.local_addr()?;
        // Only now are further sockets welcome. Linux compares the flags of the sockets as they are at each
        // bind, so the port is never let go in between, which matters most for port 0.
        SockRef::from(&first).set_reuse_port(true)?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            let next = socket(addr)?;
            next.set_reuse_port(true)?;
            next.bind(&addr.into())?;
            sockets.push(next.into());
        }
        for socket in &sockets {
            SockRef::from(socket).listen(BACKLOG)?;
        }
        Ok((addr, sockets))
    }
    #[cfg(not(target_os = "linux"))]
    {
        first.listen(BACKLOG)?;
        share(first.into(), workers)
    }
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this option would let others take the port; on Unix it only ignores connections of a former
    // life.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn share(socket: TcpListener, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    socket.set_nonblocking(true)?;
    let addr = socket.local_addr()?;
    let mut sockets = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    sockets.push(socket);
    Ok((addr, sockets))
}

/// Listening sockets that the service manager handed over (`LISTEN_FDS`).
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl InheritedSockets {
    /// None at all: for listeners that are always bound here.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes ownership of the descriptors, so it is called once in the life of the process, before anything
    /// else opens descriptors under these numbers.
    #[cfg(unix)]
    pub fn from_service_manager() -> io::Result<Self> {
        use std::os::fd::FromRawFd;

        let mut sockets = Vec::new();
        for fd in sd_notify::listen_fds()? {
            // SAFETY: the service manager opened this descriptor for this very process (`listen_fds` compares
            // LISTEN_PID) and nothing else in the process refers to it.
            #[allow(unsafe_code)]
            let socket = unsafe { Socket::from_raw_fd(fd) };
            if socket.r#type()? == Type::STREAM && socket.is_listener()? {
                let socket: TcpListener = socket.into();
                sockets.push((socket.local_addr()?, socket));
            }
        }
        Ok(Self { sockets })
    }

    #[cfg(not(unix))]
    pub fn from_service_manager() -> io::Result<Self> {
        Ok(Self::none())
    }

    /// Addresses that no `listen` has asked for: a likely slip in the unit file.
    pub fn unclaimed(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(addr, _)| *addr).collect()
    }

    /// The socket for this very address, or one for all addresses with its port: `ListenStream=8080` means
    /// `[::]:8080`.
    fn take(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        if wanted.port() == 0 {
            return None;
        }
        let exact = self.sockets.iter().position(|(addr, _)| *addr == wanted);
        let wildcard = || {
            self.sockets
                .iter()
                .position(|(addr, _)| addr.ip().is_unspecified() && addr.port() == wanted.port())
        };
        let index = exact.or_else(wildcard)?;
        Some(self.sockets.swap_remove(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn listen(addr: SocketAddr, workers: usize) -> Result<Listeners, BindError> {
        let mut listeners = Listeners::new(workers);
        listeners.listen(addr, ListenerKind::Plain, &mut InheritedSockets::none()).map(|()| listeners)
    }

    #[test]
    fn workers_share_a_free_port_and_nobody_else_gets_it() {
        let ours = listen(any(), 3).unwrap();
        let addr = ours.addrs(ListenerKind::Plain)[0];
        assert_ne!(addr.port(), 0);
        assert_eq!(ours.bound[0].sockets.len(), 3);
        let error = listen(addr, 2).unwrap_err();
        assert!(matches!(error, BindError::InUse { addr: taken } if taken == addr));
        assert!(error.to_string().contains("already in use"));
        drop(ours);
        listen(addr, 2).unwrap();
    }

    #[test]
    fn an_address_that_is_not_ours_says_so() {
        let error = listen("203.0.113.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, BindError::NotOurs { .. }), "{error}");
    }

    #[test]
    fn a_socket_that_was_handed_over_is_shared_by_all_workers() {
        let socket = TcpListener::bind(any()).unwrap();
        let addr = socket.local_addr().unwrap();
        let other = TcpListener::bind(any()).unwrap();
        let other_addr = other.local_addr().unwrap();
        let mut inherited = InheritedSockets { sockets: vec![(addr, socket), (other_addr, other)] };
        let mut listeners = Listeners::new(2);
        listeners.listen(addr, ListenerKind::Tls, &mut inherited).unwrap();
        assert_eq!(listeners.addrs(ListenerKind::Tls), [addr]);
        assert_eq!(inherited.unclaimed(), [other_addr]);
        assert!(listeners.into_shares().iter().all(|share| share.len() == 1));
    }
}
