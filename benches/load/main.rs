//! The contest: gateway, nginx, HAProxy and no proxy at all, on the same work, in one run.
//!
//! `cargo bench --bench load` runs everything, `-- --quick` the main part within a minute, `-- --target URL
//! --rate N --for 30s` drives a gateway that already runs. How to read the figures: `docs/benchmarks.md`.

mod aside;
mod awake;
mod contest;
mod contestants;
mod disorder;
mod figures;
mod platform;
mod scenarios;
mod stage;
mod trouble;
mod troubled;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use genapi_gateway::cli::load::LoadArguments;
use serde_json::{Value, json};

use contest::Rounds;
use contestants::{Entrant, Kind};
use stage::BenchEnvironment;

/// Gateway against nginx, HAProxy and no proxy at all.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// The main part only, in about a minute.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios (S1, S1-log, S1-two, S2 … S9, rate,
    /// rate-one, trouble, calls), separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    only: Vec<String>,
    /// Only these contestants (gateway, nginx, haproxy, direct), separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    contestants: Vec<String>,
    /// Another build of the gateway, measured beside this one. May be repeated.
    #[arg(long, value_name = "NAME=BINARY", value_parser = parse_also)]
    also: Vec<(String, PathBuf)>,
    /// Rounds of each scenario.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each window is.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// Leave configurations and logs of the contestants behind.
    #[arg(long)]
    keep: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// `-- --target URL …` takes what `genapi-gateway load` takes.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct LoadCommand {
    /// Of the gateway that says which accounts are test accounts, with --real-platform.
    #[arg(short, long, env = "GENAPI_GATEWAY_CONFIG", default_value = genapi_gateway::cli::DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(flatten)]
    load: LoadArguments,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, play, folder] = words.as_slice()
        && play == stage::PLAY_PLATFORM
    {
        return finish(platform::serve(Path::new(folder)).map(|()| true));
    }
    if !words.iter().any(|word| word == "--bench") {
        println!("run with `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| word == "--target") {
        let words = words.into_iter().filter(|word| word != "--target" && word != "--bench");
        let LoadCommand { config, load } = LoadCommand::parse_from(words);
        return genapi_gateway::cli::load::run(&config, &load);
    }
    let arguments = Arguments::parse();
    finish(stage::settle().and_then(|()| contest(&arguments)))
}

fn finish(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure is valid.
fn contest(arguments: &Arguments) -> anyhow::Result<bool> {
    let stage = BenchEnvironment::set_up(arguments.keep)?;
    let entrants = entrants(arguments);
    let rounds = if arguments.quick {
        Rounds { count: 3, warm_up: Duration::from_millis(200), window: Duration::from_millis(500) }
    } else {
        Rounds { count: 9, warm_up: Duration::from_millis(400), window: Duration::from_secs(2) }
    };
    let count = arguments.rounds.unwrap_or(rounds.count).max(1);
    let rounds = Rounds { count, window: arguments.window.unwrap_or(rounds.window), ..rounds };
    let wanted = |id: &str, quick: bool| {
        if arguments.only.is_empty() {
            quick || !arguments.quick
        } else {
            arguments.only.iter().any(|only| only.eq_ignore_ascii_case(id))
        }
    };
    let mut report = machine(&entrants, rounds);
    println!("{report}");
    let mut results = Vec::new();
    let mut valid = true;
    let mut asides = serde_json::Map::new();
    for scenario in scenarios::SCENARIOS.iter().filter(|scenario| wanted(scenario.id, scenario.quick)) {
        let result = scenario.measure(&entrants, &stage, rounds).with_context(|| scenario.id)?;
        let table = result.table();
        println!("{table}");
        report = report + &table + "\n";
        valid &= result.is_valid();
        results.push(result.json());
    }
    if wanted("trouble", false) {
        for figures in trouble::measure(&entrants, &arguments.contestants, &stage, rounds)? {
            let table = figures.table();
            println!("{table}");
            report = report + &table + "\n";
            valid &= figures.is_valid();
            results.push(figures.json());
        }
    }
    let proxies: Vec<Entrant> = entrants.into_iter().filter(|entrant| entrant.kind != Kind::Direct).collect();
    if wanted("S6", false) {
        let text = aside::idle(&proxies, &[1000, 10_000], &stage)?;
        println!("{text}");
        report = report + &text + "\n";
        asides.insert("S6".to_owned(), Value::from(text));
    }
    if wanted("calls", false) {
        let text = aside::system_calls(&proxies, &stage)?;
        println!("{text}");
        report = report + &text + "\n";
        asides.insert("calls".to_owned(), Value::from(text));
    }
    write(&report, &json!({"scenarios": results, "asides": asides, "platform": stage.counters()?}))?;
    if !valid {
        println!("Some figures are not valid: see the lines that say so.");
    }
    Ok(valid)
}

fn entrants(arguments: &Arguments) -> Vec<Entrant> {
    let gateway = Kind::Gateway(PathBuf::from(env!("CARGO_BIN_EXE_genapi-gateway")));
    let mut all = vec![Entrant::new("gateway", gateway)];
    all.extend(arguments.also.iter().map(|(name, binary)| Entrant::new(name, Kind::Gateway(binary.clone()))));
    for (name, kind) in [("nginx", Kind::Nginx), ("haproxy", Kind::Haproxy)] {
        if stage::has_program(name) {
            all.push(Entrant::new(name, kind))
        } else {
            println!("{name} is not installed and does not take part: apt-get install nginx-light haproxy")
        }
    }
    all.push(Entrant::new("direct", Kind::Direct));
    let chosen = &arguments.contestants;
    let is_also = |name: &str| arguments.also.iter().any(|(also, _)| also == name);
    all.retain(|entrant| chosen.is_empty() || chosen.contains(&entrant.name) || is_also(&entrant.name));
    all
}

/// What the figures were measured on.
fn machine(entrants: &[Entrant], rounds: Rounds) -> String {
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let cores =
        std::fs::read_to_string("/proc/cpuinfo").map_or(0, |text| text.matches("processor\t").count());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let names = entrants.iter().map(|entrant| match entrant.kind {
        Kind::Nginx => version("nginx", "-v"),
        Kind::Haproxy => version("haproxy", "-v"),
        _ => entrant.name.clone(),
    });
    let profile = if cfg!(debug_assertions) { " (**debug build: worthless**)" } else { "" };
    format!(
        "{} × {cores}, {} of memory, Linux {}. {} rounds of {:?} each after {:?}. Contestants{profile}: {}.\n\n",
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal"),
        kernel.trim(),
        rounds.count,
        rounds.window,
        rounds.warm_up,
        names.collect::<Vec<_>>().join(", ")
    )
}

/// The first line of what a program says of itself.
fn version(program: &str, flag: &str) -> String {
    let output = std::process::Command::new(program).arg(flag).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or(program).trim_start_matches("nginx version: ").to_owned()
}

fn write(report: &str, figures: &Value) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let (json, markdown) = (folder.join("bench-load.json"), folder.join("bench-load.md"));
    std::fs::write(&json, serde_json::to_vec_pretty(figures)?).with_context(|| json.display().to_string())?;
    std::fs::write(&markdown, report).with_context(|| markdown.display().to_string())?;
    println!("written: target/bench-load.json, target/bench-load.md");
    Ok(())
}

fn parse_also(text: &str) -> Result<(String, PathBuf), String> {
    let (name, binary) = text.split_once('=').ok_or("it is NAME=BINARY")?;
    let binary = PathBuf::from(binary).canonicalize().map_err(|error| format!("{binary}: {error}"))?;
    Ok((name.to_owned(), binary))
}
