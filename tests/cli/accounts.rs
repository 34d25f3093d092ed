//! The README's way on a sandbox: check, serve, import or pair, call, look, end.

use std::time::Duration;

use crate::processes::{GatewayAndSandbox, RunningProcess};

const CLINIC: &str = "acct-10001";
const LAB: &str = "acct-10002";

#[test]
fn check_connect_reaches_the_api_plain_and_over_tls() {
    for options in [&[][..], &["--tls"]] {
        let pair = GatewayAndSandbox::start(options);
        let said = pair.types("check --connect");
        assert_eq!(said.code, 0, "{}", said.all());
        assert_eq!(said.out.lines().filter(|line| line.contains("credentials: ")).count(), 3);
        let secret = pair.folder.path().join("client-global.secret");
        std::fs::write(secret, "wrong\n").unwrap();
        let said = pair.types("check --connect");
        assert_eq!(said.code, 1);
        assert!(
            said.out.contains("failed  credentials: client_id or client_secret is refused"),
            "{}",
            said.out
        );
    }
}

#[test]
fn an_import_is_reported_line_by_line_repeatable_and_fails_entirely_for_one_bad_line() {
    let pair = GatewayAndSandbox::start(&[]);
    let said = pair.import();
    assert_eq!(
        (said.code, said.out.lines().last()),
        (0, Some("4 imported, 0 kept, 0 replaced, 0 failed of 4")),
        "{}",
        said.all()
    );
    let said = pair.import();
    assert_eq!(said.code, 0);
    assert_eq!(said.out.lines().last(), Some("0 imported, 4 kept, 0 replaced, 0 failed of 4"));
    assert!(
        said.out.starts_with("kept      1 of 4  acct-10001  this token is stored already\n"),
        "{}",
        said.out
    );

    let said = pair.types_with("accounts import -", r#"[{"name": "smile"}]"#);
    assert_eq!(
        (said.code, said.out.lines().last()),
        (1, Some("0 imported, 0 kept, 0 replaced, 1 failed of 1"))
    );
    let said = pair.types_with("accounts import -", "{");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("It must be a JSON array of"), "{}", said.err);
    assert_eq!(pair.types("accounts import /nonexistent").code, 1);

    let csv = pair.types("accounts list -o csv");
    let first = csv.out.lines().nth(1).unwrap();
    assert!(first.starts_with("acct-10001,global,10001,ready,20") && first.contains("Z,,http"), "{first}");
    let json: serde_json::Value =
        serde_json::from_str(&pair.types("accounts list acct-*2 -o json").out).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["name"]), (1, &LAB.into()));
}

#[test]
fn a_file_is_read_as_csv_too_and_one_that_is_none_is_named_without_its_text() {
    let pair = GatewayAndSandbox::start(&["--rotate"]);
    let json: serde_json::Value = serde_json::from_str(&pair.written("accounts.json")).unwrap();
    let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
    let mut csv = String::from("\u{feff}Name;Account ID;Realm;Refresh_Token\r\n\r\n");
    for line in json.as_array().unwrap() {
        let [name, realm, id, token] =
            ["name", "realm", "account_id", "refresh_token"].map(|key| text(&line[key]));
        csv.push_str(&format!("{name};{id};{realm};\"{token}\"\r\n"));
    }
    let said = pair.types_with("accounts import -", &csv);
    let last = said.out.lines().last();
    assert_eq!(
        (said.code, last),
        (0, Some("4 imported, 0 kept, 0 replaced, 0 failed of 4")),
        "{}",
        said.all()
    );

    let token = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
    let swapped = format!("name,realm,account_id,refresh_token\n{token},global,7,smile\nsmile,{token},7,x\n");
    let said = pair.types_with("accounts import -", &swapped);
    assert!(said.code == 1 && !said.all().contains(token), "{}", said.all());
    let said = pair.types_with("accounts import -", &format!("{token},global,7,smile\n"));
    assert!(said.code == 1 && said.err.contains("no header row"), "{}", said.all());
    assert!(!said.all().contains(token), "{}", said.all());
    let utf16: Vec<u8> = csv.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = pair.folder.path().join("utf16.csv");
    std::fs::write(&file, utf16).unwrap();
    let said = pair.types(&format!("accounts import {}", file.display()));
    assert!(said.code == 1 && said.err.contains("UTF-16"), "{}", said.all());
}

#[test]
fn replacing_shows_what_it_would_hit_waits_for_yes_and_costs_no_grant() {
    let pair = GatewayAndSandbox::start(&["--rotate"]);
    let file = pair.folder.path().join("accounts.json").display().to_string();
    pair.import();
    let before = pair.types("accounts export --with-refresh-tokens --yes").out;
    // The gateway has refreshed since, so all tokens of the file are spent.
    let said = pair.types(&format!("accounts import {file} --replace"));
    assert!(said.code == 0 && said.out.starts_with("4 accounts have another token here"), "{}", said.all());
    assert!(said.out.ends_with("Nothing was done. Add --yes to do it.\n"), "{}", said.out);
    assert!(said.out.contains("  acct-10001  global  ready, has worked, token until 20"), "{}", said.out);
    let config = std::fs::read_to_string(pair.config()).unwrap();
    let said = pair.types(&format!("accounts import {file} --replace --yes"));
    assert_eq!((said.code, said.out.matches("failed    ").count()), (1, 4), "{config}{}", said.all());
    assert_eq!(pair.types("accounts export --with-refresh-tokens --yes").out, before);
    assert_eq!(pair.types(&format!("accounts call {CLINIC} GET /orders/practice")).code, 0);
}

#[test]
fn one_call_as_an_account_says_status_size_links_and_time_and_the_body_only_on_demand() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let said = pair.types(&format!("accounts call {CLINIC} get orders/practice"));
    assert_eq!(said.code, 0);
    assert!(said.out.starts_with("200  ") && said.out.contains(" 6 links "), "{}", said.out);
    assert_eq!(said.out.lines().count(), 1);
    let said = pair.types(&format!("accounts call {CLINIC} GET /orders/practice --body"));
    assert!(said.out.contains(&format!("{}/accounts/{CLINIC}/", pair.url)), "{}", said.out);
    let said = pair.types(&format!("accounts call {CLINIC} GET /nope"));
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with("404  "));
    let said = pair.types("accounts call nobody GET /orders/lab");
    assert_eq!(said.err, "There is no account \"nobody\". `accounts list` shows them all.\n");
}

#[test]
fn pause_resume_renew_and_discover_say_what_came_of_it_for_each_account() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    assert_eq!(pair.types("accounts pause acct-*1").out, "ok      acct-10001  paused\n");
    let said = pair.types(&format!("accounts call {CLINIC} GET /orders/practice"));
    assert!(said.out.starts_with("503 account_paused  "), "{}", said.out);
    assert!(pair.types(&format!("explain {CLINIC}")).out.contains("accounts resume acct-10001"));
    assert!(pair.types("accounts resume acct-*").out.starts_with("ok      acct-10001  good until 20"));
    assert_eq!(pair.types("accounts renew acct-*").out.matches("good until").count(), 4);
    assert!(pair.types("accounts discover 10001").out.contains("/itero-gen-api/v2"));
    let acts = ["list", "show", "pause", "resume", "renew", "discover", "export", "unpair", "revoke"];
    for words in
        acts.map(|act| format!("accounts {act}")).iter().map(String::as_str).chain(["explain", "journal"])
    {
        let said = pair.types(&format!("{words} act-10001"));
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{words}");
        let told =
            "There is no account \"act-10001\". Is acct-10001 meant? `accounts list` shows them all.\n";
        assert_eq!(said.err, told, "{words}");
    }
    let said = pair.types("explain act-10001 -o json");
    let told: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, &told["code"], said.out.as_str()), (1, &"account_unknown".into(), ""));
}

#[test]
fn whatever_lists_or_shows_has_json_and_csv_and_a_table_of_80_columns() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    pair.types(&format!("accounts call {CLINIC} GET /orders/practice"));
    for words in [
        "accounts list",
        "accounts show acct-10001",
        "accounts export",
        "accounts call acct-10001 GET /orders/practice",
        "accounts unpair acct-10001",
        "accounts invite acct-*",
        "accounts pair --realm global --name new",
        "accounts switch acct-10001 --realm global",
        "accounts pause acct-10002",
        "explain acct-10001",
        "journal",
        "journal acct-10001 --lines 3",
        "callers list",
        "callers new-key lab",
        "store rotate-key",
    ] {
        let said = pair.types(&format!("{words} -o json"));
        assert_eq!(said.code, 0, "{words}: {}", said.all());
        assert!(serde_json::from_str::<serde_json::Value>(&said.out).is_ok(), "{words}: {}", said.out);
        for line in said.err.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{words}: {line}");
        }
        let said = pair.types(&format!("{words} -o csv"));
        assert_eq!(said.code, 0, "{words}: {}", said.all());
        let columns = |line: &str| line.split(',').count();
        let heads = said.out.lines().next().unwrap();
        assert!(columns(heads) > 1 && said.out.contains("\r\n") && !heads.contains(' '), "{words}: {heads}");
    }
    for words in ["accounts list", "callers list", "journal"] {
        let said = pair.types(words);
        assert!(said.out.lines().all(|line| line.chars().count() <= 80), "{words}: {}", said.out);
        assert!(!said.out.contains('\u{1b}'), "{words}");
    }
    let list = pair.types("accounts list").out;
    assert!(list.contains("in ") && list.contains(" min") && !list.contains("http"), "{list}");
    let wide = pair.types("accounts list --wide").out;
    assert!(wide.contains("ROUTE") && wide.contains("http") && wide.contains("Z  "), "{wide}");
    let usage = pair.types("accounts list --nonsense -o json");
    assert_eq!(usage.code, 2);
    assert!(serde_json::from_str::<serde_json::Value>(&usage.err).is_ok(), "{}", usage.err);
}

#[test]
fn a_wrong_admin_token_is_told_with_its_file_and_no_advice_for_programs() {
    let pair = GatewayAndSandbox::start(&[]);
    std::fs::write(pair.folder.path().join("admin.token"), "another one, long enough to be one\n").unwrap();
    let said = pair.types("accounts list");
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("does not take the admin token of ") && said.err.contains("admin.token. Is "),
        "{}",
        said.err
    );
    assert!(!said.err.contains("Bearer"), "{}", said.err);
}

#[test]
fn destructive_acts_show_whom_they_hit_and_wait_for_yes() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    for act in ["unpair", "revoke"] {
        let said = pair.types(&format!("accounts {act} {CLINIC}"));
        assert_eq!(said.code, 0);
        assert!(said.out.ends_with("Nothing was done. Add --yes to do it.\n"), "{}", said.out);
    }
    assert_eq!(pair.types(&format!("accounts revoke {LAB} --yes")).code, 0);
    let explained = pair.types(&format!("explain {LAB}")).out;
    assert!(explained.contains("its refresh token was revoked by an operator"), "{explained}");
    assert!(!explained.contains("next call"), "a call renews nothing here: {explained}");
    assert_eq!(pair.types(&format!("accounts unpair {CLINIC} --yes")).code, 0);
    assert_eq!(pair.types(&format!("accounts show {CLINIC}")).code, 1);
    assert_eq!(pair.types(&format!("accounts unpair {LAB} --realm china --yes")).code, 1, "no grant there");
    assert_eq!(pair.types(&format!("accounts switch {LAB} --realm china")).code, 1, "no grant there");
    let audit = pair.written("admin-audit.log");
    for line in [
        "\"action\":\"revoke\",\"account\":\"acct-10002\",\"outcome\":\"asked\"",
        "\"action\":\"unpair\",\"account\":\"acct-10001\",\"outcome\":\"done\"",
    ] {
        assert!(audit.contains(line), "{line} in {audit}");
    }
}

#[test]
fn an_account_is_removed_here_alone_after_a_preview_and_comes_back_by_import() {
    let pair = GatewayAndSandbox::start(&["--rotate"]);
    pair.import();
    let said = pair.types(&format!("accounts remove {CLINIC}"));
    assert!(
        said.code == 0 && said.out.ends_with("Nothing was done. Add --yes to do it.\n"),
        "{}",
        said.all()
    );
    assert!(said.out.contains("Nothing is done at the platform"), "{}", said.out);
    assert_eq!(pair.types(&format!("accounts show {CLINIC}")).code, 0);
    let exported = pair.types(&format!("accounts export {CLINIC} --with-refresh-tokens --yes")).out;
    let said = pair.types(&format!("accounts remove {CLINIC} --yes"));
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(pair.types(&format!("accounts show {CLINIC}")).code, 1);
    assert_eq!(pair.types(&format!("accounts remove {CLINIC} --yes")).code, 1);
    let audit = pair.written("admin-audit.log");
    assert!(
        audit.contains("\"action\":\"remove\",\"account\":\"acct-10001\",\"outcome\":\"done\""),
        "{audit}"
    );
    // Under a right name now, with the token that still lives.
    let said = pair.types_with("accounts import -", &exported.replace(CLINIC, "smile-berlin"));
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(pair.types("accounts call smile-berlin GET /orders/practice").code, 0);
}

#[test]
fn an_account_gets_another_name_after_a_preview_and_is_served_under_it() {
    let mut pair = GatewayAndSandbox::start(&["--rotate"]);
    pair.import();
    for (name, code) in [("Smile", 2), ("123", 2), ("acct-10002", 1), ("acct-10001", 1)] {
        assert_eq!(pair.types(&format!("accounts rename {CLINIC} {name} --yes")).code, code, "{name}");
    }
    let said = pair.types(&format!("accounts rename {CLINIC} smile-berlin"));
    assert!(
        said.code == 0 && said.out.ends_with("Nothing was done. Add --yes to do it.\n"),
        "{}",
        said.all()
    );
    let said = pair.types(&format!("accounts rename {CLINIC} smile-berlin --yes"));
    assert!(said.code == 0 && said.out.ends_with("Renamed from acct-10001.\n"), "{}", said.all());
    for round in 0..2 {
        assert_eq!(pair.types(&format!("accounts show {CLINIC}")).code, 1);
        assert_eq!(pair.types("accounts call smile-berlin GET /orders/practice").code, 0, "round {round}");
        assert_eq!(pair.types("accounts renew smile-berlin").code, 0, "its tokens are at hand");
        let explained = pair.types("explain smile-berlin").out;
        assert!(explained.contains("from acct-10001, by an operator"), "{explained}");
        pair.stop();
        pair.start_again();
    }
}

#[test]
fn an_account_whose_imported_token_was_never_good_asks_for_the_present_one_first() {
    let pair = GatewayAndSandbox::start(&["--rotate"]);
    pair.import();
    let file = r#"[{"name": "smile", "realm": "global", "account_id": 77, "refresh_token": "long-spent"}]"#;
    let said = pair.types_with("accounts import -", file);
    assert!(said.code == 1 && said.out.starts_with("failed    1 of 1  smile  stored, but"), "{}", said.all());
    let advice = "Give me the application's present refresh token again";
    let explained = pair.types("explain smile").out;
    assert!(explained.contains(advice), "{explained}");
    assert!(explained.find(advice) < explained.find("log in once"), "{explained}");
    assert!(pair.types("accounts list").out.contains("present refresh token"));
    let list = pair.types("accounts list smile -o json").out;
    assert!(list.contains("\"remedy\": \"present_token\""), "{list}");
    let refused = pair.types("accounts call smile GET /orders/practice --body").out;
    assert!(refused.contains("accounts import FILE"), "{refused}");
}

#[test]
fn refresh_tokens_leave_only_when_asked_for_twice_and_come_back_by_import() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    assert!(!pair.types("accounts export").out.contains("refresh_token"));
    assert_eq!(pair.types("accounts export --with-refresh-tokens").code, 2);
    let exported = pair.types("accounts export --with-refresh-tokens --yes").out;
    assert_eq!(exported.matches("\"refresh_token\"").count(), 4);
    let said = pair.types_with("accounts import -", &exported);
    assert_eq!(
        (said.code, said.out.lines().last()),
        (0, Some("0 imported, 4 kept, 0 replaced, 0 failed of 4"))
    );
    assert!(pair.written("admin-audit.log").contains("\"action\":\"export"));
}

#[test]
fn an_account_of_two_realms_can_be_switched_back_and_forth() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    // Not refreshed, since the sandbox knows no such grant in its old platform.
    let old =
        r#"[{"name": "acct-10001", "realm": "old", "account_id": 5, "refresh_token": "held-elsewhere"}]"#;
    let said = pair.types_with("accounts import -", old);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(pair.types("accounts list acct-10001").out.contains("  global  "));
    let said = pair.types("accounts switch acct-10001 --realm old");
    assert_eq!(said.out, "acct-10001: calls go to realm old from now on\n", "{}", said.err);
    assert!(pair.types("accounts list acct-10001").out.contains("  old "));
    assert_eq!(pair.types("accounts switch acct-10001 --realm global").code, 0);
    assert_eq!(pair.types("accounts call acct-10001 GET /orders/practice").code, 0);
}

#[test]
fn wrong_pairings_are_refused_in_words() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    for (words, code, why) in [
        ("--realm mars --name a", 1, "realm mars is not configured"),
        ("--realm global --name UPPER", 2, "lower-case letters"),
        ("--realm global --name 123", 2, "it would be taken for an id"),
        ("--realm global --name a --callback-url nonsense", 1, "the callback URL is not a URL"),
        ("--realm global --name other --account-id 10002", 1, "already known as acct-10002"),
    ] {
        let said = pair.types(&format!("accounts pair {words}"));
        assert_eq!(said.code, code, "{words}");
        assert!(said.err.contains(why), "{words}: {}", said.err);
    }
    for typed in ["nonsense\n", "http://elsewhere.test/?code=a&state=b\n", ""] {
        let said = pair.types_with("accounts pair --realm global --name a --paste", typed);
        assert_eq!(said.code, 1, "{typed}");
    }
    let csv = pair.types("accounts invite acct-* -o csv").out;
    assert_eq!(csv.lines().next(), Some("name,realm,account_id,expires_at,url"));
    assert_eq!(csv.matches(&format!(",{}/connect/", pair.admin)).count(), 4, "{csv}");
    assert_eq!(pair.types("accounts invite --needs-login").code, 1, "nobody does");
}

#[tokio::test]
async fn a_link_in_a_browser_pairs_an_account() {
    let pair = GatewayAndSandbox::start(&[]);
    let said = pair.types("accounts pair --realm global --name smile-berlin --account-id 10001");
    assert!(said.err.contains("warning: No callback URL is given"), "{}", said.err);
    assert!(said.err.contains("only a browser on the gateway's own machine"), "{}", said.err);
    let mut waiting = RunningProcess::typed(
        &pair,
        "accounts pair --realm global --name smile-berlin --account-id 10001 --wait",
    );
    let link = waiting.until("/connect/").lines().last().unwrap().to_owned();
    let browser = browser();
    let begun = browser.post(&link).send().await.unwrap();
    let cookie = begun.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let back = log_in(&browser, begun.headers()["location"].to_str().unwrap()).await;
    let page = browser.get(&back).header("cookie", &cookie).send().await.unwrap();
    let text = page.text().await.unwrap();
    assert!(text.contains("smile-berlin"), "{text}");
    waiting.until("paired: smile-berlin (10001 in realm global), ready");
    assert_eq!(waiting.exit_code(), 0);
    assert!(pair.types("accounts list").out.contains("smile-berlin  global  10001       ready"));
    let said = pair.types("accounts call smile-berlin GET /orders/practice");
    assert_eq!(said.code, 0, "{}", said.all());
}

#[tokio::test]
async fn the_address_that_a_browser_ended_on_can_be_pasted() {
    let pair = GatewayAndSandbox::start(&[]);
    let mut pasting =
        RunningProcess::typed(&pair, "accounts pair --realm global --name smile-berlin --paste");
    let heard = pasting.until("/oauth2/authorize?");
    let back = log_in(&browser(), heard.lines().last().unwrap()).await;
    pasting.types("nonsense");
    pasting.until("Paste the whole address");
    pasting.types(back.split('?').next().unwrap());
    pasting.until("it has no state");
    pasting.until("Paste the whole address");
    pasting.types(&back);
    pasting.until("10001  Clinic 10001");
    pasting.types("7");
    pasting.until("none of these numbers");
    pasting.types("10001");
    pasting.until("paired: smile-berlin");
    assert_eq!(pasting.exit_code(), 0);
    assert!(pair.types("accounts list").out.contains("smile-berlin"));
}

fn browser() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.timeout(Duration::from_secs(30)).build().unwrap()
}

/// Through the sandbox's two-step login page; returns where the browser is sent in the end.
async fn log_in(browser: &reqwest::Client, authorize: &str) -> String {
    let location = |response: reqwest::Response| response.headers()["location"].to_str().unwrap().to_owned();
    let page = location(browser.get(authorize).send().await.unwrap());
    let (origin, ticket) = page.split_once("/login?ticket=").unwrap();
    let form = |step: &str, field: &str| {
        let post = browser.post(format!("{origin}/login/{step}"));
        post.header("content-type", "application/x-www-form-urlencoded")
            .body(format!("ticket={ticket}&{field}"))
    };
    let second = form("email", "email=user%40sandbox.test").send().await.unwrap();
    assert_eq!(second.status(), 200);
    location(form("password", "password=sandbox").send().await.unwrap())
}
