//! A folder to practise in: what the sandbox wrote there is good the
//! next day too, and nothing in it is overwritten.

use crate::processes::{GatewayAndSandbox, run, write};

#[test]
fn a_sandbox_goes_on_where_it_ended_and_the_gateway_beside_it_with_its_tokens() {
    let mut pair = GatewayAndSandbox::start(&["--rotate", "--accounts", "2"]);
    let said = pair.import();
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(pair.types("accounts call acct-10001 GET /orders/practice").code, 0);
    let written = |pair: &GatewayAndSandbox| {
        ["config.toml", "accounts.json", "caller.key"].map(|name| pair.written(name))
    };
    let before = written(&pair);

    let heard = pair.restart_sandbox(&["--rotate", "--accounts", "2"]);
    assert!(heard.contains("goes on with what is in"), "{heard}");
    assert_eq!(written(&pair), before);
    // With the access token of before, and then with the refresh token.
    assert_eq!(pair.types("accounts call acct-10001 GET /orders/practice").code, 0);
    let said = pair.types("accounts renew acct-10001");
    assert_eq!(said.code, 0, "{}", said.all());
}

#[test]
fn one_account_is_left_to_be_paired_and_the_next_steps_say_how() {
    let pair = GatewayAndSandbox::start(&["--accounts", "2"]);
    let import: serde_json::Value = serde_json::from_str(&pair.written("accounts.json")).unwrap();
    let names: Vec<_> = import.as_array().unwrap().iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names, ["acct-10001", "acct-10002"]);
    let said = &pair.sandbox_said;
    let config = pair.config();
    for words in [
        &format!("export GENAPI_GATEWAY_CONFIG={}", config.display()),
        "genapi-gateway accounts pair --realm global --name acct-10003",
        "user@sandbox.test / sandbox",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let said = pair.types("accounts pair --realm global --name acct-10003 --paste");
    assert!(said.all().contains("http://127.0.0.1:"), "{}", said.all());
}

#[test]
fn files_of_somebody_else_are_left_alone_and_said_to_be_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    write(&config, "mine");
    let said = run(["sandbox", "--port", "0", "--write", folder.path().to_str().unwrap()]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.err.contains("holds config.toml") && said.err.contains("delete that file"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn another_address_than_that_of_the_files_is_refused_with_what_to_do() {
    let pair = GatewayAndSandbox::start(&[]);
    let folder = pair.folder.path().to_str().unwrap().to_owned();
    let said = run(["sandbox", "--port", "0", "--gateway", "127.0.0.1:1", "--write", &folder]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.err.contains("another --gateway") && said.err.contains("leave it out"), "{}", said.err);
}
