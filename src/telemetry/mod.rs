//! What the gateway says about itself: logs here, figures in `metrics`. Imports no feature; features are
//! handed what they report to.
//!
//! The rule guarded here: logs go to one writer for which nobody waits, their level changes without a
//! restart, and the access log is neither lost by a quiet level nor kept on when it is switched off.

pub mod calls;
pub mod catalogue;
pub mod log_queue;
pub mod metrics;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Env, LogConfig, LogFormat, bad_directive};

use log_queue::LogQueue;

/// The target of access log lines. Not the name of a module: `genapi_gateway::access` is one, and switching
/// that off must not silence renewals.
pub const ACCESS_LOG: &str = "genapi_gateway::access_log";

/// Wins over `log.level`, so that a running service can be made talkative by its unit alone.
pub const LEVEL_VARIABLE: &str = "GENAPI_GATEWAY_LOG";

/// How long the end of the process waits for whoever reads its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{LEVEL_VARIABLE} holds {0:?}, which is no log level; write info, or info,genapi_gateway::access=debug"
    )]
    Level(String),
    #[error("logging was set up already")]
    AlreadyInitialized,
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Changes what is logged while it runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    /// What `GENAPI_GATEWAY_LOG` said at start.
    forced: Option<String>,
}

/// Whether the levels of the configuration and the environment are ones. Sets nothing up.
pub fn check(log: &LogConfig, env: Env<'_>) -> Result<(), LogError> {
    targets(log, forced(env).as_deref()).map(drop)
}

fn forced(env: Env<'_>) -> Option<String> {
    env(LEVEL_VARIABLE).filter(|directives| !directives.trim().is_empty())
}

/// Logs to standard error from now on, panics too; once per process.
pub fn init(log: &LogConfig, env: Env<'_>) -> Result<LogHandle, LogError> {
    let colours = std::io::stderr().is_terminal() && wants_colour(env);
    let (subscriber, handle) = subscriber(log, env, LogQueue::start(std::io::stderr())?, colours)?;
    subscriber.try_init().map_err(|_| LogError::AlreadyInitialized)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(handle)
}

/// The same for any queue, without installing it.
pub fn subscriber(
    log: &LogConfig,
    env: Env<'_>,
    queue: LogQueue,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync + use<>, LogHandle), LogError> {
    let forced = forced(env);
    let (filter, handle) = reload::Layer::new(targets(log, forced.as_deref())?);
    let lines = fmt::layer().with_writer(queue.clone());
    let lines = match log.format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_ansi(colours).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines).with(queue);
    Ok((subscriber, LogHandle { filter: handle, forced }))
}

/// Writes what was logged last, and returns although nobody may be reading it.
pub fn flush() {
    if let Some(queue) = LogQueue::current() {
        queue.flush(LAST_LINES);
    }
}

/// Why the process ends, for people: as it is, behind all log lines, and without waiting for somebody who
/// does not read.
pub fn write_final_message(text: &str) {
    match LogQueue::current() {
        Some(queue) => {
            queue.push(format!("{text}\n").as_bytes());
            queue.flush(LAST_LINES);
        }
        // Nothing is logged yet. A standard error that takes nothing is no reason to panic.
        None => drop(writeln!(std::io::stderr(), "{text}")),
    }
}

/// A panic is an event like others: the standard library's own message would wait for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        thread = thread.name(),
        backtrace,
        "panicked: {}",
        panic.payload_as_str().unwrap_or("without a text")
    );
    // With the first thread the process ends, and its last line would end with it.
    if thread.name() == Some("main") {
        flush();
    }
}

/// <https://no-color.org>: any value but an empty one.
fn wants_colour(env: Env<'_>) -> bool {
    env("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl LogHandle {
    /// Takes over level and access log of a reloaded configuration; the format stays until a restart.
    pub fn apply(&self, log: &LogConfig) -> Result<(), LogError> {
        let targets = targets(log, self.forced.as_deref())?;
        self.filter.reload(targets).map_err(|_| LogError::AlreadyInitialized)
    }
}

/// The access log is the audit trail of calls (threats, row 23): `log.access` alone decides over it, unless a
/// directive names it.
fn targets(log: &LogConfig, forced: Option<&str>) -> Result<Targets, LogError> {
    let directives = forced.unwrap_or(&log.level);
    if let Some(bad) = bad_directive(directives) {
        return Err(LogError::Level(bad.to_owned()));
    }
    let mut targets = Targets::new();
    for directive in directives.split(',').map(str::trim) {
        let bad = |_| LogError::Level(directive.to_owned());
        targets = match directive.split_once('=') {
            Some((target, level)) => {
                targets.with_target(target.trim(), level.trim().parse::<LevelFilter>().map_err(bad)?)
            }
            None => targets.with_default(directive.parse::<LevelFilter>().map_err(bad)?),
        };
    }
    let named = directives.split(',').any(|directive| directive.trim().starts_with(ACCESS_LOG));
    Ok(match (log.access, named) {
        (false, _) => targets.with_target(ACCESS_LOG, LevelFilter::OFF),
        (true, false) => targets.with_target(ACCESS_LOG, LevelFilter::INFO),
        (true, true) => targets,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl CapturedLog {
        /// All that came through the queue since the last time.
        fn after(&self, queue: &LogQueue) -> String {
            assert!(queue.flush(Duration::from_secs(60)));
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    fn log(level: &str, access: bool) -> LogConfig {
        LogConfig { level: level.to_owned(), format: LogFormat::Json, access }
    }

    fn log_both_kinds() {
        tracing::info!(target: "genapi_gateway::access::renewal", "renewed");
        tracing::info!(target: ACCESS_LOG, status = 200, "call");
    }

    fn queue(captured: &CapturedLog) -> LogQueue {
        LogQueue::start(captured.clone()).unwrap()
    }

    fn logged(log: &LogConfig, forced: Option<&str>) -> (bool, bool) {
        let captured = CapturedLog::default();
        let env = |_: &str| forced.map(str::to_owned);
        let queue = queue(&captured);
        let (subscriber, _) = subscriber(log, &env, queue.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, log_both_kinds);
        let said = captured.after(&queue);
        (said.contains("renewed"), said.contains("\"call\""))
    }

    #[test]
    fn the_access_log_hangs_on_its_own_switch_and_not_on_the_level() {
        assert_eq!(logged(&log("info", true), None), (true, true));
        assert_eq!(logged(&log("warn", true), None), (false, true));
        assert_eq!(logged(&log("info", false), None), (true, false));
        assert_eq!(logged(&log("info,genapi_gateway::access_log=off", true), None), (true, false));
        assert_eq!(logged(&log("info,genapi_gateway::access=off", true), None), (false, true));
    }

    #[test]
    fn the_environment_wins_over_the_file_and_nonsense_in_it_is_refused() {
        assert_eq!(logged(&log("error", true), Some("debug")), (true, true));
        let env = |_: &str| Some("verbose".to_owned());
        let refused = subscriber(&log("info", true), &env, queue(&CapturedLog::default()), false);
        assert!(matches!(refused.map(|_| ()), Err(LogError::Level(level)) if level == "verbose"));
    }

    #[test]
    fn a_reload_changes_the_level_while_it_runs() {
        let captured = CapturedLog::default();
        let queue = queue(&captured);
        let quiet = subscriber(&log("error", false), &|_| None, queue.clone(), false);
        let (subscriber, handle) = quiet.unwrap();
        let guard = tracing::subscriber::set_default(subscriber);
        log_both_kinds();
        assert_eq!(captured.after(&queue), "");
        handle.apply(&log("info", true)).unwrap();
        log_both_kinds();
        drop(guard);
        let lines = captured.after(&queue);
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["message"], "call");
        assert_eq!(lines[1]["status"], 200);
        assert_eq!(lines[1]["target"], ACCESS_LOG);
    }

    #[test]
    fn whoever_writes_lines_by_itself_writes_them_to_the_same_place() {
        let captured = CapturedLog::default();
        let queue = queue(&captured);
        let (subscriber, _) = subscriber(&log("info", true), &|_| None, queue.clone(), false).unwrap();
        let found = tracing::subscriber::with_default(subscriber, LogQueue::current).unwrap();
        found.push(b"a line\n");
        assert_eq!(captured.after(&queue), "a line\n");
    }

    #[test]
    fn a_panic_is_a_line_that_tells_where() {
        let captured = CapturedLog::default();
        let queue = queue(&captured);
        let (subscriber, _) = subscriber(&log("info", true), &|_| None, queue.clone(), false).unwrap();
        // The hook belongs to the process, so it is called from one that panics of other tests may meet as
        // well.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            before(panic);
        }));
        tracing::subscriber::with_default(subscriber, || {
            let _ = std::panic::catch_unwind(|| panic!("a fault of ours"));
        });
        let line: serde_json::Value = serde_json::from_str(&captured.after(&queue)).unwrap();
        assert_eq!(
            (&line["level"], &line["message"]),
            (&"ERROR".into(), &"panicked: a fault of ours".into())
        );
        assert!(line["location"].as_str().unwrap().starts_with("src/telemetry/mod.rs:"));
    }

    #[test]
    fn no_color_is_obeyed() {
        assert!(wants_colour(&|_| None));
        assert!(wants_colour(&|_| Some(String::new())));
        assert!(!wants_colour(&|_| Some("1".to_owned())));
    }
}
