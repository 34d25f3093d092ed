//! What is measured beside the contest: memory of idle connections, and data system calls per request.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use genapi_load::{IdleConnections, LoadPlan, RunProgress};

use super::contest::{Rounds, Workload};
use super::contestants::{Contestant, Entrant};
use super::stage::{BenchEnvironment, file_limit, has_program};

/// KiB that one idle connection costs, for each entrant and number of connections, plain and TLS.
pub fn idle(entrants: &[Entrant], counts: &[usize], stage: &BenchEnvironment) -> anyhow::Result<String> {
    let mut text = String::from("### S6: idle connections, KiB each\n\n| contestant |");
    for count in counts {
        text += &format!(" {count} plain | {count} TLS |");
    }
    text += &format!("\n|---|{}\n", "---|---|".repeat(counts.len()));
    for entrant in entrants {
        text += &format!("| {} |", entrant.name);
        for count in counts {
            for tls in [false, true] {
                if *count as u64 + 500 > file_limit() {
                    text += " too few files |"
                } else {
                    text += &format!(" {:.1} |", one_idle(entrant, *count, tls, stage)?)
                }
            }
        }
        text += "\n";
    }
    Ok(text)
}

/// A fresh process each time: what was allocated for the last measurement must not be there to be used again.
fn one_idle(entrant: &Entrant, count: usize, tls: bool, stage: &BenchEnvironment) -> anyhow::Result<f64> {
    let contestant = entrant.start(stage)?;
    let job = Workload { tls, connections: 8, ..Workload::get("/practice-configuration") };
    let rounds = Rounds { count: 1, warm_up: Duration::ZERO, window: Duration::from_millis(300) };
    let plan = job.plan(&contestant, stage, rounds)?;
    genapi_load::run(&plan, &RunProgress::default())?;
    let before = settled(&contestant);
    let idle = IdleConnections::open(&LoadPlan { connections: count, ..plan })?;
    let after = settled(&contestant);
    Ok((after - before) / idle.count() as f64 / 1024.0)
}

/// Memory once it no longer changes.
fn settled(contestant: &Contestant) -> f64 {
    let mut last = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(150));
        let now = contestant.memory().unwrap_or(0);
        if now.abs_diff(last) < 64 * 1024 {
            return now as f64;
        }
        last = now;
    }
    last as f64
}

/// Calls by which a proxy moves bytes.
const DATA: [&str; 9] =
    ["read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg", "splice"];

/// System calls per request, data and all.
pub fn system_calls(entrants: &[Entrant], stage: &BenchEnvironment) -> anyhow::Result<String> {
    if !has_program("strace") {
        return Ok(
            "System calls: not counted, strace is not installed (apt-get install strace).\n".to_owned()
        );
    }
    let mut text = String::from(
        "### System calls per request (S1)\n\n| contestant | data | all | which |\n|---|---|---|---|\n",
    );
    for entrant in entrants {
        let (data, all, which) = counted(entrant, stage)?;
        text += &format!("| {} | {data:.2} | {all:.2} | {which} |\n", entrant.name);
    }
    Ok(text)
}

fn counted(entrant: &Entrant, stage: &BenchEnvironment) -> anyhow::Result<(f64, f64, String)> {
    let contestant = entrant.start(stage)?;
    let rounds = Rounds { count: 1, warm_up: Duration::ZERO, window: Duration::from_secs(3) };
    let plan = Workload::get("/practice-configuration").plan(&contestant, stage, rounds)?;
    // Connections to the platform are opened before anybody counts.
    genapi_load::run(
        &LoadPlan { duration: Duration::from_millis(300), ..plan.clone() },
        &RunProgress::default(),
    )?;
    let file = stage.folder.join("system-calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&file);
    for pid in tree(contestant.pid().unwrap_or_default()) {
        strace.arg("-p").arg(pid.to_string());
    }
    let mut strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let progress = RunProgress::default();
    genapi_load::run(&plan, &progress)?;
    let _ = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    strace.wait()?;
    let calls = progress.count().calls.max(1) as f64;
    Ok(summary(&file, calls))
}

/// Reads the table that `strace -c` writes: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn summary(file: &Path, requests: f64) -> (f64, f64, String) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (mut data, mut all, mut which) = (0.0, 0.0, Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(count), Some(name)) =
            (words.get(3).and_then(|count| count.parse::<f64>().ok()), words.last())
        else {
            continue;
        };
        if *name == "total" {
            continue;
        }
        all += count / requests;
        if DATA.contains(name) {
            data += count / requests;
        }
        if count / requests >= 0.01 {
            which.push(format!("{name} {:.2}", count / requests));
        }
    }
    (data, all, which.join(", "))
}

fn tree(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    std::iter::once(pid).chain(children.into_iter().flat_map(tree)).collect()
}
