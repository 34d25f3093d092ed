//! A worker's own buffer for its log lines. One thread of the process writes them, so that a line costs its
//! worker no system call and no wait.

use crate::config::LogFormat;
use crate::telemetry::ACCESS_LOG;
use crate::telemetry::log_queue::{LogBuffer, LogKind, LogQueue};

use super::LogEntry;
use super::format;

/// What a worker's buffer holds at most, some ten thousand lines: where nobody takes the lines off, more of
/// them are lost, and counted.
const WORKER_BYTES: usize = 4 * 1024 * 1024;

/// The access log of one gateway.
#[derive(Clone)]
pub struct AccessLog {
    format: LogFormat,
    queue: LogQueue,
}

/// A worker's handle to its log buffer.
pub struct LogWriter {
    format: LogFormat,
    buffer: LogBuffer,
}

impl AccessLog {
    /// Its lines go where those of the queue go.
    pub fn new(format: LogFormat, queue: LogQueue) -> Self {
        Self { format, queue }
    }

    /// For one more worker.
    pub fn writer(&self) -> LogWriter {
        LogWriter { format: self.format, buffer: self.queue.buffer(LogKind::AccessLog, WORKER_BYTES) }
    }
}

impl LogWriter {
    pub fn write(&self, entry: &LogEntry) {
        if tracing::enabled!(target: ACCESS_LOG, tracing::Level::INFO) {
            self.buffer.append(|lines| format::write(entry, self.format, lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use http::{HeaderValue, Method};

    use super::*;
    use crate::clock::Timestamp;

    struct ChannelWriter(Sender<Vec<u8>>);

    impl Write for ChannelWriter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn entry() -> LogEntry {
        LogEntry::begin(Timestamp::default(), HeaderValue::from_static("r"), Method::GET)
    }

    #[test]
    fn a_call_is_one_line_in_the_queue() {
        let (sent, came) = channel();
        let queue = LogQueue::start(ChannelWriter(sent)).unwrap();
        let writer = AccessLog::new(LogFormat::Json, queue.clone()).writer();
        // Lines are written only where a subscriber wants them.
        tracing::subscriber::with_default(tracing_subscriber::registry(), || writer.write(&entry()));
        assert!(queue.flush(Duration::from_secs(60)));
        let format: Vec<u8> = came.try_iter().flatten().collect();
        assert!(format.starts_with(b"{") && format.ends_with(b"}\n"));
    }

    #[test]
    fn a_log_that_nobody_listens_to_costs_no_line() {
        let (sent, came) = channel();
        let queue = LogQueue::start(ChannelWriter(sent)).unwrap();
        let writer = AccessLog::new(LogFormat::Json, queue.clone()).writer();
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            writer.write(&entry())
        });
        drop((writer, queue));
        assert_eq!(came.iter().flatten().count(), 0);
    }
}
