//! A worker's own buffer for its lines. The one thread that writes the log takes them off, so that a line
//! costs its worker no call of the system and no wait.

use crate::config::LogFormat;
use crate::telemetry::ACCESS_LOG;
use crate::telemetry::log_queue::{LineBuffer, LineKind, LogQueue};

use super::Record;
use super::line;

/// What a worker's buffer holds at most, some ten thousand lines: where nobody takes the lines off, more of
/// them are lost, and counted.
const WORKER_BYTES: usize = 4 * 1024 * 1024;

/// The access log of one gateway.
#[derive(Clone)]
pub struct AccessLog {
    format: LogFormat,
    queue: LogQueue,
}

/// A worker's handle on its buffer.
pub struct Pen {
    format: LogFormat,
    buffer: LineBuffer,
}

impl AccessLog {
    /// Its lines go where those of the queue go.
    pub fn new(format: LogFormat, queue: LogQueue) -> Self {
        Self { format, queue }
    }

    /// For one more worker.
    pub fn pen(&self) -> Pen {
        Pen { format: self.format, buffer: self.queue.buffer(LineKind::AccessLog, WORKER_BYTES) }
    }
}

impl Pen {
    pub fn write(&self, record: &Record) {
        if tracing::enabled!(target: ACCESS_LOG, tracing::Level::INFO) {
            self.buffer.append(|lines| line::write(record, self.format, lines));
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

    struct Out(Sender<Vec<u8>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn record() -> Record {
        Record::begin(Timestamp::default(), HeaderValue::from_static("r"), Method::GET)
    }

    #[test]
    fn a_call_is_one_line_in_the_queue() {
        let (sent, came) = channel();
        let queue = LogQueue::start(Out(sent)).unwrap();
        let pen = AccessLog::new(LogFormat::Json, queue.clone()).pen();
        // Lines are written only where a subscriber wants them.
        tracing::subscriber::with_default(tracing_subscriber::registry(), || pen.write(&record()));
        assert!(queue.flush(Duration::from_secs(60)));
        let line: Vec<u8> = came.try_iter().flatten().collect();
        assert!(line.starts_with(b"{") && line.ends_with(b"}\n"));
    }

    #[test]
    fn a_log_that_nobody_listens_to_costs_no_line() {
        let (sent, came) = channel();
        let queue = LogQueue::start(Out(sent)).unwrap();
        let pen = AccessLog::new(LogFormat::Json, queue.clone()).pen();
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || pen.write(&record()));
        drop((pen, queue));
        assert_eq!(came.iter().flatten().count(), 0);
    }
}
