//! Canaries: tokens, secrets, patients and query strings go through everything that the gateway does, and
//! none of them may turn up in a log at its most talkative level, a metric, a page, a journal, an audit log,
//! a refusal or the database.
//!
//! One test in a process of its own, since the log is captured for the whole process.

#[allow(dead_code, reason = "each test binary uses its own part of the test bed")]
#[path = "stories/test_bed.rs"]
mod test_bed;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genapi_gateway::config::{LogConfig, LogFormat};
use genapi_gateway::sandbox::{AccountSpec, Endpoint, Fault, FaultRule, InvalidTokens, LinkForm, Platform};
use genapi_gateway::telemetry;
use genapi_gateway::telemetry::log_queue::{LogKind, LogQueue};
use http::Method;
use serde_json::{Value, json};

use test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, PASSWORD, Response, TestBed, TestBedBuilder, USER};

/// What an application puts into its requests, all of it about patients.
const IN_QUERY: &str = "Qanary-Querystring";
const IN_BODY: &str = "Qanary-Body";
const IN_PATH: &str = "Qanary-Path";
const IN_HEADER: &str = "Qanary-Header";
/// Names of the sandbox's patients, which come in responses.
const PATIENTS: [&str; 4] = ["O'Neill", "Ñandú", "Müller", "Björn"];
/// What Align calls the account. Its id may be logged, its name may not.
const ACCOUNT_TITLE: &str = "Qanary Dental Practice";
const OLD_BEARER: &str = "eyJ.Qanary-Old-Bearer";
const GUESSED_KEY: &str = "Qanary-Guessed-Key";
const APP_SECRET: &str = "Qanary-App-Secret";

/// Takes the log of the whole process.
#[derive(Clone)]
struct Captured {
    lines: Lines,
    queue: LogQueue,
}

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn install() -> Self {
        let lines = Lines::default();
        let queue = LogQueue::start(lines.clone()).unwrap();
        let log = LogConfig { level: "trace".to_owned(), format: LogFormat::Json, access: true };
        let (subscriber, _) = telemetry::subscriber(&log, &|_| None, queue.clone(), false).unwrap();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Self { lines, queue }
    }

    fn text(&self) -> String {
        assert!(self.queue.flush(Duration::from_secs(60)));
        assert_eq!(self.queue.dropped(LogKind::Event), 0, "what is not there cannot be searched");
        String::from_utf8_lossy(&self.lines.0.lock().unwrap()).into_owned()
    }
}

/// What is looked for, with a word about it, and what is looked through.
#[derive(Default)]
struct Search {
    canaries: BTreeSet<(&'static str, String)>,
    places: Vec<(String, Vec<u8>)>,
}

impl Search {
    fn canary(&mut self, what: &'static str, text: &str) {
        assert!(text.len() >= 5, "{what} {text:?} would be found by chance");
        self.canaries.insert((what, text.to_owned()));
    }

    fn place(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.places.push((name.into(), bytes.into()));
    }

    /// Every find, as `what in where`.
    fn finds(&self) -> Vec<String> {
        let mut finds = Vec::new();
        for (what, canary) in &self.canaries {
            for (place, bytes) in &self.places {
                if let Some(at) = memchr::memmem::find(bytes, canary.as_bytes()) {
                    let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 60)];
                    finds.push(format!("{what} in {place}: …{}…", String::from_utf8_lossy(around)));
                }
            }
        }
        finds
    }
}

fn refused_responses(responses: &[Response]) -> Vec<u8> {
    let ours = responses
        .iter()
        .filter(|response| response.headers.contains_key("proxy-status") || response.status >= 500);
    ours.flat_map(|response| {
        [response.body.to_vec(), format!("{:?}", response.headers).into_bytes()].concat()
    })
    .collect()
}

/// A response, or nothing where the platform cut it short and the gateway did too.
async fn read_to_end(request: reqwest::RequestBuilder) -> Option<Response> {
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Some(Response { status, headers, body: response.bytes().await.ok()? })
}

/// Traffic of every kind: right responses, the vendor's errors, refusals, retries, renewals, downloads.
async fn traffic(bed: &TestBed) -> Vec<Response> {
    let mut responses = Vec::new();
    let query = format!("/itero-gen-api/v2/orders/practice?patient={IN_QUERY}");
    let search = json!({"Name": IN_BODY}).to_string();
    let fly = Duration::from_millis(100);
    let ask = |path: String| {
        let request = bed.bare(Method::GET, &path).header("x-gateway-key", &bed.key);
        read_to_end(
            request.bearer_auth(OLD_BEARER).header("x-patient", IN_HEADER).header("cookie", IN_HEADER),
        )
    };
    for fault in [
        None,
        Some(Fault::Status(500)),
        Some(Fault::Status(401)),
        Some(Fault::Status(403)),
        Some(Fault::Garbage),
        Some(Fault::DropsBeforeHead),
        Some(Fault::DropsMidBody),
        Some(Fault::TwoLengths),
        Some(Fault::Redirects { status: 302, location: format!("/x?{IN_QUERY}") }),
        Some(Fault::Responds { status: 400, body: format!("no patient {IN_BODY}") }),
    ] {
        for endpoint in [Endpoint::OrdersPractice, Endpoint::PatientSearch] {
            if let Some(fault) = fault.clone() {
                bed.sandbox.inject(FaultRule::on(endpoint, fault).times(2));
            }
        }
        responses.extend(bed.while_time_flies(fly, ask(format!("/accounts/{CLINIC_NAME}{query}"))).await);
        let searched = bed
            .bare(Method::POST, &format!("/accounts/{CLINIC_NAME}/patient/search"))
            .header("x-gateway-key", &bed.key)
            .body(search.clone());
        responses.extend(bed.while_time_flies(fly, read_to_end(searched)).await);
        bed.sandbox.clear_fault_rules();
    }
    for path in [
        format!("/accounts/{CLINIC_NAME}/patients/{IN_PATH}?chart={IN_QUERY}"),
        format!("/accounts/{CLINIC_NAME}/{IN_PATH}/../x?{IN_QUERY}"),
        format!("/accounts/{CLINIC_NAME}/@evil.test/{IN_PATH}?{IN_QUERY}"),
        format!("/accounts/{IN_PATH}/orders/practice"),
        format!("/{IN_PATH}?{IN_QUERY}"),
        format!("/accounts/{LAB_NAME}/orders/lab?{IN_QUERY}"),
    ] {
        responses.extend(ask(path).await);
    }
    let guessed = bed.bare(Method::GET, &query).header("x-gateway-key", GUESSED_KEY);
    responses.push(bed.send(guessed).await);
    let guessed = bed.bare(Method::GET, &query).basic_auth(IN_HEADER, Some(GUESSED_KEY));
    responses.push(bed.send(guessed).await);
    let order = bed.sandbox.order_ids(CLINIC)[0];
    responses.extend(ask(format!("/accounts/{CLINIC_NAME}/order/{order}/download/IDE?{IN_QUERY}")).await);
    responses
}

/// The application that refreshes by itself, well and badly. Returns its gateway token.
async fn facade(bed: &TestBed, refresh_token: &str, responses: &mut Vec<Response>) -> String {
    let post = |form: String| {
        let kind = "application/x-www-form-urlencoded";
        let request = bed.bare(Method::POST, "/oauth2/token").header("content-type", kind);
        bed.send(request.header("x-gateway-key", &bed.key).body(form))
    };
    let grant = format!("grant_type=refresh_token&client_secret={APP_SECRET}&refresh_token=");
    responses.push(post(format!("{grant}{OLD_BEARER}")).await);
    responses.push(post(format!("{grant}{refresh_token}&x={}", "x".repeat(20_000))).await);
    responses.push(post(format!("grant_type={IN_BODY}&client_secret={APP_SECRET}")).await);
    let granted = post(format!("{grant}{refresh_token}")).await;
    assert_eq!(granted.status, 200, "{}", granted.text());
    let token = granted.json()["access_token"].as_str().unwrap().to_owned();
    let path = format!("/orders/practice?{IN_QUERY}");
    assert_eq!(bed.send(bed.bare(Method::GET, &path).bearer_auth(&token)).await.status, 200);
    let forged = bed.bare(Method::GET, &path).bearer_auth(format!("{token}x"));
    responses.push(bed.send(forged).await);
    token
}

/// Renewals that go wrong in every way, and an account that dies.
async fn renewal_trouble(bed: &TestBed, responses: &mut Vec<Response>) {
    let fly = Duration::from_millis(100);
    for (endpoint, fault) in [
        (Endpoint::Refresh, Fault::HtmlInstead),
        (Endpoint::Refresh, Fault::JunkToken(InvalidTokens::LineBreakInAccessToken)),
        (Endpoint::Refresh, Fault::JunkToken(InvalidTokens::HalfOfTheJson)),
        (Endpoint::Refresh, Fault::JunkToken(InvalidTokens::ExpiresIn(json!(IN_BODY)))),
        (Endpoint::Refresh, Fault::Responds { status: 400, body: json!({"error": IN_BODY}).to_string() }),
        (
            Endpoint::Refresh,
            Fault::Redirects { status: 302, location: format!("https://x.test/?{IN_QUERY}") },
        ),
        (Endpoint::Refresh, Fault::LostTokenResponse),
        (Endpoint::Discovery, Fault::Garbage),
        (Endpoint::Discovery, Fault::Status(401)),
        (
            Endpoint::Discovery,
            Fault::Discovers { domain: "http://evil.test".to_owned(), path: "/x".to_owned() },
        ),
    ] {
        bed.sandbox.inject(FaultRule::on(endpoint, fault).for_account(CLINIC));
        bed.sandbox.expire_access(CLINIC);
        responses.push(bed.while_time_flies(fly, bed.get(CLINIC_NAME, "/orders/practice")).await);
        bed.sandbox.clear_fault_rules();
        bed.clock.advance(Duration::from_secs(90));
        bed.while_time_flies(fly, bed.get(CLINIC_NAME, "/orders/practice")).await;
    }
    bed.sandbox.set_client_secret(Platform::New, "Qanary-Other-Secret");
    for (id, name, path) in [(CLINIC, CLINIC_NAME, "/orders/practice"), (LAB, LAB_NAME, "/orders/lab")] {
        bed.sandbox.expire_access(id);
        responses.push(bed.while_time_flies(fly, bed.get(name, path)).await);
    }
    bed.sandbox.set_client_secret(Platform::New, "sandbox-secret-new-platform");
    bed.clock.advance(Duration::from_secs(600));
    bed.while_time_flies(fly, bed.get(LAB_NAME, "/orders/lab")).await;
    bed.sandbox.forget_refresh(LAB);
    bed.sandbox.expire_access(LAB);
    responses.push(bed.while_time_flies(fly, bed.get(LAB_NAME, "/orders/lab")).await);
}

/// Logins: pasted, by browser, called off, forged. Returns what only the browser may know.
async fn logins(bed: &TestBed, pages: &mut Vec<Response>) -> Vec<String> {
    let mut secrets = Vec::new();
    let body = json!({"realm": "global", "name": "acct-1003", "paste": true});
    let started = bed.operate("/pairings", body).await;
    assert_eq!(started.status, 200, "{}", started.text());
    let (url, ticket) = (started.json()["authorize_url"].clone(), started.json()["ticket"].clone());
    let redirected = bed.sandbox.log_in(url.as_str().unwrap(), USER, PASSWORD).await.unwrap();
    secrets.extend(parameters(&redirected));
    let finish = json!({"ticket": ticket, "redirected_url": redirected});
    let finished = bed.operate("/pairings/finish", finish).await;
    assert_eq!(finished.json()["outcome"], "paired", "{}", finished.text());
    secrets.push(ticket.as_str().unwrap().to_owned());
    pages.push(finished);

    let started = bed.operate("/pairings", json!({"realm": "global", "name": "acct-1004"})).await.json();
    let link = started["url"].as_str().unwrap().to_owned();
    let path = link.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned()));
    let path = path.unwrap();
    secrets.push(path.rsplit(['/', '=']).next().unwrap().to_owned());
    assert_eq!(bed.send(bed.browse(Method::GET, &path)).await.status, 200, "a page that explains itself");
    let first = bed.send(bed.browse(Method::POST, &path)).await;
    let to_align = match first.header("location") {
        "" => panic!("the start link led nowhere: {} {}", first.status, first.text()),
        location => location.to_owned(),
    };
    let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
    secrets.push(cookie.split_once('=').unwrap().1.to_owned());
    let redirected = bed.sandbox.log_in(&to_align, USER, PASSWORD).await.unwrap();
    secrets.extend(parameters(&redirected));
    let back = redirected.split_once("/oauth2/").unwrap().1;
    let callback = |query: &str, cookie: &str| {
        bed.send(bed.browse(Method::GET, &format!("/oauth2/{query}")).header("cookie", cookie))
    };
    pages.push(callback(back, "").await);
    pages.push(
        callback("callback?error=access_denied&error_description=Qanary-Description&state=x", &cookie).await,
    );
    pages.push(callback(&back.replace("state=", "state=Qanary-Forged"), &cookie).await);
    let connected = callback(back, &cookie).await;
    assert_eq!(connected.status, 200, "{}", connected.text());
    assert!(connected.text().contains("acct-1004"), "{}", connected.text());
    pages.push(connected);
    pages.push(callback(back, &cookie).await);
    secrets
}

/// The configuration of an application that logs people in by itself.
fn application() -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, APP_SECRET.as_bytes());
    format!(
        "\n[[callers]]\nname = \"oldpms\"\naccounts = [\"*\"]\nfacade = {{ client_id = \"oldpms\", \
         client_secret_sha256 = \"{}\", redirect_uris = [\"http://127.0.0.1:5000/cb\"], id_token = true }}\n",
        hex::encode(digest),
    )
}

/// The application's login and pairing, well and badly. Returns what only it and its browser may know.
async fn application_login(bed: &TestBed, pages: &mut Vec<Response>) -> Vec<String> {
    let cb = "http://127.0.0.1:5000/cb";
    let query =
        |cb: &str| format!("client_id=oldpms&response_type=code&state=Qanary-State&redirect_uri={cb}");
    let unlisted = format!("/connect/authorize?{}", query("http://127.0.0.1:5000/Qanary-Elsewhere"));
    pages.push(bed.send(bed.browse(Method::GET, &unlisted)).await);
    pages.push(bed.send(bed.bare(Method::GET, "/oauth2/authorize?client_id=Qanary-Client")).await);
    let sent = bed.send(bed.bare(Method::GET, &format!("/oauth2/authorize?{}", query(cb)))).await;
    let path = sent.header("location").strip_prefix(&bed.admin).unwrap().to_owned();
    let begun = bed.send(bed.browse(Method::GET, &path)).await;
    let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
    let redirected = bed.sandbox.log_in(begun.header("location"), USER, PASSWORD).await.unwrap();
    let mut secrets = parameters(&redirected);
    let back = redirected.strip_prefix(&bed.admin).unwrap();
    let returned = bed.send(bed.browse(Method::GET, back).header("cookie", &cookie)).await;
    let code = parameters(returned.header("location")).remove(0);
    let token_request = |form: String| {
        let request = bed.bare(Method::POST, "/oauth2/token");
        let form = format!("client_id=oldpms&client_secret={APP_SECRET}&redirect_uri={cb}&{form}");
        bed.send(request.header("content-type", "application/x-www-form-urlencoded").body(form))
    };
    pages.push(token_request("grant_type=authorization_code&code=Qanary-Code".to_owned()).await);
    let login = token_request(format!("grant_type=authorization_code&code={code}")).await;
    assert_eq!(login.status, 200, "{}", login.text());
    pages.push(token_request(format!("grant_type=authorization_code&code={code}")).await);
    let bearer = login.json()["access_token"].as_str().unwrap().to_owned();
    let pair = |body: Value| {
        let request = bed.bare(Method::PUT, "/pair-account").header("content-type", "application/json");
        bed.send(request.bearer_auth(&bearer).body(body.to_string()))
    };
    let hook = "https://pms.example.test/Qanary-Hook";
    pages.push(pair(json!({"AccountId": "Qanary-Id", "CallbackUrl": hook})).await);
    pages.push(pair(json!({"AccountId": 4_000_004, "CallbackUrl": hook})).await);
    let paired = pair(json!({"AccountId": 1004, "CallbackUrl": hook})).await;
    assert_eq!(paired.status, 200, "{}", paired.text());
    let paired = paired.json()["Data"]["OAuthResponse"].clone();
    pages.push(bed.send(bed.bare(Method::GET, "/orders/practice?Qanary").bearer_auth(&bearer)).await);
    for tokens in [&login.json(), &paired] {
        for field in ["access_token", "refresh_token", "id_token"] {
            secrets.extend(tokens[field].as_str().map(str::to_owned));
        }
    }
    secrets.extend([code, cookie.split_once('=').unwrap().1.to_owned()]);
    secrets
}

/// The values of code, state and the like.
fn parameters(url: &str) -> Vec<String> {
    let query = url.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes())
        .map(|(_, value)| value.into_owned())
        .filter(|v| v.len() > 8)
        .collect()
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    // Whose whole purpose it is to hold a secret; they are 0600 and named in the configuration.
    let secret = |name: &str| {
        name.ends_with(".secret")
            || ["admin.token", "gateway.key", "accounts.json", "caller.key"].contains(&name)
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !secret(&name) {
            found.push((format!("file {name}"), std::fs::read(entry.path()).unwrap()));
        }
    }
    found
}

/// The login that was lost is brought back, and an export shows its token to whoever asks for tokens.
async fn bring_back_and_export(bed: &TestBed) {
    // The lost response has cost the login, since tokens rotate; the present token brings it back.
    let present = json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC,
        "refresh_token": bed.sandbox.grant(CLINIC).unwrap()}]);
    let replace = bed.operate("/import?replace=true&confirmed=true", present);
    assert_eq!(bed.while_time_flies(Duration::from_millis(100), replace).await.status, 200);
    let exported = bed.look("/api/export?refresh_tokens=true").await;
    assert_eq!(exported.status, 200, "{}", exported.text());
    assert!(
        exported.text().contains(&bed.sandbox.refresh_tokens(CLINIC)[0]),
        "the one place that shows them"
    );
}

/// Imports that are refused, with a token in each.
async fn odd_imports(bed: &TestBed, pages: &mut Vec<Response>) {
    let imports = json!([
        {"name": "bad", "realm": "global", "account_id": 5, "refresh_token": "Qanary-Imported-Token\r\n"},
        {"name": "bad", "realm": "global", "account_id": "x", "refresh_token": "Qanary-Imported-Token"},
        {"name": "bad", "realm": "nowhere", "account_id": 5, "refresh_token": "Qanary-Imported-Token"},
        {"name": "unknown", "realm": "global", "account_id": 55, "refresh_token": "Qanary-Imported-Token"},
    ]);
    let import = bed.operate("/import", imports);
    pages.push(bed.while_time_flies(Duration::from_millis(100), import).await);
}

/// What the admin listener shows of accounts, journal and metrics.
async fn what_operators_see(bed: &TestBed, search: &mut Search) {
    for path in [
        "/metrics",
        "/readyz?verbose",
        "/api/accounts",
        "/api/journal",
        "/api/export",
        &format!("/api/accounts/{CLINIC_NAME}"),
        &format!("/api/accounts/{CLINIC_NAME}/explain"),
        &format!("/api/accounts/{LAB_NAME}/explain"),
        "/api/accounts/acct-1003/explain",
    ] {
        let response = bed.look(path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        search.place(path, response.body.to_vec());
    }
}

/// Everything that must not be found: what the sandbox received and
/// issued, the gateway's own keys, what callers sent.
fn name_secrets(bed: &TestBed, search: &mut Search, gateway_token: &str) {
    for call in bed.sandbox.calls() {
        if let Some(bearer) = call.header("authorization") {
            search.canary("a bearer", bearer.trim_start_matches("Bearer "));
        }
        for (field, value) in form_urlencoded::parse(&call.body) {
            if matches!(&*field, "refresh_token" | "client_secret" | "code") {
                search.canary("a field of a token request", &value);
            }
        }
    }
    for account in bed.sandbox.accounts() {
        for token in bed.sandbox.refresh_tokens(account.id) {
            search.canary("a refresh token", &token);
        }
    }
    search.canary("the caller's key", &bed.key);
    search.canary("the admin token", &bed.admin_token);
    search.canary("the gateway token", gateway_token);
    let key = std::fs::read_to_string(bed.folder().join("gateway.key")).unwrap();
    search.canary("the store's key", key.trim());
    for canary in [IN_QUERY, IN_BODY, IN_PATH, IN_HEADER, OLD_BEARER, GUESSED_KEY, APP_SECRET, "Qanary-"] {
        search.canary("what a caller sent", canary);
    }
    for name in PATIENTS {
        search.canary("a patient", name);
    }
}

/// It speaks, or nothing could be found in it, and it names no account by its title.
fn check_log(text: &str) {
    for spoken in ["access_log", "genapi_gateway::journal", "\"level\":\"TRACE\"", "needs_login"] {
        assert!(text.contains(spoken), "the log is not silent: {spoken}");
    }
    let titles = ["Qanary Dental Practice", "Qanary Second Practice"];
    assert!(titles.iter().all(|title| !text.contains(title)), "account names of the vendor are logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_patient_turns_up_where_it_has_no_business() {
    let log = Captured::install();
    let mut search = Search::default();
    let bed = TestBedBuilder::new()
        .behavior(|behavior| {
            behavior.rotate_refresh = true;
            behavior.link_form = LinkForm::Mixed;
        })
        .options(|options| options.keep_calls = 100_000)
        .account(AccountSpec::clinic(1003, ACCOUNT_TITLE).with_user(USER, PASSWORD))
        .account(AccountSpec::clinic(1004, "Qanary Second Practice").with_user(USER, PASSWORD))
        .append(&application())
        .config("[[callers]]", "[upstream]\nresponse_timeout = \"2s\"\n[[callers]]")
        .start()
        .await;
    let imported = std::fs::read_to_string(bed.folder().join("accounts.json")).unwrap();
    let imported: Value = serde_json::from_str(&imported).unwrap();
    for entry in imported.as_array().unwrap() {
        search.canary("an imported refresh token", entry["refresh_token"].as_str().unwrap());
    }
    let of_clinic = |entry: &&Value| entry["name"] == CLINIC_NAME;
    let token = imported.as_array().unwrap().iter().find(of_clinic).unwrap()["refresh_token"].clone();

    let mut responses = traffic(&bed).await;
    let gateway_token = facade(&bed, token.as_str().unwrap(), &mut responses).await;
    renewal_trouble(&bed, &mut responses).await;
    let mut pages = Vec::new();
    for secret in logins(&bed, &mut pages).await {
        search.canary("what a login passes on", &secret);
    }
    for secret in application_login(&bed, &mut pages).await {
        search.canary("what an application's login passes on", &secret);
    }
    bring_back_and_export(&bed).await;
    for path in ["/api/accounts", "/api/export", "/healthz"] {
        let guessed = bed.browse(Method::GET, path).bearer_auth(GUESSED_KEY);
        pages.push(bed.send(guessed).await);
    }
    odd_imports(&bed, &mut pages).await;
    bed.running.journal().flush().await;

    what_operators_see(&bed, &mut search).await;
    for (number, page) in pages.iter().enumerate() {
        search.place(format!("page {number}"), format!("{:?} {}", page.headers, page.text()));
    }
    search.place("refusals", refused_responses(&responses));

    name_secrets(&bed, &mut search, &gateway_token);
    assert!(search.canaries.len() > 40, "{}", search.canaries.len());

    for (name, bytes) in files(bed.folder()) {
        search.place(name, bytes);
    }
    bed.running.stop().await;
    search.place("log", log.text());

    check_log(&log.text());
    let finds = search.finds();
    assert!(finds.is_empty(), "{} finds:\n{}", finds.len(), finds.join("\n"));
}

#[test]
fn the_search_finds_what_is_there() {
    let mut search = Search::default();
    search.canary("a token", "tok-123");
    search.place("log", "nothing, then tok-123 after all");
    search.place("page", "nothing");
    assert_eq!(search.finds(), ["a token in log: …nothing, then tok-123 after all…"]);
}
