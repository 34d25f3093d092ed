//! The process and its service manager: readiness said, signals heard. With `listen` and `descriptors` the only file
//! that knows which system it runs on.

use std::io;
use std::time::Duration;

/// What an operator asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain; the second time, stop at once.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Signals as they come. From the moment this exists they no longer end the process.
#[cfg(unix)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Loses nothing when dropped half-way.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
pub struct Signals(());

#[cfg(not(unix))]
impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self(()))
    }

    pub async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Stop,
            Err(_) => std::future::pending().await,
        }
    }
}

/// What the service manager may know. Silence where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    Ready,
    Reloading,
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
}

#[cfg(unix)]
pub fn tell(notice: Notice<'_>) -> io::Result<()> {
    use sd_notify::NotifyState;
    match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Notice::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Notice::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
    }
}

#[cfg(not(unix))]
pub fn tell(_: Notice<'_>) -> io::Result<()> {
    Ok(())
}

/// Feeds the service manager's watchdog twice as often as it asks, if it asks. Runs on the control runtime, so that
/// a runtime that stands still is noticed.
#[cfg(unix)]
pub async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        // A manager that has gone away needs no feeding.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

#[cfg(not(unix))]
pub async fn feed_watchdog() {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_are_heard_as_what_they_ask_for() {
        let mut signals = Signals::listen().unwrap();
        let own = std::process::id().to_string();
        for (name, asks_for) in [("-HUP", Signal::Reload), ("-TERM", Signal::Stop), ("-INT", Signal::Stop)] {
            assert!(std::process::Command::new("kill").args([name, &own]).status().unwrap().success());
            assert_eq!(signals.next().await, asks_for);
        }
    }

    #[test]
    fn without_a_service_manager_nothing_is_said_and_nothing_fails() {
        tell(Notice::Ready).unwrap();
        tell(Notice::Reloading).unwrap();
        tell(Notice::Status("well")).unwrap();
        tell(Notice::Stopping).unwrap();
    }
}
