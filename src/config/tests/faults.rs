//! Every fault names line, key and fix; every doubt is said and does not stop. One table per section.

use std::path::Path;

use super::super::*;
use super::{
    CANARY, ConfigFolder, MINIMAL, changed, env, second_caller, second_realm, with_caller, with_realm,
};

/// The one problem that a text has, held against its line, key, and fragments of what and fix.
fn expect(folder: &ConfigFolder, text: &str, marker: &str, key: &str, what: &str, fix: &str) {
    let problems = folder.problems(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    let problem = &problems[0];
    assert_eq!(problem.key, key, "{problem}");
    assert!(problem.what.contains(what), "{problem}");
    assert!(problem.fix.contains(fix), "{problem}");
    let line = text.lines().nth(problem.line - 1).unwrap_or_default();
    assert!(line.contains(marker), "{problem}\npoints at: {line}");
    assert!(!problem.to_string().contains(CANARY));
}

#[test]
fn each_fault_of_a_listener_names_line_key_and_fix() {
    let folder = ConfigFolder::new();
    #[rustfmt::skip]
    let table = [
        ("[gateway]\nlisten = [\"x\"]", "listen", "gateway.listen[0]", "not an address", "127.0.0.1:8080"),
        ("[gateway]\nlisten = \"127.0.0.1:1\"", "listen", "gateway.listen", "type string", "a list"),
        ("[gateway]\nlisten = []", "listen", "gateway.listen", "no address", "port"),
        ("[gateway]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listen", "gateway.listen[1]", "gateway.listen[0]", "port"),
        ("[gateway]\nlisten = [\"127.0.0.1:8081\"]", "", "admin.listen", "gateway.listen[0]", "port of its own"),
        ("[gateway]\nlisten = [\"0.0.0.0:8081\"]\nurl = \"http://gw:8081\"", "", "admin.listen", "taken", "port of its own"),
        ("[gateway]\nlisten = [\"0.0.0.0:80\"]", "[gateway]", "gateway.url", "is missing", "NAME:80"),
        ("[gateway]\nlisten = [\"10.0.0.1:80\"]\nurl = \"http://localhost\"", "url", "gateway.url", "on other machines", "give every caller a url"),
        ("[gateway]\nurl = \"ftp://x\"", "url", "gateway.url", "not http or https", "http://"),
        ("[gateway]\nurl = \"http://a:b@x\"", "url", "gateway.url", "password", "before the @"),
        ("[gateway]\nurl = \"http://x/?q\"", "url", "gateway.url", "query", "path"),
        ("[gateway]\nurl = \"http://x/#f\"", "url", "gateway.url", "fragment", "#"),
        ("[gateway]\nurl = \"http://0.0.0.0:1\"", "url", "gateway.url", "nobody can call", "name"),
        ("[gateway]\nlisen = []", "lisen", "gateway.lisen", "not a known key", "write listen"),
        ("[gateway]\nmax_head = \"8KiB\"", "max_head", "gateway.max_head", "out of range", "16KiB to 1MiB"),
        ("[gateway]\nmax_head = \"64KB\"", "max_head", "gateway.max_head", "not a size", "64KiB"),
        ("[gateway]\nmax_headers = 1", "max_headers", "gateway.max_headers", "out of range", "32"),
        ("[gateway]\nmax_connections = -1", "max_conn", "gateway.max_connections", "out of range", "from 1"),
        ("[gateway]\nhead_timeout = 15", "head_timeout", "gateway.head_timeout", "type integer", "20s"),
        ("[gateway]\nhead_timeout = \"15\"", "head_timeout", "gateway.head_timeout", "not a duration", "unit"),
        ("[gateway]\nhead_timeout = \"0s\"", "head_timeout", "gateway.head_timeout", "out of range", "1s"),
        ("[gateway]\ntrusted_proxies = [\"x/1\"]", "proxies", "gateway.trusted_proxies[0]", "not a network", "10.1.0.0/16"),
        ("[gateway]\ntrusted_proxies = [\"10.1.2.3/16\"]", "proxies", "gateway.trusted_proxies[0]", "within a network", "\"10.1.0.0/16\", or \"10.1.2.3/32\""),
        ("[gateway]\ntrusted_proxies = [\"::ffff:10.1.2.3/112\"]", "proxies", "gateway.trusted_proxies[0]", "within a network", "\"10.1.0.0/16\", or \"10.1.2.3/32\""),
        ("[gateway]\ntrusted_proxies = [\"fd00::1/8\"]", "proxies", "gateway.trusted_proxies[0]", "within a network", "\"fd00::/8\", or \"fd00::1/128\""),
        ("[gateway]\nlisten = [\"127.0.0.1:1\", \"[::ffff:127.0.0.1]:1\"]", "listen", "gateway.listen[1]", "gateway.listen[0]", "port"),
        ("[gateway]\nlisten = [\"10.0.0.1:80\"]\ntrusted_proxies = [\"::ffff:0:0/96\"]", "proxies", "gateway.trusted_proxies[0]", "any address", "balancers"),
        ("[gateway]\nlisten = [\"10.0.0.1:80\"]\ntrusted_proxies = [\"0.0.0.0/0\"]", "proxies", "gateway.trusted_proxies[0]", "any address", "balancers"),
        ("[gateway]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }", "tls", "gateway.tls.listen", "missing", "listen ="),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], cert = \"no.pem\", key = \"key.pem\" }", "tls", "gateway.tls.cert", "cannot be read", "user can read"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], cert = \"not.pem\", key = \"key.pem\" }", "tls", "gateway.tls.cert", "no certificate", "BEGIN CERTIFICATE"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], cert = \"cert.pem\", key = \"cert.pem\" }", "tls", "gateway.tls.key", "no private key", "BEGIN PRIVATE KEY"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], cert = \"cert.pem\", key = \"key.pem\", client_ca = \"not.pem\" }", "tls", "gateway.tls.client_ca", "no certificate", "BEGIN"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], ca = \"ca\", cert = \"cert.pem\", key = \"key.pem\" }", "ca =", "gateway.tls.ca", "beside a cert or key", "keep cert and key, or ca"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:1\"], ca = \"ca\", key = \"key.pem\" }", "ca =", "gateway.tls.ca", "beside a cert or key", "keep cert and key, or ca"),
        ("[gateway]\nforward_proxy = { ca = \"ca\" }", "forward_proxy", "gateway.forward_proxy.listen", "missing", "listen ="),
        ("[gateway]\nforward_proxy = { listen = [\"127.0.0.1:3128\"] }", "forward_proxy", "gateway.forward_proxy.ca", "missing", "genapi-gateway ca init"),
        ("[gateway]\nforward_proxy = { listen = [\"127.0.0.1:8080\"], ca = \"ca\" }", "forward_proxy", "gateway.forward_proxy.listen[0]", "taken by gateway.listen", "port"),
        ("[gateway]\ntls = { listen = [\"127.0.0.1:8080\"], cert = \"cert.pem\", key = \"key.pem\" }", "tls", "gateway.tls.listen[0]", "taken by gateway.listen", "port"),
        ("[admin]\ntoken = \"abc\"", "token", "admin.token", "secret itself", "token = { file = "),
        ("[admin]\ntoken = { file = \"a\", env = \"b\" }", "token", "admin.token", "not both", "{ env ="),
        ("[admin]\nurl = \"x\"", "url", "admin.url", "not a URL", "http://"),
        ("[public]\nlisten = [\"127.0.0.1:9\"]", "[public]", "public.url", "missing", "url ="),
        ("[public]\nlisten = [\"127.0.0.1:9\"]\nurl = \"http://x\"", "url", "public.url", "not https", "https://"),
        ("[public]\nurl = \"https://x\"", "[public]", "public.listen", "missing", "listen ="),
    ];
    for (snippet, marker, key, what, fix) in table {
        let text = format!("{MINIMAL}\n{snippet}\n");
        expect(&folder, &text, marker, key, what, fix);
    }
}

#[test]
fn each_fault_of_a_realm_names_line_key_and_fix() {
    let folder = ConfigFolder::new();
    let wide: String = CANARY.chars().flat_map(|letter| [letter, '\0']).collect();
    folder.write("wide.secret", &wide);
    folder.write("two.secret", &format!("{CANARY}\n{CANARY}\n"));
    folder.write("large.secret", &CANARY.repeat(10_000));
    let (oauth, base) = ("oauth_base", "base_url");
    #[rustfmt::skip]
    let table = [
        (changed(&[(oauth, "oauth_base = \"http://x.iterocloud.com\"")]), oauth, "not https", "https://"),
        (changed(&[(oauth, "oauth_base = \"https://x.iterocloud.com:8443\"")]), oauth, "port", "allow_insecure"),
        (changed(&[(oauth, "oauth_base = \"https://10.0.0.1\"")]), oauth, "address instead", "host name"),
        (changed(&[(base, "base_url = \"https://[::1]\"")]), base, "address instead", "host name"),
        (changed(&[(base, "base_url = \"https://localhost\"")]), base, "address instead", "host name"),
        (changed(&[(base, "base_url = \"https://u:p@x.iterocloud.com\"")]), base, "password", "@"),
        (changed(&[(base, "base_url = \"https://x.iterocloud.com?a=b\"")]), base, "query", "path"),
        (changed(&[(base, "base_url = 5")]), base, "type integer", "quotes"),
        (changed(&[("login_page", "login_page = \"http://x.y\"")]), "login_page", "not https", "https://"),
        (changed(&[("redirect_uri", "redirect_uri = \"https://x.y/#a\"")]), "redirect_uri", "fragment", "#"),
        (changed(&[("redirect_uri", "redirect_uri = \"http://x.y/cb\"")]), "redirect_uri", "not https", "https"),
        (changed(&[("redirect_uri", "redirect_uri = \"https://127.0.0.1/cb\"")]), "redirect_uri", "loopback", "paste"),
        (changed(&[("redirect_uri", "redirect_uri = \"https://x.y/metrics\"")]), "redirect_uri", "own", "another path"),
        (changed(&[("client_id", "client_id = \"\"")]), "client_id", "empty", "fill"),
        (changed(&[("client_secret", "client_secret = \"canary-4711\"")]), "client_secret", "secret itself", "chmod 600"),
        (changed(&[("client_secret", "client_secret = { env = \"NOPE\" }")]), "client_secret", "not set", "set NOPE"),
        (changed(&[("client_secret", "client_secret = { file = \"nope\" }")]), "client_secret", "does not exist", "chmod 600"),
        (changed(&[("client_secret", "client_secret = { file = \"empty.secret\" }")]), "client_secret", "empty", "put the secret"),
        (changed(&[("client_secret", "client_secret = { file = \"wide.secret\" }")]), "client_secret", "UTF-16", "UTF-8"),
        (changed(&[("client_secret", "client_secret = { file = \"two.secret\" }")]), "client_secret", "more than one line", "one line"),
        (changed(&[("client_secret", "client_secret = { file = \"large.secret\" }")]), "client_secret", "larger than 64 KiB", "right file"),
        (changed(&[("client_secret", "client_secret = { file = \".\" }")]), "client_secret", "is a folder", "file in it"),
        (changed(&[("client_secret", "client_secret = { file = \"loose.secret\" }")]), "client_secret", "open to others", "chmod 600"),
        (changed(&[("client_secret", "client_secret = { fil = \"x\", env = \"ITERO_CLIENT_SECRET\" }")]), "client_secret.fil", "not a known key", "write file"),
        (changed(&[("allowed_hosts", "allowed_hosts = []")]), "allowed_hosts", "allows no host", "*.iterocloud.com"),
        (changed(&[("allowed_hosts", "allowed_hosts = [\"*\"]")]), "allowed_hosts[0]", "", "labels"),
        (changed(&[("allowed_hosts", "allowed_hosts = [\"*.com\"]")]), "allowed_hosts[0]", "top-level", "labels"),
        (changed(&[("allowed_hosts", "allowed_hosts = [\"10.0.0.1\"]")]), "allowed_hosts[0]", "address", "labels"),
        (with_realm("link_hosts = [\"a b\"]"), "link_hosts[0]", "not a host name", "labels"),
        (with_realm("kind = \"newer\""), "kind", "not a kind", "\"old\""),
        (with_realm("discovery = { path = \"x\" }"), "discovery.path", "absolute path", "/"),
        (with_realm("discovery = { versoin = \"2\" }"), "discovery.versoin", "not a known key", "write version"),
        (with_realm("route = { domain = \"https://evil.test\", path = \"/v2\" }"), "route", "not in allowed_hosts", "allowed_hosts"),
        (with_realm("route = { domain = \"https://a.iterocloud.com\" }"), "route.path", "missing", "/lab-sw/v1"),
        (with_realm("ca_file = \"not.pem\""), "ca_file", "no certificate", "BEGIN CERTIFICATE"),
        (with_realm("ca_file = \"no.pem\""), "ca_file", "cannot be read", "user can read"),
        (with_realm("resolve = { \"a.test\" = \"nope\" }"), "resolve.a.test", "invalid IP", "IP address"),
        (with_realm("resolve = { \"*.a.test\" = \"10.0.0.1\" }"), "resolve.*.a.test", "not a host name", "\"host\""),
        (with_realm("allow_insecure = \"yes\""), "allow_insecure", "type string", "true or false"),
        (with_realm("oauth_bse = 1"), "oauth_bse", "not a known key", "write oauth_base"),
        (with_realm("frobnicate = 1"), "frobnicate", "not a known key", "known here: "),
    ];
    for (text, key, what, fix) in table {
        let marker = key.split(['.', '[']).next().unwrap();
        expect(&folder, &text, marker, &format!("realms.global.{key}"), what, fix);
    }
    for key in [
        "oauth_base",
        "base_url",
        "login_page",
        "redirect_uri",
        "client_id",
        "client_secret",
        "allowed_hosts",
    ] {
        let full = format!("realms.global.{key}");
        expect(&folder, &changed(&[(key, "")]), "[realms.global]", &full, "is missing", &format!("{key} = "));
    }
    let callers = MINIMAL.split("\n[[callers]]").nth(1).unwrap();
    let realmless = format!("[[callers]]{callers}");
    expect(&folder, &realmless, "", "realms", "no realm", "[realms.global]");
    let shared = second_realm("").replace("realms.china]", "realms.china] # twin");
    expect(&folder, &shared, "twin", "realms.china", "client_id of realm", "one set of credentials");
    let odd = MINIMAL.replace("realms.global", "realms.Global");
    expect(&folder, &odd, "[realms.Global]", "realms.Global", "lower-case", "plain name");
}

#[test]
fn each_fault_of_a_caller_names_line_key_and_fix() {
    let folder = ConfigFolder::new();
    let hex = "ab".repeat(32);
    let wide = "[gateway]\nlisten = [\"10.0.0.1:80\"]\nurl = \"http://gw\"\n";
    #[rustfmt::skip]
    let table = [
        (changed(&[("name", "name = \"a b\"")]), "name", "callers[0].name", "not a name", "letters"),
        (changed(&[("accounts", "accounts = []")]), "accounts", "callers[0].accounts", "no account", "\"*\""),
        (changed(&[("accounts", "accounts = \"*\"")]), "accounts", "callers[0].accounts", "type string", "a list"),
        (changed(&[("accounts", "accounts = [12]")]), "accounts", "callers[0].accounts[0]", "type integer", "ids too"),
        (changed(&[("accounts", "accounts = [\"Smile\"]")]), "accounts", "callers[0].accounts[0]", "lower-case", "realm:id"),
        (changed(&[("accounts", "accounts = [\"a\", \"mars:1\"]")]), "accounts", "callers[0].accounts[1]", "\"mars\" is not known", "global"),
        (changed(&[("accounts", "accounts = [\"global:x\"]")]), "accounts", "callers[0].accounts[0]", "not an account id", "realm:id"),
        (changed(&[("key_sha256", "")]), "[[callers]]", "callers[0]", "nothing to be known by", "new-key"),
        (changed(&[("key_sha256", "networks = []")]), "[[callers]]", "callers[0]", "nothing to be known by", "new-key"),
        (changed(&[("key_sha256", "key_sha256 = \"abc\"")]), "key_sha256", "callers[0].key_sha256", "64 hexadecimal", "new-key"),
        (changed(&[("key_sha256", &format!("key_sha256 = \"+{}\"", &hex[1..]))]), "key_sha256", "callers[0].key_sha256", "64 hexadecimal", "new-key"),
        (changed(&[("key_sha256", &format!("key_sha256 = \"ä{}\"", &hex[2..]))]), "key_sha256", "callers[0].key_sha256", "64 hexadecimal", "new-key"),
        (changed(&[( "key_sha256", "key_sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"", )]), "key_sha256", "callers[0].key_sha256", "empty text", "new-key"),
        (with_caller(&format!("cert_sha256 = \"{hex}\"")), "cert_sha256", "callers[0].cert_sha256", "never match", "client_ca"),
        (with_caller("networks = [\"10.0.0.0/33\"]"), "networks", "callers[0].networks[0]", "not a network", "10.1.0.0/16"),
        (with_caller("allow = [\"order\"]"), "allow", "callers[0].allow[0]", "no group", "orders, downloads"),
        (with_caller("allow = []"), "allow", "callers[0].allow", "allows nothing", "remove allow"),
        (with_caller("facade = { client_id = \"x\" }"), "facade", "callers[0].facade.client_secret_sha256", "missing", "client_secret_sha256 ="),
        (with_caller("limit = {}"), "limit", "callers[0].limit", "limits nothing", "per_second"),
        (with_caller("limit = { per_second = 0 }"), "per_second", "callers[0].limit.per_second", "out of range", "from 1"),
        (with_caller("url = \"gopher://x\""), "url", "callers[0].url", "not http or https", "http://"),
        (second_caller(&format!("name = \"lab-sync\"\naccounts = [\"a\"]\nkey_sha256 = \"{hex}\"")), "lab-sync", "callers[1].name", "callers[0].name", "another name"),
        (second_caller( "name = \"b\"\naccounts = [\"a\"]\nkey_sha256 = \"0102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1FFF\" # 2", ), "# 2", "callers[1].key_sha256", "callers[0].key_sha256", "new-key"),
        (with_caller("networks = [\"10.1.0.0/16\", \"::ffff:10.1.0.0/112\"]"), "networks", "callers[0].networks[1]", "callers[0].networks[0]", "narrow"),
        (format!("{wide}{}", with_caller("networks = [\"0.0.0.0/0\"]")), "networks", "callers[0].networks[0]", "anybody", "loopback only"),
        (format!("{wide}{}", with_caller("networks = [\"128.0.0.0/1\"]")), "networks", "callers[0].networks[0]", "anybody", "loopback only"),
        (format!("{wide}{}", with_caller("networks = [\"::/0\"]")), "networks", "callers[0].networks[0]", "anybody", "loopback only"),
        (format!("[gateway]\ntrusted_proxies = [\"127.0.0.1\"]\n{}", with_caller("networks = [\"::/0\"]")), "networks", "callers[0].networks[0]", "anybody", "keys"),
        (MINIMAL.split("[[callers]]").next().unwrap().to_owned(), "", "callers", "no caller", "[[callers]]"),
    ];
    for (text, marker, key, what, fix) in table {
        expect(&folder, &text, marker, key, what, fix);
    }
    assert!(folder.load(&with_caller("networks = [\"0.0.0.0/0\"]")).is_ok(), "on loopback it is legal");
}

#[test]
fn each_fault_of_the_other_sections_names_line_key_and_fix() {
    let folder = ConfigFolder::new();
    #[rustfmt::skip]
    let table = [
        ("[store]\nurl = \"sqlite::memory:\"", "url", "store.url", "outlive", "a file"),
        ("[store]\nurl = \"mysql://u:canary-4711@x\"", "url", "store.url", "neither", "postgres://"),
        ("[store]\nlisten_url = \"postgres://u:canary-4711@x\"", "listen_url", "store.listen_url", "PostgreSQL only", "remove listen_url"),
        ("[store]\nurl = \"postgres://h/d\"\nlisten_url = \"tcp://u:canary-4711@x\"", "listen_url", "store.listen_url", "not postgres://", "without a pooler"),
        ("[store]\nkey = \"canary-4711\"", "key", "store.key", "secret itself", "key = { file"),
        ("[upstream]\nmax_idle_per_host = 0", "max_idle_per_host", "upstream.max_idle_per_host", "out of range", "from 1"),
        ("[upstream]\nproxy = \"https://x\"", "proxy", "upstream.proxy", "no HTTP proxy", "3128"),
        ("[upstream]\nproxy = \"http://u:canary-4711@x\"", "proxy", "upstream.proxy", "password", "@"),
        ("[retry]\ninitial_backoff = \"500ms\"", "initial_backoff", "retry.initial_backoff", "1000 ms", "\"1s\""),
        ("[retry]\npairing_backoff = \"1s\"", "pairing_backoff", "retry.pairing_backoff", "2000 ms", "\"2s\""),
        ("[retry]\nattempts = 0", "attempts", "retry.attempts", "out of range", "1 to 10"),
        ("[retry]\nattempts = 11", "attempts", "retry.attempts", "out of range", "1 to 10"),
        ("[retry]\nbudget = 1.5", "budget", "retry.budget", "out of range", "0.0 to 1.0"),
        ("[retry]\nbudget = \"much\"", "budget", "retry.budget", "type string", "number"),
        ("[renewal]\nidle_renewal = \"81d\"", "idle_renewal", "renewal.idle_renewal", "out of range", "80d"),
        ("[renewal]\nrenew_before_expiry = \"1h\"", "renew_before_expiry", "renewal.renew_before_expiry", "out of range", "30m"),
        ("[log]\nlevel = \"inf\"", "level", "log.level", "no log level", "debug"),
        ("[log]\nlevel = \"info,x=loud\"", "level", "log.level", "x=loud", "debug"),
        ("[log]\nformat = \"xml\"", "format", "log.format", "no log format", "json"),
        ("[log]\naccess = 1", "access", "log.access", "type integer", "true or false"),
        ("[gatway]", "[gatway]", "gatway", "not a known key", "write gateway"),
        ("[log] # x\nlevel = debug", "level = debug", "log.level", "quoted", "TOML"),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"", "warn", "log.level", "duplicate key", "TOML"),
    ];
    for (snippet, marker, key, what, fix) in table {
        let text = format!("{MINIMAL}\n{snippet}\n");
        expect(&folder, &text, marker, key, what, fix);
    }
}

#[test]
fn a_missing_file_is_a_problem_without_a_line() {
    let problems = load(Path::new("/nowhere/config.toml"), &env).unwrap_err();
    let shown = problems.to_string();
    assert!(shown.starts_with("/nowhere/config.toml: cannot be read"), "{shown}");
    assert!(shown.contains("Fix: "), "{shown}");
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = changed(&[("oauth_base", "oauth_base = \"http://x\""), ("key_sha256", "key_sha256 = \"x\"")]);
    let problems = ConfigFolder::new().problems(&format!("{text}\n[retry]\nattempts = 0\nfoo = 1"));
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["realms.global.oauth_base", "callers[0].key_sha256", "retry.attempts", "retry.foo"]);
    let lines: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(lines, [(3, 14), (14, 14), (16, 12), (17, 1)]);
}

#[test]
fn what_is_doubtful_is_said_and_does_not_stop() {
    let folder = ConfigFolder::new();
    let sandbox = with_realm("allow_insecure = true");
    folder.write("left.secret", "<client secret>");
    folder.write("short.token", "t0ken");
    #[rustfmt::skip]
    let table = [
        (sandbox.clone(), "realms.global.oauth_base", "allow_insecure"),
        (changed(&[("base_url", "base_url = \"https://api.aligntech.com\"")]), "realms.global.base_url", "not in allowed_hosts"),
        (changed(&[("oauth_base", "oauth_base = \"https://identity-cus.aligntech.com\"")]), "realms.global.oauth_base", "retired"),
        (changed(&[("base_url", "base_url = \"https://API-Proxy.aligntech.com/itero-gen-api/v2\"")]), "realms.global.base_url", "retired"),
        (changed(&[("base_url", "base_url = \"https://gateway-cus.aligntech.com./lab-sw/v1\"")]), "realms.global.base_url", "retired"),
        (changed(&[("client_id", "client_id = \"YOUR_CLIENT_ID\"")]), "realms.global.client_id", "placeholder"),
        (changed(&[("client_secret", "client_secret = { file = \"left.secret\" }")]), "realms.global.client_secret", "placeholder"),
        (changed(&[("login_page", "login_page = \"https://login.example.org/x\"")]), "realms.global.login_page", "placeholder"),
        (changed(&[("redirect_uri", "redirect_uri = \"https://your-gateway.test/cb\"")]), "realms.global.redirect_uri", "placeholder"),
        (format!("{MINIMAL}[gateway]\nurl = \"http://gateway.example.internal\""), "gateway.url", "placeholder"),
        (changed(&[("key_sha256", &format!("key_sha256 = \"{}1\"", "0".repeat(63)))]), "callers[0].key_sha256", "placeholder"),
        (format!("{MINIMAL}[admin]\ntoken = {{ file = \"short.token\" }}"), "admin.token", "short"),
        (format!("{MINIMAL}[renewal]\nmin_gap = \"0s\""), "renewal.min_gap", "quick succession"),
        (format!("{MINIMAL}[retry]\nscan_request = true"), "retry.scan_request", "RX"),
        (with_caller("allow = [\"unpair\"]"), "callers[0].allow[0]", "every user"),
        (changed(&[("accounts", "accounts = [\"*\"]"), ("key_sha256", "networks = [\"10.0.0.0/8\"]")]), "callers[0].accounts", "all accounts"),
        (format!("{MINIMAL}[gateway]\nlisten = [\"10.0.0.1:80\"]"), "gateway.listen", "in clear"),
        (format!("{MINIMAL}[admin]\nlisten = [\"10.0.0.1:80\"]"), "admin.listen", "admin token"),
        (format!("{MINIMAL}[admin]\ntls = {{ cert = \"cert.pem\", key = \"loose.pem\" }}"), "admin.tls.key", "everybody"),
        (format!("{MINIMAL}[store]\nurl = \"postgres://u:canary-4711@h/d\""), "store.url", "password"),
        (format!("{MINIMAL}[store]\nurl = \"postgres://h/d\"\nlisten_url = \"postgres://u:canary-4711@h/d\""), "store.listen_url", "password"),
        (second_realm("") .replace("client_id = \"id\"\n", "client_id = \"id2\"\n") .replacen("\"id2\"", "\"id\"", 1), "realms.china", "allows *.iterocloud.com"),
    ];
    for (text, key, what) in table {
        let warnings = folder.load(&text).unwrap_or_else(|problems| panic!("{text}\n{problems}")).warnings;
        let found = warnings.iter().find(|warning| warning.key == key && warning.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("{key}: {what} is not among {warnings:#?}"));
        assert!(found.line > 0);
        assert!(!found.to_string().contains(CANARY));
    }
}

#[test]
fn a_retired_host_is_told_with_the_address_that_replaces_it() {
    let folder = ConfigFolder::new();
    let route =
        with_realm("route = { domain = \"https://gateway-cus.aligntech.com\", path = \"/lab-sw/v1\" }");
    let route = route.replace("[\"*.iterocloud.com\"]", "[\"*.iterocloud.com\", \"*.aligntech.com\"]");
    let base = changed(&[("base_url", "base_url = \"https://api-proxy.aligntech.com/itero-gen-api/v2\"")]);
    let auth = changed(&[("oauth_base", "oauth_base = \"https://identity-cus.aligntech.com\"")]);
    let (api, identity) = ("https://prod-iteroapi.iterocloud.com", "https://prod-identity.iterocloud.com");
    for (text, new) in [(route, api), (base, api), (auth, identity)] {
        let warnings = folder.load(&text).unwrap_or_else(|problems| panic!("{problems}")).warnings;
        assert!(warnings.iter().any(|warning| warning.fix.contains(new)), "{warnings:#?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_ipv6_listener_that_takes_ipv4_as_well_is_known_to_clash() {
    if std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.trim() == "0") {
        let text =
            format!("{MINIMAL}\n[gateway]\nlisten = [\"0.0.0.0:80\", \"[::]:80\"]\nurl = \"http://gw\"\n");
        let fix = "[::] takes IPv4 as well";
        expect(&ConfigFolder::new(), &text, "listen", "gateway.listen[1]", "gateway.listen[0]", fix);
    }
}
