//! The built binary as a running gateway, and a caller for it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use genapi_gateway::sandbox::gateway_files;

use super::ready::until_ready;

/// `serve`, as a service manager would start it.
pub struct Gateway {
    pub child: Child,
    pub data: String,
    pub admin: String,
}

/// Should a test fail, its process goes with it.
impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    /// Returns as soon as it has said where it listens.
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_genapi-gateway"))
            .args(["serve", "-c"])
            .arg(folder.join(gateway_files::CONFIG))
            .env_remove("GENAPI_GATEWAY_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = until_ready(&mut child);
        let at = |field: &str| {
            let addresses = ready[field].as_str().unwrap();
            format!("http://{}", addresses.trim_matches(['[', ']']))
        };
        Self { child, data: at("data"), admin: at("admin") }
    }

    /// SIGKILL: no destructor, no flush, no goodbye.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Over plain HTTP, never by a proxy, and following nothing.
pub fn caller(patience: Duration) -> reqwest::Client {
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(patience);
    http.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
