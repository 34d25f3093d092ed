//! `check`: what `serve` looks at before it opens, binds or makes anything, and with `--connect` the way to
//! the platform, step by step.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use url::Url;

use crate::app::{preflight, realms};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Diagnostic, LoadedConfig, RealmConfig};
use crate::platform::{CredentialsCheck, PlatformClient};
use crate::upstream::Connector;

use super::output::{Format, print_error, print_one, say};
use super::{CheckArguments, CheckFormat, EXIT_CONFIG};

pub fn run(file: &Path, arguments: &CheckArguments) -> ExitCode {
    let loaded = preflight::load(file, &config::process_env, &Clock::system());
    match arguments.output {
        CheckFormat::Table => in_lines(file, loaded, arguments.connect),
        CheckFormat::Json => in_json(loaded, arguments.connect),
    }
}

fn in_lines(file: &Path, loaded: Result<LoadedConfig, ConfigError>, connects: bool) -> ExitCode {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let remarks = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", with the warning above".to_owned(),
        more => format!(", with the {more} warnings above"),
    };
    say!("{}: the configuration is valid{remarks}", file.display());
    if !connects {
        return ExitCode::SUCCESS;
    }
    let mut steps = CheckSteps { prints: true, ..CheckSteps::default() };
    match connect(&loaded.config, &mut steps) {
        Ok(()) => steps.exit_code(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What `-o json` prints: one document on standard output, whatever was found.
#[derive(Serialize)]
struct CheckReport {
    valid: bool,
    errors: Vec<DiagnosticView>,
    warnings: Vec<DiagnosticView>,
    /// Empty without `--connect`.
    steps: Vec<CheckStep>,
}

/// A problem as programs read it. A place that is not known is null.
#[derive(Serialize)]
struct DiagnosticView {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    key: Option<String>,
    problem: String,
    fix: String,
}

impl From<&Diagnostic> for DiagnosticView {
    fn from(problem: &Diagnostic) -> Self {
        Self {
            file: problem.file.display().to_string(),
            line: (problem.line > 0).then_some(problem.line),
            column: (problem.column > 0).then_some(problem.column),
            key: (!problem.key.is_empty()).then(|| problem.key.clone()),
            problem: problem.what.clone(),
            fix: problem.fix.clone(),
        }
    }
}

fn in_json(loaded: Result<LoadedConfig, ConfigError>, connects: bool) -> ExitCode {
    let mut steps = CheckSteps::default();
    let (report, code) = match loaded {
        Err(problems) => {
            let errors = problems.iter().map(DiagnosticView::from).collect();
            (
                CheckReport { valid: false, errors, warnings: vec![], steps: vec![] },
                ExitCode::from(EXIT_CONFIG),
            )
        }
        Ok(loaded) => {
            if connects && let Err(error) = connect(&loaded.config, &mut steps) {
                print_error(&serde_json::json!({"code": "failed", "detail": error, "fix": ""}).to_string());
                return ExitCode::FAILURE;
            }
            let (code, warnings) =
                (steps.exit_code(), loaded.warnings.iter().map(DiagnosticView::from).collect());
            (CheckReport { valid: true, errors: vec![], warnings, steps: steps.taken }, code)
        }
    };
    print_one(Format::Json, &report, String::new);
    code
}

/// What was tried on the way to the platform.
#[derive(Default)]
struct CheckSteps {
    /// Whether each is printed as soon as it is done.
    prints: bool,
    realm: String,
    taken: Vec<CheckStep>,
}

#[derive(Serialize)]
struct CheckStep {
    realm: String,
    step: String,
    ok: bool,
    detail: String,
}

impl CheckSteps {
    fn begin(&mut self, realm: &RealmConfig) {
        self.realm = realm.name.to_string();
        if self.prints {
            say!("realm {}", realm.name);
        }
    }

    fn take(&mut self, step: &str, outcome: Result<String, String>) {
        let ok = outcome.is_ok();
        let (Ok(detail) | Err(detail)) = outcome;
        if self.prints {
            say!("  {}  {step}: {detail}", if ok { "ok    " } else { "failed" });
        }
        self.taken.push(CheckStep { realm: self.realm.clone(), step: step.to_owned(), ok, detail });
    }

    fn exit_code(&self) -> ExitCode {
        if self.taken.iter().all(|step| step.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn connect(config: &Config, steps: &mut CheckSteps) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        for realm in config.realms.values() {
            steps.begin(realm);
            one_realm(config, realm, steps).await;
        }
    });
    Ok(())
}

async fn one_realm(config: &Config, realm: &RealmConfig, steps: &mut CheckSteps) {
    let parts = match realms::build(realm, &config.upstream, None) {
        Ok(parts) => parts,
        Err(error) => return steps.take("set-up", Err(format!("{error:#}"))),
    };
    for (key, url) in [("oauth_base", &realm.oauth_base), ("base_url", &realm.base_url)] {
        reachable(&parts.connector, key, url, steps).await;
    }
    steps.take("credentials", credentials(&parts.platform).await);
    steps.take("redirect_uri", redirect_rules(realm));
    steps.take("discovery", discovery(&parts.connector, realm).await);
}

/// Names and addresses, TLS, and whether the two clocks agree: tokens are kept by time.
async fn reachable(connector: &Connector, key: &str, url: &Url, steps: &mut CheckSteps) {
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()) else {
        return steps.take(key, Err(format!("{url} names no host")));
    };
    let addresses = connector.addresses(host, port).await;
    let found =
        addresses.map(|all| format!("{host} is at {}", listed(&all))).map_err(|error| error.to_string());
    let behind_proxy = connector.proxy_for(url).is_some();
    let found = if found.is_err() && behind_proxy { Ok("left to the outbound proxy".into()) } else { found };
    steps.take(&format!("{key}: name"), found);
    match ask(connector, url, Method::HEAD).await {
        Ok(response) => {
            let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            let secure =
                if url.scheme() == "https" { "connected, certificate trusted" } else { "connected, no TLS" };
            steps.take(&format!("{key}: connection"), Ok(secure.into()));
            steps.take(&format!("{key}: clock"), clock(date));
        }
        Err(error) => steps.take(&format!("{key}: connection"), Err(error)),
    }
}

fn listed(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

/// One request without a token on a connection of its own.
async fn ask(connector: &Connector, url: &Url, method: Method) -> Result<Response<Incoming>, String> {
    let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or("the address names no host")?;
    let response = async {
        let stream = connector
            .connect(host, port, url.scheme() == "https")
            .await
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = Request::builder().method(method).uri(target).header(header::HOST, authority);
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string());
        driver.abort();
        response
    };
    tokio::time::timeout(PATIENCE, response).await.unwrap_or_else(|_| Err("no answer in 15 s".to_owned()))
}

const PATIENCE: Duration = Duration::from_secs(15);
/// Less than any token's life by far, more than a slow response.
const CLOCKS_AGREE: Duration = Duration::from_secs(60);

fn clock(date: Option<&str>) -> Result<String, String> {
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Ok("the answer shows no date to compare with".into());
    };
    let theirs = theirs.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ours = Duration::from_secs(Clock::system().now().as_secs());
    let apart = ours.abs_diff(theirs);
    if apart <= CLOCKS_AGREE {
        Ok(format!("{} s apart", apart.as_secs()))
    } else {
        Err(format!("{} s apart: set this machine's clock (NTP)", apart.as_secs()))
    }
}

/// A code that cannot be valid is answered with 400 where the credentials are good (Authentication and
/// Pairing V2, 4.1.2).
async fn credentials(platform: &PlatformClient) -> Result<String, String> {
    match platform.probe_credentials().await {
        CredentialsCheck::Good => Ok("client_id and client_secret are accepted".into()),
        CredentialsCheck::Bad => {
            Err("client_id or client_secret is refused: compare them with what Align gave you".into())
        }
        CredentialsCheck::Unknown => {
            Err("the token endpoint did not say whether they are good; try again".into())
        }
    }
}

/// Authentication and Pairing V2, 3.1. The white list itself cannot be asked.
fn redirect_rules(realm: &RealmConfig) -> Result<String, String> {
    let url = &realm.redirect_uri;
    let loopback = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    if loopback && !realm.hosts.allow_insecure {
        Err("a loopback address is probably refused: use one that Align has white-listed".into())
    } else {
        Ok(format!("{url} must be on Align's white list, letter by letter"))
    }
}

/// Without a token the response must be a refusal by the API itself: that shows that the address is the right
/// one.
async fn discovery(connector: &Connector, realm: &RealmConfig) -> Result<String, String> {
    if realm.route.is_some() {
        return Ok("not used: the route is pinned".into());
    }
    let mut url = realm.base_url.clone();
    let path = format!("{}{}", url.path().trim_end_matches('/'), realm.discovery.path);
    url.set_path(&path);
    url.query_pairs_mut()
        .append_pair("discoveryName", &realm.discovery.name)
        .append_pair("version", &realm.discovery.version);
    match ask(connector, &url, Method::GET).await?.status().as_u16() {
        401 | 403 => Ok("the endpoint is there and asks for a token".into()),
        404 => Err(format!("{path} is unknown there: compare base_url and discovery.path")),
        status => Err(format!("{path} answered {status} to a call without a token; 401 was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_from_the_platforms_is_named() {
        assert!(clock(Some("Sun, 06 Nov 1994 08:49:37 GMT")).unwrap_err().contains("s apart"));
        assert!(clock(Some("yesterday")).unwrap().contains("no date"));
    }
}
