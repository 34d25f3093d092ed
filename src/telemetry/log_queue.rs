//! The one way of log lines to standard error. Producers append to buffers of bounded size and go on; a
//! single thread writes them, so that nobody but that thread ever waits for whoever reads them. What finds
//! its buffer full is dropped and counted.
//!
//! The queue travels with the subscriber, so that whoever replaces the one replaces the other.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others. A write for each line would cost more than the line.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// What the events of all threads hold at most, some four thousand lines.
const EVENT_BYTES: usize = 1024 * 1024;

/// About how much is written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What a buffer keeps of its memory between two collections.
const KEPT_BYTES: usize = 64 * 1024;

/// What a line is, since losing one or the other means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Whatever the gateway says about itself.
    Event,
    /// The audit trail of calls.
    AccessLog,
}

/// A handle on the queue. As a layer it does nothing but be found; as a writer it takes the events of the
/// layer beside it.
#[derive(Clone)]
pub struct LogQueue {
    shared: Arc<QueueState>,
    events: Arc<Buffer>,
}

/// A buffer for a producer of many lines, which shares it with no other thread but the writer.
pub struct LogBuffer {
    queue: LogQueue,
    buffer: Arc<Buffer>,
}

struct QueueState {
    buffers: Buffers,
    dropped: [AtomicU64; 2],
    begun: Instant,
    /// Since when lines are off their buffer and not written yet: milliseconds from the beginning, and one; 0
    /// where none are.
    writing_since: AtomicU64,
    writer: Thread,
}

type Buffers = Arc<Mutex<Vec<Arc<Buffer>>>>;

struct Buffer {
    kind: LogKind,
    limit: usize,
    lines: Mutex<Vec<u8>>,
}

impl LogQueue {
    /// Starts the writer, which ends with the last handle on this.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (hand_over, receive) = std::sync::mpsc::sync_channel::<(Weak<QueueState>, Buffers)>(1);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            if let Ok((shared, buffers)) = receive.recv() {
                write_all_lines(&shared, &buffers, &mut LogOutput { out, mid_line: false });
            }
        })?;
        let shared = Arc::new(QueueState {
            buffers: Buffers::default(),
            dropped: [const { AtomicU64::new(0) }; 2],
            begun: Instant::now(),
            writing_since: AtomicU64::new(0),
            writer: writer.thread().clone(),
        });
        // The writer waits for just this.
        let _ = hand_over.send((Arc::downgrade(&shared), shared.buffers.clone()));
        let events = shared.add_buffer(LogKind::Event, EVENT_BYTES);
        Ok(Self { shared, events })
    }

    /// The current subscriber's queue.
    pub fn current() -> Option<Self> {
        tracing::dispatcher::get_default(|subscriber| subscriber.downcast_ref::<Self>().cloned())
    }

    /// For one more producer. It may hold so many bytes while nobody takes them off.
    pub fn buffer(&self, kind: LogKind, limit: usize) -> LogBuffer {
        LogBuffer { queue: self.clone(), buffer: self.shared.add_buffer(kind, limit) }
    }

    /// Lines that found their buffer full, or could not be written.
    pub fn dropped(&self, kind: LogKind) -> u64 {
        self.shared.dropped[kind as usize].load(Ordering::Relaxed)
    }

    /// How long what is being written has waited for whoever reads it.
    pub fn blocked_for(&self) -> Duration {
        match self.shared.writing_since.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            since => self.shared.begun.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    /// Appends a whole line, its break included.
    pub fn push(&self, line: &[u8]) {
        self.shared.append(&self.events, |lines| lines.extend_from_slice(line));
    }

    /// Returns once all lines so far are written, or when the time is over. Says whether they are.
    pub fn flush(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        while !self.shared.is_written() {
            if Instant::now() >= end {
                return false;
            }
            self.shared.writer.unpark();
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

impl LogBuffer {
    /// Has `write` append one line, its break included, if there is room.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue.shared.append(&self.buffer, write);
    }
}

impl QueueState {
    fn add_buffer(&self, kind: LogKind, limit: usize) -> Arc<Buffer> {
        let buffer = Arc::new(Buffer { kind, limit, lines: Mutex::default() });
        lock(&self.buffers).push(buffer.clone());
        buffer
    }

    fn append(&self, buffer: &Buffer, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = lock(&buffer.lines);
        if lines.len() >= buffer.limit {
            drop(lines);
            self.count_dropped(buffer.kind, 1);
            return;
        }
        let first = lines.is_empty();
        write(&mut lines);
        drop(lines);
        // Whoever finds lines there has nobody to wake, which would cost it more than the line.
        if first {
            self.writer.unpark();
        }
    }

    fn is_written(&self) -> bool {
        // In this order: the writer takes lines off only after it has said that it writes.
        let empty = lock(&self.buffers).iter().all(|buffer| lock(&buffer.lines).is_empty());
        empty && self.writing_since.load(Ordering::SeqCst) == 0
    }

    fn mark_writing(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.writing_since.store(since + 1, Ordering::SeqCst);
    }

    fn mark_idle(&self) {
        self.writing_since.store(0, Ordering::SeqCst);
    }

    fn count_dropped(&self, kind: LogKind, lines: u64) {
        self.dropped[kind as usize].fetch_add(lines, Ordering::Relaxed);
    }

    fn all_dropped(&self) -> u64 {
        self.dropped.iter().map(|dropped| dropped.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for QueueState {
    fn drop(&mut self) {
        // The writer finds nothing to hold on to, and ends.
        self.writer.unpark();
    }
}

fn write_all_lines(shared: &Weak<QueueState>, all: &Buffers, out: &mut LogOutput<impl Write>) {
    let mut lines = Vec::new();
    let mut reported = 0;
    while let Some(shared) = shared.upgrade() {
        let buffers = buffers_in_use(all);
        let (mut found, mut failed) = (false, false);
        shared.mark_writing();
        for buffer in &buffers {
            std::mem::swap(&mut *lock(&buffer.lines), &mut lines);
            found |= !lines.is_empty();
            let dropped = out.write_lines(&lines);
            failed |= dropped > 0;
            shared.count_dropped(buffer.kind, dropped);
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
        }
        shared.mark_idle();
        let dropped = shared.all_dropped();
        drop(shared);
        // Not while writing fails, or the line about it would be the next to be lost, without end.
        if found && !failed && dropped > reported {
            tracing::warn!(
                lines = dropped - reported,
                "log lines were dropped, since nobody took off those before them"
            );
            reported = dropped;
        }
        if found {
            std::thread::sleep(FLUSH_INTERVAL);
        } else {
            std::thread::park();
        }
    }
    // What was appended last, by producers that are gone; nobody is left to be told of its loss.
    for buffer in lock(all).iter() {
        out.write_lines(&lock(&buffer.lines));
    }
}

/// Those of producers that are gone make room.
fn buffers_in_use(all: &Buffers) -> Vec<Arc<Buffer>> {
    let mut all = lock(all);
    all.retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(&buffer.lines).is_empty());
    all.clone()
}

/// Where lines end up.
struct LogOutput<W> {
    out: W,
    /// A write failed in the midst of a line.
    mid_line: bool,
}

impl<W: Write> LogOutput<W> {
    /// Writes lines, not too many at once: others write to the same place. Returns how many could not be
    /// written.
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        let (mut remaining, mut dropped) = (lines, 0);
        while !remaining.is_empty() {
            let end = match remaining.get(WRITE_BYTES..) {
                None => remaining.len(),
                Some(behind) => {
                    memchr::memchr(b'\n', behind).map_or(remaining.len(), |end| WRITE_BYTES + end + 1)
                }
            };
            let (chunk, behind) = remaining.split_at(end);
            let unwritten = self.write_chunk(chunk);
            // A line that is cut is lost like those behind it.
            dropped += memchr::memchr_iter(b'\n', unwritten).count() as u64;
            remaining = behind;
        }
        dropped
    }

    /// Returns what could not be written.
    fn write_chunk<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        if self.mid_line && self.write_some(b"\n").is_ok() {
            self.mid_line = false;
        }
        let mut remaining = chunk;
        while !remaining.is_empty() {
            match self.write_some(remaining) {
                Ok(written) => remaining = &remaining[written..],
                Err(_) => {
                    let written = chunk.len() - remaining.len();
                    self.mid_line |= written > 0 && chunk[written - 1] != b'\n';
                    break;
                }
            }
        }
        remaining
    }

    /// One write that takes at least a byte. Somebody else may have made the pipe one that does not block:
    /// then this thread waits.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FLUSH_INTERVAL),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl<S: Subscriber> Layer<S> for LogQueue {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LINE: &[u8] = b"a line of the log\n";
    /// For what happens at once when all is well.
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Hands on what is written to it, once it may.
    struct ChannelWriter(Sender<Vec<u8>>, Option<Receiver<()>>);

    impl Write for ChannelWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(may) = &self.1 {
                let _ = may.recv();
            }
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn count(lines: &[u8]) -> u64 {
        lines.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    #[test]
    fn lines_of_all_producers_come_out_and_the_last_ones_too() {
        let (sent, came) = channel();
        let queue = LogQueue::start(ChannelWriter(sent, None)).unwrap();
        let buffers = [(); 2].map(|()| queue.buffer(LogKind::AccessLog, 1024 * 1024));
        for _ in 0..100 {
            buffers.iter().for_each(|buffer| buffer.append(|lines| lines.extend_from_slice(LINE)));
            queue.push(LINE);
        }
        assert!(queue.flush(TIMEOUT));
        assert_eq!(came.try_iter().map(|lines| count(&lines)).sum::<u64>(), 300);
        queue.push(LINE);
        drop((queue, buffers));
        // The writer hangs up when everyone else is gone.
        assert_eq!(came.iter().flatten().collect::<Vec<u8>>(), LINE);
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_is_lost_is_counted_by_kind() {
        let (sent, came) = channel();
        let (may, wait) = channel();
        let queue = LogQueue::start(ChannelWriter(sent, Some(wait))).unwrap();
        let calls = queue.buffer(LogKind::AccessLog, 100 * LINE.len());
        // The first line keeps the writer busy; those behind it fill the buffers.
        queue.push(LINE);
        while queue.shared.writing_since.load(Ordering::SeqCst) == 0 || !lock(&queue.events.lines).is_empty()
        {
            std::thread::yield_now();
        }
        let room = EVENT_BYTES.div_ceil(LINE.len());
        (0..room + 7).for_each(|_| queue.push(LINE));
        (0..105).for_each(|_| calls.append(|lines| lines.extend_from_slice(LINE)));
        assert_eq!((queue.dropped(LogKind::Event), queue.dropped(LogKind::AccessLog)), (7, 5));
        assert!(!queue.flush(Duration::from_millis(5)), "a flush is bounded");
        assert!(queue.blocked_for() >= Duration::from_millis(4), "{:?}", queue.blocked_for());
        drop(may);
        assert!(queue.flush(TIMEOUT));
        assert_eq!(queue.blocked_for(), Duration::ZERO);
        assert_eq!(came.try_iter().map(|lines| count(&lines)).sum::<u64>(), 1 + room as u64 + 100);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_a_line_that_was_cut_ends_before_the_next() {
        /// Takes half of what it is given, then fails once, then takes all.
        struct FlakyWriter(Vec<u8>, u32);
        impl Write for FlakyWriter {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                let taken = match self.1 {
                    1 => bytes.len() / 2,
                    2 => return Err(io::ErrorKind::StorageFull.into()),
                    3 => return Err(io::ErrorKind::WouldBlock.into()),
                    4 => return Err(io::ErrorKind::Interrupted.into()),
                    _ => bytes.len(),
                };
                self.0.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = LogOutput { out: FlakyWriter(Vec::new(), 0), mid_line: false };
        assert_eq!(output.write_lines(b"one is cut\n"), 1);
        assert_eq!(output.write_lines(b"two\nthree\n"), 0);
        assert_eq!(output.out.0, b"one i\ntwo\nthree\n");
    }

    #[test]
    fn much_is_written_in_chunks_of_complete_lines() {
        let (sent, came) = channel();
        let mut output = LogOutput { out: ChannelWriter(sent, None), mid_line: false };
        assert_eq!(output.write_lines(&LINE.repeat(10_000)), 0);
        let chunks: Vec<Vec<u8>> = came.try_iter().collect();
        assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.len() < WRITE_BYTES + 2 * LINE.len()));
        assert!(chunks.iter().all(|chunk| chunk.starts_with(b"a line") && chunk.ends_with(b"log\n")));
    }

    #[test]
    fn a_pipe_that_nobody_reads_any_more_ends_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::start(writer).unwrap();
        drop(reader);
        queue.push(LINE);
        assert!(queue.flush(TIMEOUT));
        assert_eq!(queue.dropped(LogKind::Event), 1);
        queue.push(LINE);
        assert!(queue.flush(TIMEOUT));
        assert_eq!(queue.dropped(LogKind::Event), 2);
    }
}
