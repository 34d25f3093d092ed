//! Signals and the service manager. With `listen` and `descriptor_limit` the only file that knows which
//! system it runs on.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// What an operator asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain; the second time, stop at once.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Signals as they come, heard by a thread of their own, so that nothing else can keep them waiting. From the
/// moment this exists they no longer end the process.
pub struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Self::listen_and(|| ())
    }

    /// `at_second_stop` runs on the signals' thread, so it may take its time and end the process, whatever
    /// the others do.
    pub fn listen_and(at_second_stop: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (tell, told) = mpsc::unbounded_channel();
        let (tell_ready, ready) = std::sync::mpsc::channel();
        let hear = move || match OsSignals::listen() {
            Ok((runtime, signals)) => {
                let _ = tell_ready.send(Ok(()));
                runtime.block_on(forward(signals, tell, at_second_stop));
            }
            Err(error) => drop(tell_ready.send(Err(error))),
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(hear)?;
        ready.recv().unwrap_or_else(|_| Err(io::Error::other("the signals' thread ended at once")))?;
        Ok(Self(told))
    }

    /// Loses nothing when dropped half-way.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Passes over everything else.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}

async fn forward(mut signals: OsSignals, tell: mpsc::UnboundedSender<Signal>, at_second_stop: impl FnOnce()) {
    let mut stops = 0;
    let mut at_second_stop = Some(at_second_stop);
    while let Some(signal) = signals.next().await {
        if tell.send(signal).is_err() {
            return;
        }
        stops += usize::from(signal == Signal::Stop);
        if stops == 2
            && let Some(act) = at_second_stop.take()
        {
            act();
        }
    }
}

#[cfg(unix)]
struct OsSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    sighup: tokio::signal::unix::Signal,
}

/// From here on SIGHUP no longer ends the process, though nobody listens to it yet: a reload that is asked
/// for while the configuration is being read must not kill.
#[cfg(unix)]
pub fn ignore_sighup() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // The handler stays for as long as the process lives; what is sent to it now is sent again to whoever
    // listens later.
    runtime.block_on(async { signal(SignalKind::hangup()).map(drop) })
}

#[cfg(not(unix))]
pub fn ignore_sighup() -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
impl OsSignals {
    /// With the runtime that drives them.
    fn listen() -> io::Result<(Runtime, Self)> {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let in_runtime = runtime.enter();
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            sighup: signal(SignalKind::hangup())?,
        };
        drop(in_runtime);
        Ok((runtime, signals))
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            heard = self.terminate.recv() => heard.map(|()| Signal::Stop),
            heard = self.interrupt.recv() => heard.map(|()| Signal::Stop),
            heard = self.sighup.recv() => heard.map(|()| Signal::Reload),
        }
    }
}

#[cfg(not(unix))]
struct OsSignals;

#[cfg(not(unix))]
impl OsSignals {
    fn listen() -> io::Result<(Runtime, Self)> {
        Ok((Builder::new_current_thread().enable_io().build()?, Self))
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::signal::ctrl_c().await.ok().map(|()| Signal::Stop)
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

/// Feeds the service manager's watchdog twice as often as it asks, if it asks. Runs on the control runtime,
/// so that a runtime that stands still is noticed.
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
        let (tell, told) = std::sync::mpsc::channel();
        let mut signals = Signals::listen_and(move || tell.send(()).unwrap()).unwrap();
        let own = std::process::id().to_string();
        for (name, asks_for) in [("-HUP", Signal::Reload), ("-TERM", Signal::Stop), ("-INT", Signal::Stop)] {
            assert!(told.try_recv().is_err(), "nobody has been told to stop twice");
            assert!(std::process::Command::new("kill").args([name, &own]).status().unwrap().success());
            assert_eq!(signals.next().await, asks_for);
        }
        told.recv().expect("the second one ends the process, whatever it is doing");
    }

    #[test]
    fn without_a_service_manager_nothing_is_said_and_nothing_fails() {
        tell(Notice::Ready).unwrap();
        tell(Notice::Reloading).unwrap();
        tell(Notice::Status("well")).unwrap();
        tell(Notice::Stopping).unwrap();
    }
}
