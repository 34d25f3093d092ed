//! `config.toml.example` tells the truth: it is valid, complete, and prints the defaults.

use std::collections::BTreeSet;

use super::super::*;
use super::{ConfigFolder, MINIMAL, env};

const EXAMPLE: &str = include_str!("../../../config.toml.example");

/// The example with every key switched on that is commented out, but for what stands beside another store
/// only.
fn example_with_everything() -> String {
    let key = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let word = rest.split(" = ").next().filter(|_| rest.contains(" = "))?;
        let header = rest.starts_with('[') && rest.ends_with(']');
        let plain = !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (header || plain && word != "listen_url").then(|| rest.to_owned())
    };
    let header = |line: &str| line.strip_prefix("# ").filter(|rest| *rest == "[public]").map(str::to_owned);
    let lines =
        EXAMPLE.lines().map(|line| header(line).or_else(|| key(line)).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_valid_as_it_stands_and_with_every_key_switched_on() {
    let folder = ConfigFolder::new();
    let plain = folder.load(EXAMPLE).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        placeholders(&plain),
        [
            "realms.global.login_page",
            "realms.global.redirect_uri",
            "realms.global.client_id",
            "callers[0].key_sha256"
        ]
    );
    let full = folder.load(&example_with_everything()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(full.config.public.is_some());
    for key in ["public.url", "callers[0].cert_sha256", "callers[0].facade.client_secret_sha256"] {
        assert!(placeholders(&full).iter().any(|placeholder| placeholder == key), "{key}");
    }
}

/// The keys that still have the example's value; nothing else is doubtful about it.
fn placeholders(loaded: &LoadedConfig) -> Vec<String> {
    let told = |warning: &Diagnostic| assert!(warning.what.contains("placeholder"), "{warning}");
    loaded.warnings.iter().inspect(|warning| told(warning)).map(|warning| warning.key.clone()).collect()
}

#[test]
fn the_example_prints_the_defaults() {
    let folder = ConfigFolder::new();
    let minimal = folder.load(MINIMAL).unwrap().config;
    let full = folder.load(&example_with_everything()).unwrap().config;
    let numbers = |gateway: &GatewayConfig| GatewayConfig {
        tls: None,
        forward_proxy: None,
        account_limit: None,
        ..gateway.clone()
    };
    let shown = |config: &Config| {
        let admin = AdminConfig { tls: None, url: None, ..config.admin.clone() };
        let realm = &config.realms["global"];
        let rest = (&config.store, &config.upstream, &config.retry, &config.renewal, &config.log);
        let realm =
            (&realm.discovery, &realm.kind, &realm.link_hosts, &realm.hosts, &config.callers[0].allow);
        format!("{:#?}", (numbers(&config.gateway), admin, rest, realm))
    };
    assert_eq!(shown(&full), shown(&minimal));
}

#[test]
fn the_example_shows_every_key_that_the_loader_knows() {
    let folder = ConfigFolder::new();
    let text = example_with_everything();
    let file = folder.0.path().join("config.toml");
    let (_, reader::ReadReport { problems, asked, .. }) = load::read(&file, &text, &env);
    assert_eq!(problems, vec![]);
    let other_forms = [
        "gateway.tls.ca",
        "admin.token.env",
        "store.key.env",
        "store.listen_url",
        "realms.global.client_secret.file",
    ];
    let missing: BTreeSet<_> =
        asked.iter().filter(|key| !stands_in(&text, key)).map(String::as_str).collect();
    assert_eq!(missing, other_forms.into_iter().collect());
}

#[test]
fn the_example_shows_what_belongs_to_a_database() {
    let folder = ConfigFolder::new();
    let text = EXAMPLE
        .replace("# url = \"sqlite:gateway.db\"", "url = \"postgres://gateway@pooler/gateway\"")
        .replace("# listen_url = ", "listen_url = ");
    let loaded = folder.load(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let StoreUrl::Postgres { url, listen_url: Some(listen_url) } = &loaded.config.store.url else {
        panic!("{text}")
    };
    assert!(url.contains("@pooler/") && listen_url.starts_with("postgres://"), "{listen_url}");
    assert_eq!(placeholders(&loaded).len(), 4);
}

fn stands_in(text: &str, key: &str) -> bool {
    let table: toml::Table = text.parse().unwrap();
    let mut at = toml::Value::Table(table);
    for step in key.split('.') {
        let (name, index) = step.split_once('[').unwrap_or((step, ""));
        let Some(next) = at.get(name).cloned() else { return false };
        at = match index.trim_end_matches(']').parse::<usize>() {
            Ok(index) => next[index].clone(),
            Err(_) => next,
        };
    }
    true
}
