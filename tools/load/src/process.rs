//! What a process costs: processor time and memory, as Linux accounts for them.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Processor time and memory of a process and its descendants at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub processor: Duration,
    /// Resident memory in bytes; what several processes share counts once.
    pub resident: u64,
}

impl Usage {
    /// Reads a process and all its descendants; `None` where there is no such process (or no `/proc`).
    pub fn of_tree(pid: u32) -> Option<Self> {
        let mut total = Self { processor: processor(pid)?, resident: resident(pid) };
        for child in children(pid) {
            if let Some(usage) = Self::of_tree(child) {
                total.processor += usage.processor;
                total.resident += usage.resident;
            }
        }
        Some(total)
    }

    /// Only the processor time, which is cheap to read.
    pub fn processor_of_tree(pid: u32) -> Option<Duration> {
        let own = processor(pid)?;
        Some(children(pid).into_iter().filter_map(Self::processor_of_tree).fold(own, |sum, time| sum + time))
    }
}

/// Processor time of the calling thread; zero where the system does not tell.
pub fn thread_time() -> Duration {
    on_processor(Path::new("/proc/thread-self/schedstat")).unwrap_or_default()
}

/// To the nanosecond where the kernel counts so, else in ticks; threads that have ended count only in ticks.
fn processor(pid: u32) -> Option<Duration> {
    let ticks = ticks(pid)?;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let exact: Option<Vec<Duration>> =
        threads.map(|task| on_processor(&task.path().join("schedstat"))).collect();
    let exact = exact.map_or(Duration::ZERO, |times| times.into_iter().sum());
    Some(if exact + TICK * 2 >= ticks { exact } else { ticks })
}

/// The first number of a schedstat: nanoseconds on a processor.
fn on_processor(file: &Path) -> Option<Duration> {
    let text = fs::read_to_string(file).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// Linux shows 100 ticks a second to user space on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

fn ticks(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may hold blanks;
    // proc(5) counts utime as 14 and stime as 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

/// The proportional share where the kernel tells it, else all resident pages.
fn resident(pid: u32) -> u64 {
    let kilobytes = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let share = kilobytes("smaps_rollup", "Pss:").or_else(|| kilobytes("status", "VmRSS:"));
    share.unwrap_or(0) * 1024
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_no_process_has_none() {
        assert!(Usage::of_tree(std::process::id()).unwrap().resident > 100_000);
        assert!(Usage::of_tree(u32::MAX - 1).is_none());
    }

    #[test]
    fn work_shows_in_the_processor_time() {
        let before = Usage::processor_of_tree(std::process::id()).unwrap();
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(Usage::processor_of_tree(std::process::id()).unwrap() > before);
    }
}
