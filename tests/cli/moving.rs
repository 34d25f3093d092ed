//! docs/migrate.md, walked word by word: the commands are read from the document, and where it says who
//! stands still and who goes on, the application beside it does so. It refreshes, on a platform that rotates,
//! whenever it may.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::processes::GatewayAndSandbox;

const CANARY: &str = "smile-berlin";

/// A program that keeps pair refresh tokens and refreshes them by itself.
struct Application {
    http: reqwest::Client,
    oauth_base: String,
    client: (String, String),
    /// By account id: what it holds, and whether it is the one that refreshes it.
    tokens: BTreeMap<String, (String, bool)>,
}

impl Application {
    fn beside(pair: &GatewayAndSandbox) -> Self {
        let config: toml::Table = pair.written("config.toml").parse().unwrap();
        let realm = &config["realms"]["global"];
        let text = |key: &str| realm[key].as_str().unwrap().to_owned();
        let secret = pair.written("client-global.secret").trim().to_owned();
        let entries: Value = serde_json::from_str(&pair.written("accounts.json")).unwrap();
        let of_global = entries.as_array().unwrap().iter().filter(|entry| entry["realm"] == "global");
        let field = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let tokens =
            of_global.map(|entry| (field(entry, "account_id"), (field(entry, "refresh_token"), true)));
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            oauth_base: text("oauth_base"),
            client: (text("client_id"), secret),
            tokens: tokens.collect(),
        }
    }

    /// Refreshes whatever is its to refresh; each has to succeed.
    async fn refresh(&mut self) -> usize {
        let mut refreshed = 0;
        for (id, (token, _)) in self.tokens.iter_mut().filter(|(_, (_, is_its))| *is_its) {
            let form = format!(
                "grant_type=refresh_token&refresh_token={token}&client_id={}&client_secret={}",
                self.client.0, self.client.1
            );
            let post = self.http.post(format!("{}/oauth2/token", self.oauth_base)).body(form);
            let response =
                post.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
            let status = response.status();
            let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            assert_eq!(status, 200, "account {id} has lost its login: {body}");
            let next = body["refresh_token"].as_str().unwrap().to_owned();
            assert_ne!(next, *token, "the platform rotates");
            *token = next;
            refreshed += 1;
        }
        refreshed
    }

    /// Under which name an account goes here.
    fn name(&self, id: &str) -> String {
        let is_first = self.tokens.keys().next().is_some_and(|first| first == id);
        if is_first { CANARY.to_owned() } else { format!("smile-{id}x") }
    }

    fn read_out(&self, file: &Path, only_canary: bool) {
        let entries = self.tokens.iter().filter(|(id, _)| !only_canary || self.name(id) == CANARY);
        let entries: Vec<Value> = entries
            .map(|(id, (token, _))| {
                json!({"name": self.name(id), "realm": "global", "account_id": id, "refresh_token": token})
            })
            .collect();
        std::fs::write(file, json!(entries).to_string()).unwrap();
    }

    /// Hands accounts over to the gateway, or takes them back with what was exported.
    fn stops_refreshing(&mut self, canary: &str, all: bool) {
        for (id, (_, is_its)) in &mut self.tokens {
            *is_its &= !(all || *id == canary);
        }
    }

    fn takes_back(&mut self, file: &Path) {
        let entries: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        for entry in entries.as_array().unwrap() {
            let id = entry["account_id"].as_u64().map_or_else(
                || entry["account_id"].as_str().unwrap().to_owned(),
                |number| number.to_string(),
            );
            self.tokens.insert(id, (entry["refresh_token"].as_str().unwrap().to_owned(), true));
        }
    }
}

/// What the document tells somebody to do, in its order.
#[derive(Debug)]
enum Step {
    Section(String),
    Type(String),
    /// `true`: the gateway.
    StandsStill(bool),
    GoesOn,
}

fn steps() -> Vec<Step> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migrate.md")).unwrap();
    let (mut steps, mut fence) = (Vec::new(), None);
    for line in document.lines() {
        let text = line.trim();
        match (text.strip_prefix("```"), &fence) {
            (Some(kind), None) => fence = Some(kind.to_owned()),
            (Some(_), Some(_)) => fence = None,
            (None, Some(kind)) if kind == "sh" => steps.push(Step::Type(text.to_owned())),
            (None, Some(_)) => {}
            (None, None) => {
                if let Some(section) = text.strip_prefix("## ") {
                    steps.push(Step::Section(section.to_owned()));
                }
                if text.contains("**stands still**") {
                    steps.push(Step::StandsStill(text.contains("the gateway **stands still**")));
                }
                if text.contains("**goes on**") {
                    steps.push(Step::GoesOn);
                }
            }
        }
    }
    steps
}

/// As it is typed in a shell whose folder has the files.
fn typed(pair: &GatewayAndSandbox, line: &str) -> String {
    let folder = pair.folder.path();
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    let output = shell.env("GENAPI_GATEWAY_CONFIG", pair.config()).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(0), "{line}\n{out}{err}");
    out
}

/// What the commands of the guide say that they did.
fn check_counts(line: &str, said: &str, all: usize) {
    if line.ends_with("import canary.json") {
        assert!(said.ends_with("1 imported, 0 kept, 0 replaced, 0 failed of 1\n"), "{said}");
    } else if line.ends_with("import tokens.json") {
        let counts = format!("{} imported, 1 kept, 0 replaced, 0 failed of {all}\n", all - 1);
        assert!(said.ends_with(&counts), "{said}");
    } else if line.ends_with("--yes again.json") {
        let counts = format!("0 imported, 0 kept, {all} replaced, 0 failed of {all}\n");
        assert!(said.ends_with(&counts), "{said}");
    } else if line.ends_with("accounts list") {
        assert!(!said.contains("needs_login"), "{said}");
    }
}

#[tokio::test]
async fn the_guide_moves_300_accounts_there_and_back_on_a_rotating_platform_and_none_loses_its_login() {
    let pair = GatewayAndSandbox::start(&["--rotate", "--accounts", "302"]);
    let mut application = Application::beside(&pair);
    assert!(application.tokens.len() >= 300, "{}", application.tokens.len());
    let all = application.tokens.len();
    let canary = application.tokens.keys().next().unwrap().clone();
    std::fs::create_dir(pair.folder.path().join("bin")).unwrap();
    let program = pair.folder.path().join("bin/genapi-gateway");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_genapi-gateway"), program).unwrap();
    let file = |name: &str| pair.folder.path().join(name);

    let (mut section, mut resumed, mut commands) = (String::new(), String::new(), 0);
    for step in steps() {
        match step {
            // The move between platforms has stories of its own.
            Step::Section(title) if title.starts_with("Off ") => {
                section = title;
                break;
            }
            Step::Section(title) => section = title,
            Step::StandsStill(true) => {}
            Step::StandsStill(false) => {
                // Until this very moment it does what it always did.
                application.refresh().await;
                application.read_out(&file("canary.json"), true);
                application.read_out(&file("tokens.json"), false);
                application.read_out(&file("again.json"), false);
                let is_canary = section.starts_with("3.");
                application.stops_refreshing(&canary, !is_canary);
            }
            Step::GoesOn => {
                if section == "The way back" {
                    application.takes_back(&file("back.json"));
                    assert_eq!(application.refresh().await, all, "all are its own again");
                } else {
                    let others = if section.starts_with("3.") { all - 1 } else { 0 };
                    assert_eq!(application.refresh().await, others, "what it still refreshes by itself");
                    let call =
                        typed(&pair, &format!("genapi-gateway accounts call {CANARY} GET /orders/practice"));
                    assert!(call.starts_with("200  "), "{call}");
                }
            }
            Step::Type(line) => {
                application.refresh().await;
                let said = typed(&pair, &line);
                commands += 1;
                assert!(!said.contains("failed  "), "{line}: {said}");
                check_counts(&line, &said, all);
                if line.contains(" accounts resume ") {
                    resumed = said;
                }
            }
        }
    }
    assert_eq!(section.split_whitespace().next(), Some("Off"), "all sections before it were walked");
    assert!(resumed.contains("good until"), "{resumed}");
    assert!(commands >= 11, "{commands} commands were found in the document");
    let list: Value = serde_json::from_str(&pair.types("accounts list -o json").out).unwrap();
    let ready = list.as_array().unwrap().iter().filter(|account| account["state"] == "ready").count();
    assert_eq!(ready, all, "every account is served in the end");
}

#[test]
fn accounts_are_moved_from_the_command_line_and_the_overview_and_its_mail_follow() {
    let pair = GatewayAndSandbox::start(&[]);
    assert_eq!(pair.import().code, 0);
    let overview = pair.types("migration");
    assert_eq!((overview.code, overview.out.lines().count()), (0, 1 + 4), "{}", overview.all());
    assert!(overview.out.contains("on the new one"), "{}", overview.out);
    // To the old platform: what counts is that the account holds no grant there.
    let dry = pair.types("accounts move acct-10001 --to old --dry-run");
    assert!(dry.code == 0 && dry.out.starts_with("moving    acct-10001  would mark it"), "{}", dry.all());
    let moved = pair.types("accounts move acct-10001 nobody --to old");
    assert_eq!(moved.code, 1, "{}", moved.all());
    assert!(
        moved.out.starts_with("failed    nobody  no account matches\nmoving    acct-10001  one login"),
        "{}",
        moved.out
    );
    assert!(moved.out.contains("/connect/"), "{}", moved.out);
    let list = pair.types_with("accounts move --file - --to old -o json", "acct-10001 # again\n\n");
    let lines: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!((list.code, &lines[0]["result"]), (0, &"moving".into()), "{}", list.all());
    let csv = pair.types("migration -o csv");
    assert!(csv.out.contains("acct-10001,10001,moving,global,old,"), "{}", csv.out);
    let mail = pair.types("migration -o mail");
    assert!(mail.out.starts_with("To: iTeroAPISupport@aligntech.com\nSubject: "), "{}", mail.out);
    for id in 10001..=10004 {
        assert_eq!(mail.out.matches(&format!("  {id}  acct-{id}\n")).count(), 1, "{}", mail.out);
    }
    let back = pair.types("accounts move --back acct-*");
    assert_eq!((back.code, back.out.matches("unchanged ").count()), (0, 3), "{}", back.all());
    assert!(back.out.contains("back      acct-10001"), "{}", back.out);
    assert_eq!(pair.types("accounts move --share 5% --back --to old").code, 2);
    assert_eq!(pair.types("accounts move acct-10001").code, 2, "no realm is named");
    let compared = pair.types("accounts compare acct-10001 --force");
    assert_eq!((compared.code, compared.out.as_str()), (1, ""), "{}", compared.all());
    assert!(compared.err.contains("holds a grant in realm global alone"), "{}", compared.err);
}
