//! The running gateway's admin API as the command line sees it: address and token come from the same configuration file.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::view::ApiProblem;
use crate::config::{self, Config, SecretSource};

pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
    runtime: tokio::runtime::Runtime,
}

/// Why a command could not be carried out; printed as it is.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is not valid: exit code 78.
    Config(String),
    Other(String),
}

impl Failure {
    pub fn other(text: impl Into<String>) -> Self {
        Failure::Other(text.into())
    }
}

impl Api {
    /// Finds the gateway that the configuration file describes.
    pub fn from_config(file: &Path) -> Result<Self, Failure> {
        let config = load(file)?;
        let token = read_token(&config)?;
        let base = address(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
        let http = client(&config)?;
        Ok(Self { http, base, token, runtime })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(self.http.get(self.url(path)))
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::other(error.to_string()))?;
        self.exchange(self.http.post(self.url(path)).header("content-type", "application/json").body(body))
    }

    /// Posts and hands over each line of the answer as it comes.
    pub fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        mut each: impl FnMut(T),
    ) -> Result<(), Failure> {
        let request = self.http.post(self.url(path)).header("content-type", "application/json").body(body);
        self.runtime.block_on(async {
            let mut answer = self.send(request).await?;
            let mut pending = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| Failure::other(cut_short(&error)))? {
                pending.extend_from_slice(&chunk);
                while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let line = serde_json::from_slice(&line)
                        .map_err(|error| Failure::other(format!("unreadable answer: {error}")))?;
                    each(line);
                }
            }
            Ok(())
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn exchange<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let answer = self.send(request).await?;
            let body = answer.bytes().await.map_err(|error| Failure::other(cut_short(&error)))?;
            serde_json::from_slice(&body).map_err(|error| {
                Failure::other(format!("{} answered something else than an admin API: {error}", self.base))
            })
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let answer = request.bearer_auth(&self.token).send().await.map_err(|error| {
            Failure::other(format!(
                "no gateway answers at {}: {}. Is it running (genapi-gateway serve), and is this its configuration file?",
                self.base,
                root_cause(&error)
            ))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        Err(Failure::Other(match serde_json::from_slice::<ApiProblem>(&body) {
            Ok(problem) if problem.fix.is_empty() => problem.detail,
            Ok(problem) => format!("{} {}", problem.detail, problem.fix),
            Err(_) => format!("{} answered {status}", self.base),
        }))
    }
}

/// Loads the configuration or says, in one text, all that is wrong with it.
pub fn load(file: &Path) -> Result<Config, Failure> {
    let loaded = config::load(file, &config::process_env);
    loaded.map(|loaded| loaded.config).map_err(|problems| Failure::Config(problems.to_string()))
}

fn address(config: &Config) -> Result<String, Failure> {
    let Some(first) = config.admin.listen.first() else {
        return Err(Failure::other("[admin] listen is empty: there is no admin API to speak to"));
    };
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    let host = match (first.ip(), config.admin.tls.is_some(), &config.admin.url) {
        (_, true, Some(url)) => url.host_str().unwrap_or("localhost").to_owned(),
        (ip, _, _) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        (ip, _, _) if ip.is_unspecified() => "[::1]".to_owned(),
        (std::net::IpAddr::V6(ip), _, _) => format!("[{ip}]"),
        (ip, _, _) => ip.to_string(),
    };
    Ok(format!("{scheme}://{host}:{}", first.port()))
}

fn read_token(config: &Config) -> Result<String, Failure> {
    config::secret::read(&config.admin.token, &config::process_env).map_err(|error| {
        let hint = match &config.admin.token {
            SecretSource::File(path) => who_may_read(path),
            SecretSource::Env(_) => String::new(),
        };
        Failure::other(format!("{error}{hint}"))
    })
}

/// Names the user and group that own a file which cannot be read.
fn who_may_read(path: &Path) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(meta) = std::fs::metadata(path) {
            let (user, group) = (name_of(meta.uid(), "/etc/passwd"), name_of(meta.gid(), "/etc/group"));
            return format!(
                " The file belongs to user {user} and group {group}: run this command as one of them."
            );
        }
    }
    format!(" {} is made when the gateway starts first.", path.display())
}

/// The name of a numeric id in `/etc/passwd` or `/etc/group`, or the number.
#[cfg(unix)]
fn name_of(id: u32, table: &str) -> String {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let row = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = row.into_iter().find(|fields| fields.get(2).is_some_and(|field| *field == id.to_string()));
    found.map_or_else(|| id.to_string(), |fields| fields[0].to_owned())
}

fn client(config: &Config) -> Result<reqwest::Client, Failure> {
    let failed = |what: String| Failure::Other(what);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(tls) = &config.admin.tls {
        use rustls::pki_types::pem::PemObject;
        let certificates = rustls::pki_types::CertificateDer::pem_file_iter(&tls.cert)
            .map_err(|error| failed(format!("{}: {error}", tls.cert.display())))?;
        roots.add_parsable_certificates(certificates.flatten());
    }
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| failed(format!("cannot make an HTTP client: {error}")))
}

fn cut_short(error: &reqwest::Error) -> String {
    format!("the gateway's answer was cut short: {}", root_cause(error))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
