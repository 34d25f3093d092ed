//! The running gateway's admin API as the command line sees it: address and token come from the same
//! configuration file.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::view::ProblemDetails;
use crate::config::{self, AdminConfig, SecretSource};
use crate::store::backup::Backup;
use crate::store::backup_receiver::BackupReceiver;

use super::EXIT_CONFIG;
use super::output::{self, Format};

/// The gateway is on this machine or near it.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
    /// Where the token was found.
    token_source: String,
    runtime: tokio::runtime::Runtime,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub enum CliError {
    /// The configuration is not valid: exit code 78.
    Config(String),
    /// How the gateway responded.
    Refused(ProblemDetails),
    Other(String),
}

/// What a command ends with.
pub type CommandResult = Result<ExitCode, CliError>;

/// Prints what went wrong, for programs that read JSON as JSON; the exit code is the contract of design
/// section 8.
pub fn finish(format: Format, outcome: CommandResult) -> ExitCode {
    let failure = match outcome {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    match format {
        Format::Json => output::print_error(&failure.json().to_string()),
        Format::Table | Format::Csv => output::print_error(&failure.to_string()),
    }
    match failure {
        CliError::Config(_) => ExitCode::from(EXIT_CONFIG),
        CliError::Refused(_) | CliError::Other(_) => ExitCode::FAILURE,
    }
}

impl CliError {
    pub fn other(text: impl Into<String>) -> Self {
        CliError::Other(text.into())
    }

    /// `code`, `detail` and `fix`, as the admin API says them.
    fn json(&self) -> serde_json::Value {
        match self {
            CliError::Config(text) => serde_json::json!({"code": "configuration", "detail": text, "fix": ""}),
            CliError::Other(text) => serde_json::json!({"code": "failed", "detail": text, "fix": ""}),
            CliError::Refused(problem) => serde_json::json!({
                "code": problem.code, "detail": problem.detail, "fix": problem.fix, "status": problem.status,
            }),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Config(text) | CliError::Other(text) => f.write_str(text),
            CliError::Refused(problem) if problem.fix.is_empty() => f.write_str(&problem.detail),
            CliError::Refused(problem) => write!(f, "{} {}", problem.detail, problem.fix),
        }
    }
}

impl Api {
    /// Finds the gateway that the configuration file describes.
    pub fn from_config(file: &Path) -> Result<Self, CliError> {
        let admin = load(file)?;
        let token = read_token(&admin)?;
        let token_source = admin.token.to_string();
        Ok(Self { http: client(&admin)?, base: address(&admin)?, token, token_source, runtime: runtime()? })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.exchange(self.http.get(self.url(path)))
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(|error| CliError::other(error.to_string()))?;
        self.exchange(self.http.post(self.url(path)).header("content-type", "application/json").body(body))
    }

    /// Posts the text of a file.
    pub fn post_file<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, CliError> {
        self.exchange(self.http.post(self.url(path)).body(body))
    }

    /// Posts and hands over each line of the response as it comes.
    pub fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        mut each: impl FnMut(T),
    ) -> Result<(), CliError> {
        let request = self.http.post(self.url(path)).header("content-type", "application/json").body(body);
        self.runtime.block_on(async {
            let mut response = self.send(request).await?;
            let mut pending = Vec::new();
            while let Some(chunk) =
                response.chunk().await.map_err(|error| CliError::other(cut_short(&error)))?
            {
                pending.extend_from_slice(&chunk);
                while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let line = serde_json::from_slice(&line)
                        .map_err(|error| CliError::other(format!("unreadable answer: {error}")))?;
                    each(line);
                }
            }
            Ok(())
        })
    }

    /// Posts, and writes the response into a file that gets its name only when it is complete.
    pub fn post_for_file(&self, path: &str, mut into: BackupReceiver) -> Result<Backup, CliError> {
        self.runtime.block_on(async {
            let mut response = self.send(self.http.post(self.url(path))).await?;
            while let Some(chunk) =
                response.chunk().await.map_err(|error| CliError::other(cut_short(&error)))?
            {
                into.write(&chunk).await.map_err(|error| CliError::other(error.to_string()))?;
            }
            into.finish().await.map_err(|error| CliError::other(error.to_string()))
        })
    }

    /// The API tells programs which header to send; who types a command has to know which file is wrong.
    fn wrong_token(&self, problem: ProblemDetails) -> ProblemDetails {
        ProblemDetails {
            detail: format!("The gateway at {} does not take the admin token of {}.", self.base, self.token_source),
            fix: "Is this the configuration of the gateway that runs there? It keeps the token that it started with: restart it \
                  where the token was changed since."
                .to_owned(),
            ..problem
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn exchange<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, CliError> {
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            let body = response.bytes().await.map_err(|error| CliError::other(cut_short(&error)))?;
            serde_json::from_slice(&body).map_err(|error| {
                CliError::other(format!("{} answered something else than an admin API: {error}", self.base))
            })
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CliError> {
        let response = request.bearer_auth(&self.token).send().await;
        let response = response.map_err(|error| nobody_there(&self.base, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(match serde_json::from_slice::<ProblemDetails>(&body) {
            Ok(problem) if problem.code == "unauthorized" => CliError::Refused(self.wrong_token(problem)),
            Ok(problem) => CliError::Refused(problem),
            Err(_) => CliError::other(format!("{} answered {status}", self.base)),
        })
    }
}

/// A word as one segment of a path.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Whether the gateway that the configuration file describes answers at all.
pub fn alive(file: &Path) -> Result<(), CliError> {
    let admin = load(file)?;
    let (http, base) = (client(&admin)?, address(&admin)?);
    let request = http.get(format!("{base}/healthz")).timeout(PATIENCE);
    let response = runtime()?.block_on(async { request.send().await });
    let response = response.map_err(|error| nobody_there(&base, &error))?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(CliError::other(format!("{base}/healthz answered {status}"))),
    }
}

/// `[admin]` alone: an operator need not be able to read the client secrets that the gateway reads.
fn load(file: &Path) -> Result<AdminConfig, CliError> {
    config::load_admin(file, &config::process_env).map_err(|problems| CliError::Config(problems.to_string()))
}

pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::other(format!("cannot start: {error}")))
}

/// A file, or standard input where it is called `-`.
pub fn read_file(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    let result = if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut body).map(|_| ())
    } else {
        std::fs::read(file).map(|read| body = read)
    };
    result.map(|()| body).map_err(|error| CliError::other(format!("{}: {error}", file.display())))
}

fn nobody_there(base: &str, error: &reqwest::Error) -> CliError {
    CliError::other(format!(
        "no gateway answers at {base}: {}. Is it running (genapi-gateway serve), and is this its configuration file?",
        root_cause(error)
    ))
}

fn address(admin: &AdminConfig) -> Result<String, CliError> {
    let Some(first) = admin.listen.first() else {
        return Err(CliError::other("[admin] listen is empty: there is no admin API to speak to"));
    };
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let host = match (first.ip(), admin.tls.is_some(), &admin.url) {
        (_, true, Some(url)) => url.host_str().unwrap_or("localhost").to_owned(),
        (ip, _, _) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        (ip, _, _) if ip.is_unspecified() => "[::1]".to_owned(),
        (std::net::IpAddr::V6(ip), _, _) => format!("[{ip}]"),
        (ip, _, _) => ip.to_string(),
    };
    Ok(format!("{scheme}://{host}:{}", first.port()))
}

fn read_token(admin: &AdminConfig) -> Result<String, CliError> {
    config::secret::read(&admin.token, &config::process_env).map_err(|error| {
        CliError::Other(match &admin.token {
            SecretSource::File(path) if error.missing => format!(
                "{} does not exist. The gateway makes it when it starts first (genapi-gateway serve); is this its configuration file?",
                path.display()
            ),
            SecretSource::File(_) | SecretSource::Env(_) => error.to_string(),
        })
    })
}

fn client(admin: &AdminConfig) -> Result<reqwest::Client, CliError> {
    let failed = |what: String| CliError::Other(what);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(tls) = &admin.tls {
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
        .connect_timeout(PATIENCE)
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
