//! A configuration for tests and benches. It comes from the loader, so each default stands in `defaults`
//! alone.

use std::path::Path;

use super::{Config, load};

const TEXT: &str = r#"
[gateway]
listen = ["127.0.0.1:0"]
url = "http://gateway.test"
[admin]
listen = ["127.0.0.1:0"]
token = { env = "TOKEN" }
[store]
key = { env = "KEY" }
[realms.global]
oauth_base = "http://127.0.0.1"
base_url = "http://127.0.0.1"
login_page = "http://127.0.0.1"
redirect_uri = "http://127.0.0.1"
client_id = "id"
client_secret = { env = "SECRET" }
allowed_hosts = ["127.0.0.1"]
link_hosts = ["localhost"]
discovery = { path = "/d" }
allow_insecure = true
[[callers]]
name = "anyone"
accounts = ["*"]
networks = ["0.0.0.0/0"]
[upstream]
proxy = "none"
[log]
access = false
"#;

impl Config {
    /// A realm `global` on loopback, a caller `anyone` from anywhere, every other value as the loader has it.
    /// A test changes the fields that it is about.
    #[doc(hidden)]
    pub fn for_tests() -> Config {
        let env = |name: &str| Some(format!("the {name} of a test, long enough"));
        let (config, report) = load::read(Path::new("config.toml"), TEXT, &env);
        config.unwrap_or_else(|| panic!("the configuration of the tests is not valid: {:?}", report.problems))
    }
}
