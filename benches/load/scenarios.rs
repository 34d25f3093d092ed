//! The scenarios as a table: what is asked for, by whom, against what it is compared.

use std::time::Duration;

use genapi_load::LoopMode;
use http::Method;

use super::awake::CpuLatencyRequest;
use super::contest::{self, Account, Entry, Per, Precondition, Rounds, Workload};
use super::contestants::{Contestant, Entrant, Kind};
use super::figures::Result;
use super::platform::{ASSET_BYTES, LIST_BYTES, POST_BYTES, SMALL_LIST_BYTES};
use super::stage::BenchEnvironment;

/// How a scenario differs from a plain contest of all entrants with one job.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    AccessLogs,
    TwoWorkers,
    /// The proxies on the generator's core.
    OneCore,
    /// The same body of so many bytes on a row with links and, here, on one without, through the gateway.
    Rewriting {
        untouched: &'static str,
        bytes: usize,
    },
    /// The gateway with few accounts and with many.
    ManyAccounts(usize),
}

/// One load, with the claim that it tests.
pub struct Scenario {
    pub id: &'static str,
    pub what: &'static str,
    /// Part of a quick run.
    pub quick: bool,
    form: Form,
    job: fn() -> Workload,
}

pub const SMALL: &str = "/practice-configuration";
const LIST: &str = "/orders/lab";
const UNTOUCHED: &str = "/practice-configuration?as=list";
const SMALL_LIST: &str = "/orders/lab?as=small-list";
const SMALL_UNTOUCHED: &str = "/practice-configuration?as=small-list";
/// Calls per second at which latencies are compared.
pub const RATE: f64 = 4000.0;
const MANY: usize = 50_000;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "S1",
        what: "small GET, 1.5 KB token",
        quick: true,
        form: Form::Plain,
        job: || Workload::get(SMALL),
    },
    Scenario {
        id: "S1-log",
        what: "the same with access logs on",
        quick: false,
        form: Form::AccessLogs,
        job: || Workload::get(SMALL),
    },
    Scenario {
        id: "S1-two",
        what: "the same with two workers on two cores",
        quick: false,
        form: Form::TwoWorkers,
        job: || Workload { connections: 64, ..Workload::get(SMALL) },
    },
    Scenario {
        id: "S2",
        what: "small GET, 8 KB token",
        quick: true,
        form: Form::Plain,
        job: || Workload { account: Account::Large, ..Workload::get(SMALL) },
    },
    Scenario {
        id: "S3",
        what: "small GET, callers over TLS",
        quick: true,
        form: Form::Plain,
        job: || Workload { tls: true, ..Workload::get(SMALL) },
    },
    Scenario {
        id: "S4",
        what: "100 MB downloads, four at once",
        quick: true,
        form: Form::Plain,
        job: || Workload {
            connections: 4,
            per: Per::Gigabyte,
            bytes: Some(ASSET_BYTES),
            ..Workload::get("/order/1/download/IDE")
        },
    },
    Scenario {
        id: "S5",
        what: "POST of 2 KB",
        quick: true,
        form: Form::Plain,
        job: || Workload {
            method: Method::POST,
            body: POST_BYTES,
            bytes: None,
            ..Workload::get("/patient/search")
        },
    },
    Scenario {
        id: "S5-idle",
        what: "the same after 64 GETs at once and 3.5 s of nothing",
        quick: true,
        form: Form::Plain,
        job: || Workload {
            method: Method::POST,
            body: POST_BYTES,
            bytes: None,
            before: Some(Precondition { path: SMALL, connections: 64, pause: Duration::from_millis(3_500) }),
            ..Workload::get("/patient/search")
        },
    },
    Scenario {
        id: "S7",
        what: "order list of 200 KB with 400 links",
        quick: true,
        form: Form::Rewriting { untouched: UNTOUCHED, bytes: LIST_BYTES },
        job: || Workload { bytes: None, ..Workload::get(LIST) },
    },
    Scenario {
        id: "S7-small",
        what: "order list of 1.2 KB without a link",
        quick: true,
        form: Form::Rewriting { untouched: SMALL_UNTOUCHED, bytes: SMALL_LIST_BYTES },
        job: || Workload { bytes: Some(SMALL_LIST_BYTES as u64), ..Workload::get(SMALL_LIST) },
    },
    Scenario {
        id: "S8",
        what: "50,000 accounts, calls spread over all",
        quick: false,
        form: Form::ManyAccounts(MANY),
        job: || Workload::get(SMALL),
    },
    Scenario {
        id: "S9",
        what: "1 % of answers are 500, 504 or 401; 1000 calls/s",
        quick: false,
        form: Form::Plain,
        job: || Workload {
            loop_mode: LoopMode::Open(1000.0),
            connections: 128,
            bytes: None,
            troubled: true,
            ..Workload::get("/practice-configuration?trouble=some")
        },
    },
    Scenario {
        id: "rate",
        what: "latency of small GETs at 4000 calls/s",
        quick: true,
        form: Form::Plain,
        job: || Workload { loop_mode: LoopMode::Open(RATE), ..Workload::get(SMALL) },
    },
    Scenario {
        id: "rate-one",
        what: "the same with everything on one core, so that no call has to wake another",
        quick: false,
        form: Form::OneCore,
        job: || Workload { loop_mode: LoopMode::Open(RATE), ..Workload::get(SMALL) },
    },
];

impl Scenario {
    pub fn measure(
        &self,
        entrants: &[Entrant],
        stage: &BenchEnvironment,
        rounds: Rounds,
    ) -> anyhow::Result<Result> {
        let job = (self.job)();
        let rounds = match self.form {
            // A response that is repeated comes a second later: shorter windows would not see it.
            Form::Plain if job.troubled => {
                Rounds { window: rounds.window.max(Duration::from_secs(3)), ..rounds }
            }
            _ => rounds,
        };
        let entrants = self.entrants(entrants);
        let running =
            entrants.iter().map(|entrant| entrant.start(stage)).collect::<anyhow::Result<Vec<_>>>()?;
        let (entries, baseline) = self.entries(&entrants, &running, &job);
        let awake = matches!(job.loop_mode, LoopMode::Open(_)).then(CpuLatencyRequest::ask);
        let rows = contest::run(&entries, stage, rounds, contest::Order::Rotating)?;
        let mut result = Result {
            id: self.id,
            what: self.what.to_owned(),
            per: job.per,
            baseline,
            rows,
            notes: awake.iter().map(CpuLatencyRequest::note).collect(),
        };
        if let Form::ManyAccounts(count) = self.form {
            result.notes.extend(per_account(&result, count));
            let started =
                running.iter().map(|one| format!("{} {:.1} s", one.name, one.started_in.as_secs_f64()));
            result
                .notes
                .push(format!("from start to first answer: {}", started.collect::<Vec<_>>().join(", ")));
        }
        if let Some(note) = busy_generator(&result) {
            result.notes.push(note);
        }
        Ok(result)
    }

    /// The entrants as this scenario wants them.
    fn entrants(&self, all: &[Entrant]) -> Vec<Entrant> {
        let is_gateway = |entrant: &&Entrant| matches!(entrant.kind, Kind::Gateway(_));
        let proxies = || all.iter().filter(|entrant| entrant.kind != Kind::Direct).cloned();
        match self.form {
            Form::Plain => all.to_vec(),
            Form::AccessLogs => proxies().map(|entrant| Entrant { access_log: true, ..entrant }).collect(),
            Form::TwoWorkers => proxies().map(|entrant| Entrant { workers: 2, ..entrant }).collect(),
            Form::OneCore => {
                all.iter().map(|entrant| Entrant { beside_generator: true, ..entrant.clone() }).collect()
            }
            Form::Rewriting { .. } => all.iter().filter(is_gateway).cloned().collect(),
            Form::ManyAccounts(accounts) => {
                let few = all.iter().filter(is_gateway).cloned();
                let many = few.clone().map(|entrant| Entrant {
                    name: format!("{} with many", entrant.name),
                    accounts,
                    ..entrant
                });
                few.chain(many).collect()
            }
        }
    }

    fn entries<'a>(
        &self,
        entrants: &[Entrant],
        running: &'a [Contestant],
        job: &Workload,
    ) -> (Vec<Entry<'a>>, &'static str) {
        let entry = |contestant: &'a Contestant, label: String, job: Workload| Entry {
            label,
            contestant,
            job,
            beside: None,
        };
        let each = || running.iter().zip(entrants);
        match self.form {
            Form::Plain | Form::AccessLogs | Form::TwoWorkers | Form::OneCore => {
                let entries = each().map(|(one, _)| entry(one, one.name.clone(), job.clone()));
                (entries.collect(), "nginx")
            }
            Form::Rewriting { untouched: path, bytes } => {
                let untouched = Workload { path, bytes: Some(bytes as u64), ..job.clone() };
                let entries = each().flat_map(|(one, _)| {
                    let rewritten = entry(one, format!("{}, rewritten", one.name), job.clone());
                    [entry(one, format!("{}, untouched", one.name), untouched.clone()), rewritten]
                });
                (entries.collect(), "gateway, untouched")
            }
            Form::ManyAccounts(count) => {
                let entries = each().map(|(one, entrant)| {
                    let account = if entrant.accounts > 0 { Account::Many(count) } else { job.account };
                    entry(one, one.name.clone(), Workload { account, ..job.clone() })
                });
                (entries.collect(), "gateway")
            }
        }
    }
}

/// Memory that an account costs beyond its tokens.
fn per_account(result: &Result, count: usize) -> Option<String> {
    let of = |label: &str| result.rows.iter().find(|row| row.label == label)?.memory;
    let (few, many) = (of("gateway")?, of("gateway with many")?);
    let tokens = super::platform::SMALL_TOKEN + super::platform::refresh_token("clinic-00000", 1536).len();
    let each = (many as f64 - few as f64) / count as f64;
    Some(format!("{each:.0} bytes per account, {:.0} beyond its tokens of {tokens}", each - tokens as f64))
}

fn busy_generator(result: &Result) -> Option<String> {
    let samples = result.rows.iter().flat_map(|row| &row.samples);
    let busiest = samples.map(|sample| sample.generator).fold(0.0, f64::max);
    (busiest > 0.5).then(|| format!("the generator used up to {:.0} % of its core", busiest * 100.0))
}
