//! Mistakes: what is wrong, where, and what to do about it, in the exit code that scripts rely on.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::processes::{GatewayAndSandbox, run, write};

#[test]
fn what_cannot_be_typed_ends_with_2_and_what_is_asked_for_with_0() {
    for wrong in [
        "",
        "frobnicate",
        "accounts",
        "accounts show",
        "accounts invite x --days 99",
        "sandbox --expiry-status 402",
        "store",
        "store backup",
        "store migrate",
    ] {
        let said = run(wrong.split(' ').filter(|word| !word.is_empty()));
        assert_eq!(said.code, 2, "{wrong}: {}", said.all());
    }
    for help in
        ["--help", "--version", "help accounts", "help store", "accounts pair --help", "completions bash"]
    {
        let said = run(help.split(' '));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{help}");
        assert!(!said.out.is_empty());
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    for words in ["completions zsh", "completions bash", "callers new-key"] {
        let script = format!("'{}' {words} | true", env!("CARGO_BIN_EXE_genapi-gateway"));
        let shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shell.stderr), "", "{words}");
    }
    // Nobody reads what went wrong either.
    for words in
        ["-c /nonexistent healthcheck", "-c /nonexistent accounts list -o json", "callers new-key a/b"]
    {
        let script = format!("'{}' {words} 2>&- >&-", env!("CARGO_BIN_EXE_genapi-gateway"));
        let code = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status().unwrap().code();
        assert_ne!(code, Some(101), "{words}");
    }
}

#[test]
fn all_faults_of_a_configuration_are_told_at_once_by_check_and_serve_alike() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    write(
        &file,
        "[gateway]\ndrain_timeout = \"soon\"\nmax_hed = \"64KiB\"\n[realms.global]\noauth_base = \"http://a.example\"\n[[callers]]\nname = \"x\"\naccounts = [\"*\"]\nkey_sha256 = \"12\"\n",
    );
    let file = file.to_str().unwrap();
    let [check, serve] = ["check", "serve"].map(|word| run(["-c", file, word]));
    assert_eq!((check.code, serve.code), (78, 78));
    assert_eq!(check.err, serve.err);
    for (place, key) in [
        (":2:", "gateway.drain_timeout"),
        (":3:", "gateway.max_hed"),
        (":5:", "realms.global.oauth_base"),
        (":9:", "callers[0].key_sha256"),
    ] {
        let line = check
            .err
            .lines()
            .find(|line| line.contains(key))
            .unwrap_or_else(|| panic!("{key} in {}", check.err));
        assert!(line.starts_with(file) && line.contains(place) && line.contains("Fix: "), "{line}");
    }
    let nowhere = run(["-c", "/nonexistent/config.toml", "accounts", "list"]);
    assert_eq!(nowhere.code, 78);
    assert!(nowhere.err.contains("GENAPI_GATEWAY_CONFIG"), "{}", nowhere.err);
}

#[test]
fn the_example_is_valid_once_its_secret_is_there_and_what_was_left_in_it_is_named() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let text = std::fs::read_to_string(example).unwrap();
    write(&file, &text);
    let said = run(["-c", file.to_str().unwrap(), "check"]);
    assert_eq!(said.code, 78);
    assert!(said.err.contains("ITERO_CLIENT_SECRET"), "{}", said.err);
    write(&file, &text.replace("{ env = \"ITERO_CLIENT_SECRET\" }", "{ file = \"client.secret\" }"));
    private(&folder.path().join("client.secret"), "s3cret\n");
    let said = run(["-c", file.to_str().unwrap(), "check"]);
    assert_eq!(said.code, 0, "{}", said.all());
    for key in ["login_page", "redirect_uri", "client_id", "key_sha256"] {
        let told =
            said.err.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {}", said.err));
        assert!(told.starts_with("warning: ") && told.contains("placeholder"), "{told}");
    }
    assert_eq!(said.err.lines().count(), 4, "{}", said.err);
}

#[test]
fn a_gateway_that_does_not_run_is_said_to_be_the_reason() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.gateway.signal("-TERM");
    let GatewayAndSandbox { folder, mut gateway, .. } = pair;
    assert_eq!(gateway.exit_code(), 0);
    let config = folder.path().join("config.toml");
    let config = config.to_str().unwrap();
    for words in [&["accounts", "list"][..], &["explain", "x"], &["healthcheck"]] {
        let said = run(["-c", config].iter().chain(words));
        assert_eq!(said.code, 1);
        assert!(said.err.contains("no gateway answers at http://127.0.0.1:"), "{}", said.err);
    }
    std::fs::remove_file(folder.path().join("admin.token")).unwrap();
    let said = run(["-c", config, "accounts", "list"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("The gateway makes it when it starts first"), "{}", said.err);
}

#[test]
fn a_loose_admin_token_is_refused_by_check_as_it_is_by_serve() {
    let pair = GatewayAndSandbox::start(&[]);
    let token = pair.folder.path().join("admin.token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = pair.types("check");
    assert_eq!(said.code, 78);
    assert!(said.err.contains("admin.token") && said.err.contains("chmod 600"), "{}", said.err);
}

#[test]
fn operators_need_the_admin_token_but_none_of_the_gateways_other_secrets() {
    let pair = GatewayAndSandbox::start(&[]);
    for entry in std::fs::read_dir(pair.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "secret") {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(pair.types("check").code, 78);
    let said = pair.types("accounts list");
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(pair.types("healthcheck").out, "alive\n");
}

#[test]
fn a_reload_takes_over_what_is_valid_says_what_needs_a_restart_and_keeps_the_old_when_it_is_not() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let text = pair.written("config.toml");
    write(
        &pair.config(),
        &text
            .replace("name = \"sandbox-caller\"", "name = \"renamed\"\nallow = [\"patients\"]")
            .replace("[admin]\n", "[admin]\naudit = \"other.log\"\n"),
    );
    pair.gateway.signal("-HUP");
    let heard = pair.gateway.until("the new configuration is in force");
    assert!(heard.contains("\"keys\":\"admin.audit\""), "{heard}");
    write(&pair.config(), &format!("{text}nonsense = 1\n"));
    pair.gateway.signal("-HUP");
    let heard = pair.gateway.until("the old one stays in force");
    assert!(heard.contains("callers[0].nonsense: is not a known key"), "{heard}");
}

#[test]
fn new_key_refuses_the_names_that_check_refuses() {
    for wrong in ["", "two words", "ümlaut", "a/b", &"x".repeat(65)] {
        let said = run(["callers", "new-key", wrong]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{wrong}");
        assert!(said.err.contains("is not a name for a caller: use letters, digits"), "{}", said.err);
    }
    assert_eq!(run(["callers", "new-key", "lab.sync_2"]).code, 0);
}

#[test]
fn a_load_test_of_which_every_call_fails_does_not_end_with_0() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let key = pair.folder.path().join("caller.key");
    let key = key.to_str().unwrap();
    let load = |call: &str| {
        let short = ["--for", "300ms", "--warm-up", "0s", "--connections", "1", "--accounts", "acct-10001"];
        run(["load", &pair.url, "--key-file", key, "--call", call].iter().chain(&short))
    };
    let said = load("GET /nope");
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.err.contains("every call failed"), "{}", said.all());
    assert_eq!(load("GET /orders/practice").code, 0);
}

#[test]
fn the_real_platform_is_loaded_with_test_accounts_alone_unless_forced() {
    let pair = GatewayAndSandbox::start(&[]);
    pair.import();
    let config = pair.folder.path().join("config.toml");
    let key = pair.folder.path().join("caller.key");
    let (config, key) = (config.to_str().unwrap(), key.to_str().unwrap());
    let load = |more: &[&str]| {
        let short = ["--for", "200ms", "--warm-up", "0s", "--connections", "1", "--real-platform"];
        run(["-c", config, "load", &pair.url, "--key-file", key].iter().chain(&short).chain(more))
    };
    let said = load(&["--accounts", "acct-10001,acct-10002"]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.err.contains("acct-10001, acct-10002: not marked as test accounts"), "{}", said.all());
    assert_eq!(load(&[]).code, 1, "no account is named");
    let marked = pair.types("accounts test acct-10001 --on");
    assert_eq!((marked.code, marked.out.as_str()), (0, "acct-10001 is a test account\n"));
    let said = load(&["--accounts", "acct-10001,acct-10002"]);
    assert!(said.err.starts_with("acct-10002: not marked"), "{}", said.all());
    assert_eq!(load(&["--accounts", "acct-10001"]).code, 0);
    assert_eq!(load(&["--accounts", "10001"]).code, 0, "by its id");
    assert_eq!(load(&["--accounts", "acct-10002", "--force"]).code, 0);

    let row = pair.types("accounts list acct-10001 -o csv").out.lines().nth(1).unwrap().to_owned();
    assert!(row.ends_with(",test"), "{row}");
    assert!(pair.types("accounts show acct-10001").out.contains("test account        yes"));
    assert!(pair.types("explain acct-10001").out.contains("It is a test account"));
    let exported = pair.types("accounts export acct-10001").out;
    assert!(exported.contains("\"test\": true"), "{exported}");
    let taken_away = pair.types("accounts test acct-10001 --off");
    assert_eq!((taken_away.code, taken_away.out.as_str()), (0, "acct-10001 is no test account\n"));
    assert_eq!(load(&["--accounts", "acct-10001"]).code, 1);
    assert_eq!(pair.types("accounts test acct-10001").code, 2, "neither on nor off");
}

/// A file that only its owner can read.
fn private(path: &std::path::Path, text: &str) {
    write(path, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
