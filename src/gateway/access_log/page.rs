//! The access log's way out. A worker writes its lines on a page of its own and goes on; one thread carries the pages to standard error,
//! a hundred times a second at most. Handing each line over by itself, and a write for each, cost more than the line.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use crate::config::LogFormat;
use crate::telemetry::ACCESS_LOG;

use super::Record;
use super::line;

/// How long a line waits for others.
const GATHERING: Duration = Duration::from_millis(10);

/// What a page holds at most, some ten thousand lines: where nobody takes the lines off, more of them are lost, and counted.
const FULL: usize = 4 * 1024 * 1024;

/// About how much is written at once.
const AT_ONCE: usize = 64 * 1024;

/// What a page keeps of its memory between two collections.
const KEPT: usize = 64 * 1024;

/// All pages of one gateway.
#[derive(Clone)]
pub struct AccessLog(Arc<Binder>);

struct Binder {
    format: LogFormat,
    pages: Pages,
    lost: AtomicU64,
    /// Lines are off their page and not written yet.
    carrying: AtomicBool,
    carrier: Thread,
}

type Pages = Arc<Mutex<Vec<Arc<Page>>>>;

/// One worker's page.
#[derive(Default)]
struct Page {
    lines: Mutex<Vec<u8>>,
}

/// A worker's hand on its page.
pub struct Pen {
    log: AccessLog,
    page: Arc<Page>,
}

impl AccessLog {
    /// Starts the carrier, which ends with the last handle on this.
    pub fn start(format: LogFormat, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (log, receive) = std::sync::mpsc::sync_channel::<(Weak<Binder>, Pages)>(1);
        let carrier = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            if let Ok((log, pages)) = receive.recv() {
                carry(&log, &pages, out);
            }
        })?;
        let carrier = carrier.thread().clone();
        let binder = Arc::new(Binder {
            format,
            pages: Pages::default(),
            lost: AtomicU64::new(0),
            carrying: AtomicBool::new(false),
            carrier,
        });
        // The carrier waits for just this.
        let _ = log.send((Arc::downgrade(&binder), binder.pages.clone()));
        Ok(Self(binder))
    }

    /// For one more worker.
    pub fn pen(&self) -> Pen {
        let page = Arc::new(Page::default());
        lock(&self.0.pages).push(page.clone());
        Pen { log: self.clone(), page }
    }

    /// Lines that found their page full.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Returns once all lines written so far have been carried off, or after a second.
    pub fn settle(&self) {
        for _ in 0..100 {
            let empty = lock(&self.0.pages).iter().all(|page| lock(&page.lines).is_empty());
            if empty && !self.0.carrying.load(Ordering::SeqCst) {
                return;
            }
            self.0.carrier.unpark();
            std::thread::sleep(GATHERING);
        }
    }
}

impl Drop for Binder {
    fn drop(&mut self) {
        // It finds nothing to hold on to, and ends.
        self.carrier.unpark();
    }
}

impl Pen {
    pub fn write(&self, record: &Record) {
        if !tracing::enabled!(target: ACCESS_LOG, tracing::Level::INFO) {
            return;
        }
        let mut lines = lock(&self.page.lines);
        if lines.len() >= FULL {
            self.log.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = lines.is_empty();
        line::write(record, self.log.0.format, &mut lines);
        drop(lines);
        if first {
            self.log.0.carrier.unpark();
        }
    }
}

fn carry(binder: &Weak<Binder>, all: &Pages, mut out: impl Write) {
    let mut lines = Vec::new();
    let mut pages = Vec::new();
    while let Some(binder) = binder.upgrade() {
        pages.clone_from(&lock(all));
        let mut written = false;
        binder.carrying.store(true, Ordering::SeqCst);
        for page in &pages {
            std::mem::swap(&mut *lock(&page.lines), &mut lines);
            written |= !lines.is_empty();
            binder.lost.fetch_add(put(&lines, &mut out), Ordering::Relaxed);
            lines.clear();
            lines.shrink_to(KEPT);
        }
        binder.carrying.store(false, Ordering::SeqCst);
        drop(binder);
        match written {
            // A worker that finds lines on its page has nobody to wake, which would cost it more than the line.
            true => std::thread::sleep(GATHERING),
            false => std::thread::park(),
        }
    }
    // What was written last, by workers that are gone; nobody is left to be told what is lost of it.
    for page in lock(all).iter() {
        put(&lock(&page.lines), &mut out);
    }
}

/// Writes lines, not too many at once: others write to the same place. Returns how many could not be written.
fn put(lines: &[u8], out: &mut impl Write) -> u64 {
    let (mut rest, mut lost) = (lines, 0);
    while !rest.is_empty() {
        let end = match rest.get(AT_ONCE..) {
            None => rest.len(),
            Some(behind) => memchr::memchr(b'\n', behind).map_or(rest.len(), |end| AT_ONCE + end + 1),
        };
        let (piece, behind) = rest.split_at(end);
        if out.write_all(piece).is_err() {
            lost += memchr::memchr_iter(b'\n', piece).count() as u64;
        }
        rest = behind;
    }
    lost
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use http::{HeaderValue, Method};

    use super::*;
    use crate::clock::Timestamp;

    /// Hands on what is written to it, once it may.
    struct Out(Sender<Vec<u8>>, Option<Receiver<()>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(may) = &self.1 {
                let _ = may.recv();
            }
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

    /// Lines are written only where a subscriber wants them.
    fn listening<T>(test: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry(), test)
    }

    #[test]
    fn lines_of_all_workers_come_out_whole_and_the_last_ones_too() {
        let (sent, came) = channel();
        listening(|| {
            let log = AccessLog::start(LogFormat::Json, Out(sent, None)).unwrap();
            let pens = [log.pen(), log.pen()];
            for _ in 0..100 {
                pens.iter().for_each(|pen| pen.write(&record()));
            }
            log.settle();
            let settled: usize =
                came.try_iter().map(|lines| lines.iter().filter(|b| **b == b'\n').count()).sum();
            assert_eq!(settled, 200);
            pens[0].write(&record());
        });
        // The carrier hangs up when everyone else is gone.
        let last: Vec<u8> = came.iter().flatten().collect();
        assert!(last.starts_with(b"{") && last.ends_with(b"}\n"));
    }

    #[test]
    fn a_full_page_loses_lines_and_counts_them_and_nobody_waits() {
        let (sent, _came) = channel();
        let (may, wait) = channel();
        listening(|| {
            let log = AccessLog::start(LogFormat::Json, Out(sent, Some(wait))).unwrap();
            let pen = log.pen();
            let lines = 3 * FULL / 200;
            (0..lines).for_each(|_| pen.write(&record()));
            assert!(log.lost() > 0);
            drop(may);
        });
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_none_is_torn() {
        /// Takes every second piece.
        struct Fickle(Vec<Vec<u8>>, bool);
        impl Write for Fickle {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.1 = !self.1;
                if !self.1 {
                    return Err(std::io::ErrorKind::StorageFull.into());
                }
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = "a line of the log\n".repeat(10_000);
        let mut out = Fickle(Vec::new(), false);
        let lost = put(lines.as_bytes(), &mut out);
        let written: usize = out.0.iter().map(|piece| piece.iter().filter(|b| **b == b'\n').count()).sum();
        assert!(
            lost > 0 && out.0.iter().all(|piece| piece.starts_with(b"a line") && piece.ends_with(b"log\n"))
        );
        assert_eq!(written as u64 + lost, 10_000);
    }

    #[test]
    fn a_log_that_nobody_listens_to_costs_no_line() {
        let (sent, came) = channel();
        let log = AccessLog::start(LogFormat::Json, Out(sent, None)).unwrap();
        let pen = log.pen();
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || pen.write(&record()));
        drop((pen, log));
        assert_eq!(came.iter().flatten().count(), 0);
    }
}
