//! `check` is `serve` without the sockets: what one refuses the other refuses, in the same words and with the
//! same exit code.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::processes::{GatewayAndSandbox, run, write};

/// A configuration that needs nothing but its folder.
const CONFIG: &str = r#"
[gateway]
listen = []
url = "https://gateway.test"
tls = { listen = ["127.0.0.1:0"], cert = "cert.pem", key = "key.pem" }
[admin]
listen = ["127.0.0.1:0"]
[realms.new]
oauth_base = "http://127.0.0.1:4000"
base_url = "http://127.0.0.1:4001"
login_page = "http://127.0.0.1:4000/login"
redirect_uri = "http://127.0.0.1:8081/oauth2/callback"
client_id = "id"
client_secret = { file = "client.secret" }
allowed_hosts = ["127.0.0.1"]
allow_insecure = true
[[callers]]
name = "app"
accounts = ["smile"]
networks = ["127.0.0.0/8"]
"#;

/// A folder with a configuration that `check` reads.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.certificate("cert.pem", "key.pem");
        folder.certificate("other.pem", "other.key");
        folder.private("client.secret", "s3cret\n");
        folder.private("config.toml", CONFIG);
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn private(&self, name: &str, text: &str) {
        private(&self.path(name), text);
    }

    fn certificate(&self, cert: &str, key: &str) {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
        self.private(cert, &made.cert.pem());
        self.private(key, &made.signing_key.serialize_pem());
    }

    fn changed(&self, from: &str, to: &str) {
        assert!(CONFIG.contains(from));
        self.private("config.toml", &CONFIG.replace(from, to));
    }
}

fn private(path: &Path, text: &str) {
    write(path, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn what_check_refuses_keeps_serve_from_starting_in_the_same_words() {
    type Break = fn(&Folder);
    #[rustfmt::skip]
    let table: [(Break, &str, &str); 9] = [
        (|folder| folder.changed("key.pem", "other.key"), "gateway.tls.key", "not the key of the first certificate"),
        (|folder| folder.changed("[admin]\n", "[store]\nurl = \"sqlite:none/gateway.db\"\n[admin]\n"), "store.url", "cannot be used"),
        (|folder| folder.changed("[admin]\n", "[store]\nkey = { file = \"none/gateway.key\" }\n[admin]\n"), "store.key", "cannot be made"),
        (|folder| folder.changed("[admin]\n", "[admin]\naudit = \"none/audit.log\"\n"), "admin.audit", "cannot be written"),
        (|folder| folder.changed("[admin]\n", "[admin]\ntoken = { file = \"none/t\" }\n"), "admin.token", "cannot be made"),
        (|folder| folder.changed("[admin]\n", "[store]\nurl = \"postgres://h/d?sslmode=no\"\n[admin]\n"), "store.url", "no address"),
        (|folder| folder.private("gateway.db", "not a database"), "store.url", "no SQLite database"),
        (|folder| folder.private("gateway.key", "c2VjcmV0\n"), "store.key", "no key on line 1"),
        (|folder| {
            folder.private("gateway.key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
            std::fs::set_permissions(folder.path("gateway.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        }, "store.key", "chmod 600"),
    ];
    for (spoil, key, what) in table {
        let folder = Folder::new();
        spoil(&folder);
        let config = folder.path("config.toml");
        let config = config.to_str().unwrap();
        let [check, serve] = ["check", "serve"].map(|word| run(["-c", config, word]));
        assert_eq!((check.code, serve.code), (78, 78), "{key}: {}{}", check.all(), serve.all());
        assert_eq!(check.err, serve.err);
        assert!(check.err.contains(&format!("{key}: ")) && check.err.contains(what), "{}", check.err);
        assert!(check.err.contains("config.toml:") && check.err.contains("Fix: "), "{}", check.err);
        for made in ["gateway.db.lock", "gateway.db-wal", "admin.token", "admin-audit.log"] {
            assert!(!folder.path(made).exists(), "{key}: {made}");
        }
    }
}

#[test]
fn for_programs_check_says_the_same_as_one_document() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let config = config.to_str().unwrap();
    let check = |more: &[&str]| {
        let said = run(["-c", config, "check", "-o", "json"].iter().copied().chain(more.iter().copied()));
        assert_eq!(said.err, "", "all of it stands in the document");
        (said.code, serde_json::from_str::<serde_json::Value>(&said.out).unwrap())
    };
    let nothing = serde_json::json!({"valid": true, "errors": [], "warnings": [], "steps": []});
    assert_eq!(check(&[]), (0, nothing));

    folder.changed("https://gateway.test", "https://other.test");
    let (code, told) = check(&[]);
    assert_eq!(
        (code, &told["valid"], told["warnings"].as_array().unwrap().len()),
        (0, &true.into(), 1),
        "{told}"
    );
    assert!(told["warnings"][0]["problem"].as_str().unwrap().contains("not for other.test"), "{told}");

    folder.changed("key.pem", "other.key");
    let (code, told) = check(&["--connect"]);
    assert_eq!(
        (code, &told["valid"], &told["warnings"], &told["steps"]),
        (78, &false.into(), &serde_json::json!([]), &serde_json::json!([])),
        "{told}"
    );
    let error = &told["errors"][0];
    let fields: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["column", "file", "fix", "key", "line", "problem"]);
    assert_eq!(
        (&error["file"], &error["key"], &error["line"]),
        (&config.into(), &"gateway.tls.key".into(), &5.into())
    );
    assert!(error["problem"].as_str().unwrap().contains("not the key of the first certificate"), "{error}");
    assert!(!error["fix"].as_str().unwrap().is_empty());

    // Nobody listens where the realm's addresses lead.
    folder.private("config.toml", CONFIG);
    let (code, told) = check(&["--connect"]);
    let steps = told["steps"].as_array().unwrap();
    assert!(code == 1 && told["valid"] == true && steps.iter().all(|step| step["realm"] == "new"), "{told}");
    assert!(
        steps.iter().any(|step| step["step"] == "oauth_base: connection" && step["ok"] == false),
        "{told}"
    );

    std::fs::remove_file(config).unwrap();
    let (code, told) = check(&[]);
    assert_eq!(
        (code, &told["errors"][0]["line"], &told["errors"][0]["key"]),
        (78, &().into(), &().into()),
        "{told}"
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_called_one() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap();
    folder.private("cert.pem", &(read("other.pem") + &read("cert.pem")));
    let said = run(["-c", folder.path("config.toml").to_str().unwrap(), "check"]);
    assert_eq!(said.code, 78, "{}", said.all());
    assert!(
        said.err.contains("cert.pem is in the wrong order: ") && said.err.contains("put certificate 2 first"),
        "{}",
        said.err
    );
}

#[test]
fn a_good_place_is_said_to_be_one_and_nothing_is_made_there() {
    let folder = Folder::new();
    let before = std::fs::read_dir(folder.0.path()).unwrap().count();
    let said = run(["-c", folder.path("config.toml").to_str().unwrap(), "check"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.all());
    assert!(said.out.ends_with("config.toml: the configuration is valid\n"), "{}", said.out);
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), before);
    folder.changed("https://gateway.test", "https://other.test");
    let said = run(["-c", folder.path("config.toml").to_str().unwrap(), "check"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.err.starts_with("warning: ") && said.err.contains("not for other.test"), "{}", said.err);
    assert!(said.out.ends_with("the configuration is valid, with the warning above\n"), "{}", said.out);
}

#[test]
fn a_gateway_that_runs_is_no_fault_of_the_configuration() {
    let pair = GatewayAndSandbox::start(&[]);
    let said = pair.types("check");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.all());
    // A supervisor tries again after 1: the other one may be about to end.
    let second = pair.types("serve");
    assert_eq!(second.code, 1, "{}", second.all());
    assert!(second.err.contains("in use by another gateway"), "{}", second.err);
    assert_eq!(pair.types("healthcheck").out, "alive\n");
}
