//! `load`: a load test of a gateway, with figures on the way and limits that decide the exit code.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use genapi_load::{LoadPlan, LoadReport, LoopMode, RequestSpec, RunProgress, plot};

use super::test_accounts::require_test_accounts;
use super::trust::trust;

/// Where a key is taken from when no file names one: never from an
/// argument, which everybody on the machine can read.
const KEY_VARIABLE: &str = "GENAPI_GATEWAY_KEY";

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Base URLs, as an application would be given them; connections are shared out among several.
    #[arg(required = true, value_name = "URL")]
    pub targets: Vec<Url>,
    /// Accounts to call for, one after the other: each call goes to /accounts/NAME/…
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub accounts: Vec<String>,
    /// The same from a file: a name per line, or the JSON array that `accounts import` reads.
    #[arg(long, value_name = "FILE", conflicts_with = "accounts")]
    pub accounts_file: Option<PathBuf>,
    /// Caller's keys for X-Gateway-Key, one per line; without it the environment's GENAPI_GATEWAY_KEY.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A call of the mix: '[WEIGHT*]METHOD PATH [BODY|@FILE]'; {account}
    /// stands for the account's name. May be repeated.
    #[arg(long = "call", value_name = "CALL", default_value = "GET /practice-configuration", value_parser = parse_call)]
    pub calls: Vec<RequestSpec>,
    /// A header for every call. May be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Calls per second, whatever the target does (open loop); without it
    /// each connection sends as fast as responses come.
    #[arg(long, value_name = "PER SECOND")]
    pub rate: Option<f64>,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub connections: usize,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// How long to count.
    #[arg(long = "for", default_value = "30s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long to send before counting begins.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// A call that takes longer counts as an error.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// PEM file with the CA of an https target; without it the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Exit with 1 if 99 % of the calls take longer than this.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_p99: Option<Duration>,
    /// Exit with 1 if more calls fail than this: a number, or a share such as 0.1%.
    #[arg(long, value_name = "N|P%")]
    pub max_errors: Option<MaxErrors>,
    /// Also against the real platform, for accounts that `accounts test` has marked as test accounts; the
    /// gateway of the configuration file is asked. Without this, a target that is not backed by a sandbox is
    /// refused.
    #[arg(long)]
    pub real_platform: bool,
    /// For accounts too that are no test accounts: their clinics work with them.
    #[arg(long, requires = "real_platform")]
    pub force: bool,
    /// How to print the result.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    pub output: String,
    /// Write the latency by percentile as an SVG picture.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the result as JSON too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How many failed calls are still good enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxErrors {
    Calls(u64),
    /// From 0 to 1.
    Share(f64),
}

pub fn run(config: &Path, arguments: &LoadArguments) -> ExitCode {
    match plan(config, arguments).and_then(|plan| measure(&plan)).and_then(|report| tell(arguments, &report))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn plan(config: &Path, arguments: &LoadArguments) -> Result<LoadPlan, String> {
    let headers: HeaderMap = arguments.headers.iter().cloned().collect();
    let mut mix = arguments.calls.clone();
    mix.iter_mut().for_each(|call| call.headers.extend(headers.clone()));
    let accounts = match &arguments.accounts_file {
        Some(file) => account_names(file, &read(file)?)?,
        None => arguments.accounts.clone(),
    };
    if arguments.real_platform && !arguments.force {
        require_test_accounts(config, &accounts)?;
    }
    let secure = arguments.targets.iter().any(|target| target.scheme() == "https");
    Ok(LoadPlan {
        targets: arguments.targets.clone(),
        accounts,
        keys: keys(arguments.key_file.as_deref())?,
        mix,
        loop_mode: arguments.rate.map_or(LoopMode::Closed, LoopMode::Open),
        connections: arguments.connections,
        threads: arguments.threads,
        warm_up: arguments.warm_up,
        duration: arguments.duration,
        timeout: arguments.timeout,
        trust: if secure { Some(trust(arguments.ca_file.as_deref())?) } else { None },
        real_platform: arguments.real_platform,
    })
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Names from a list of lines, or from the array that `accounts import` reads.
fn account_names(file: &Path, text: &str) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Imported {
        name: String,
    }
    let names: Vec<String> = if text.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<Imported>>(text)
            .map_err(|error| format!("{}: {error}", file.display()))?
            .into_iter()
            .map(|account| account.name)
            .collect()
    } else {
        lines(text).map(str::to_owned).collect()
    };
    if names.is_empty() { Err(format!("{} names no account", file.display())) } else { Ok(names) }
}

/// Lines that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn keys(file: Option<&Path>) -> Result<Vec<HeaderValue>, String> {
    let text = match file {
        Some(file) => read(file)?,
        None => std::env::var(KEY_VARIABLE).unwrap_or_default(),
    };
    let key = |line: &str| {
        let mut value =
            HeaderValue::from_str(line).map_err(|_| "a key holds characters that no header may hold")?;
        value.set_sensitive(true);
        Ok(value)
    };
    lines(&text).map(key).collect()
}

/// Runs the plan and shows every second on standard error how it goes;
/// Ctrl-C ends it early with the figures so far.
fn measure(plan: &LoadPlan) -> Result<LoadReport, String> {
    let progress = Arc::new(RunProgress::default());
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| genapi_load::run(plan, &progress));
        watch(plan, &progress, || running.is_finished());
        running.join().map_err(|_| "the generator died".to_owned())
    });
    report?.map_err(|error| error.to_string())
}

fn watch(plan: &LoadPlan, progress: &Arc<RunProgress>, finished: impl Fn() -> bool) {
    stop_on_interrupt(progress.clone());
    let started = Instant::now();
    let total = plan.warm_up + plan.duration;
    let mut shown = (started, progress.count());
    let live = std::io::stderr().is_terminal();
    while !finished() {
        std::thread::sleep(Duration::from_millis(50));
        let (since, last) = shown;
        if since.elapsed() < Duration::from_secs(1) {
            continue;
        }
        let now = progress.count();
        let seconds = since.elapsed().as_secs_f64();
        let rate = (now.calls - last.calls) as f64 / seconds;
        let megabytes = (now.bytes - last.bytes) as f64 / seconds / 1e6;
        let failed = now.failures - last.failures;
        let elapsed = started.elapsed().min(total).as_secs();
        let phase = if started.elapsed() < plan.warm_up { " warming up" } else { "" };
        let end = if live { "\x1b[K\r" } else { "\n" };
        let line = format!(
            "{elapsed:>4} of {} s{phase}: {rate:.0} calls/s, {megabytes:.1} MB/s, {failed} failed",
            total.as_secs()
        );
        eprint!("{line}{end}");
        let _ = std::io::stderr().flush();
        shown = (Instant::now(), now);
    }
    if live {
        eprint!("\x1b[K");
    }
}

/// Without a runtime for signals the default stays: Ctrl-C ends the process.
fn stop_on_interrupt(progress: Arc<RunProgress>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            progress.stop();
            // A second one ends it at once.
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                std::process::exit(130);
            }
        }
    });
}

/// Prints and writes the result; whether it is within the limits.
fn tell(arguments: &LoadArguments, report: &LoadReport) -> Result<bool, String> {
    let json =
        || serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| error.to_string());
    let write = |file: &Path, text: &str| {
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    let text = if arguments.output == "json" { json()? } else { report.to_string() };
    // A closed pipe (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Some(file) = &arguments.json {
        write(file, &json()?)?;
    }
    if let Some(file) = &arguments.svg {
        let title = format!("latency, {:.0} calls/s", report.calls_per_second);
        let calls = report.calls.to_string() + " calls";
        write(file, &plot::svg(&title, &[plot::Series { name: &calls, curve: &report.curve }]))?;
    }
    let broken = broken_limits(arguments, report);
    broken.iter().for_each(|limit| eprintln!("{limit}"));
    Ok(broken.is_empty())
}

fn broken_limits(arguments: &LoadArguments, report: &LoadReport) -> Vec<String> {
    let mut broken = Vec::new();
    if report.calls == 0 {
        broken.push("no call was answered".to_owned());
    } else if report.failure_share() >= 1.0 {
        // Without a limit of its own too: a mistyped key or address must not look like a good run.
        broken.push(format!("every call failed, {} of them", report.calls + report.unsent));
    }
    let p99 = Duration::from_micros(report.latency_us.p99);
    if let Some(limit) = arguments.max_p99
        && p99 > limit
    {
        broken.push(format!("p99 is {p99:?}, more than --max-p99 {limit:?}"));
    }
    let failed = report.failures + report.unsent;
    let share = report.failure_share();
    let percent = share * 100.0;
    match arguments.max_errors {
        Some(MaxErrors::Calls(limit)) if failed > limit => {
            broken.push(format!("{failed} calls failed, more than --max-errors {limit}"));
        }
        Some(MaxErrors::Share(limit)) if share > limit => {
            broken.push(format!(
                "{percent:.3} % of the calls failed, more than --max-errors {}%",
                limit * 100.0
            ));
        }
        _ => {}
    }
    broken
}

impl std::str::FromStr for MaxErrors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number of calls nor a share such as 0.1%");
        match text.strip_suffix('%') {
            None => text.parse().map(MaxErrors::Calls).map_err(|_| wrong()),
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxErrors::Share(percent / 100.0)),
                _ => Err(wrong()),
            },
        }
    }
}

/// `[WEIGHT*]METHOD PATH [BODY|@FILE]`
fn parse_call(text: &str) -> Result<RequestSpec, String> {
    let wrong = |what: &str| Err(format!("{what}; a call is '[WEIGHT*]METHOD PATH [BODY|@FILE]'"));
    let mut words = text.trim().splitn(3, ' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return wrong("method and path are needed");
    };
    let (weight, method) = match method.split_once('*') {
        Some((weight, method)) => (weight.parse::<u32>().unwrap_or(0), method),
        None => (1, method),
    };
    if !(1..=1000).contains(&weight) {
        return wrong("a weight is a number from 1 to 1000");
    }
    let Ok(method) = method.parse::<Method>() else { return wrong("that is no method") };
    if !path.starts_with('/') {
        return wrong("a path begins with /");
    }
    let body = match words.next().map(str::trim).unwrap_or_default() {
        file if file.starts_with('@') => {
            std::fs::read(&file[1..]).map_err(|error| format!("{}: {error}", &file[1..]))?
        }
        inline => inline.as_bytes().to_vec(),
    };
    let mut call = RequestSpec { weight, ..RequestSpec::new(method, path, Bytes::from(body)) };
    if !call.body.is_empty() {
        call.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(call)
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no header's name"))?;
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| "that is no header's value")?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_weight_method_path_and_body() {
        let call = parse_call("3*GET /orders/lab").unwrap();
        assert_eq!((call.weight, call.method, call.path.as_str()), (3, Method::GET, "/orders/lab"));
        let call = parse_call(r#"POST /patient/search {"LastName": "{account}"}"#).unwrap();
        assert_eq!(&call.body[..], br#"{"LastName": "{account}"}"#);
        assert_eq!(call.headers["content-type"], "application/json");
        for bad in ["GET", "0*GET /", "x*GET /", "GET orders", "G ET", "POST / @/no/such/file"] {
            assert!(parse_call(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_limited_by_number_or_share() {
        assert_eq!("10".parse(), Ok(MaxErrors::Calls(10)));
        assert_eq!("0.5%".parse(), Ok(MaxErrors::Share(0.005)));
        for bad in ["", "-1", "x%", "101%", "1.5"] {
            assert!(bad.parse::<MaxErrors>().is_err(), "{bad}");
        }
    }

    #[test]
    fn accounts_come_from_lines_or_from_what_import_reads() {
        let file = Path::new("accounts");
        assert_eq!(account_names(file, "a\n\n# b\n c \n").unwrap(), ["a", "c"]);
        let imported = r#"[{"name": "a", "realm": "r", "account_id": 1, "refresh_token": "t"}]"#;
        assert_eq!(account_names(file, imported).unwrap(), ["a"]);
        assert!(account_names(file, "\n").is_err());
    }
}
