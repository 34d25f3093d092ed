//! What a process costs: processor time and memory, as Linux accounts for them.

use std::time::Duration;

/// Processor time and memory of a process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// Reads a process and all its descendants; `None` where there is no such process (or no `/proc`).
    pub fn of_tree(pid: u32) -> Option<Self> {
        let mut total = Self::of(pid)?;
        for child in children(pid) {
            if let Some(usage) = Self::of_tree(child) {
                total.user += usage.user;
                total.system += usage.system;
                total.resident += usage.resident;
            }
        }
        Some(total)
    }

    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in brackets, which may hold blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        // proc(5): utime is field 14, stime 15, rss 24; counted here from the third.
        Some(Self { user: time(ticks(11)?), system: time(ticks(12)?), resident: ticks(21)? * PAGE })
    }

    pub fn processor(&self) -> Duration {
        self.user + self.system
    }
}

/// Linux shows 100 ticks a second to user space on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);
const PAGE: u64 = 4096;

fn time(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
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
}
