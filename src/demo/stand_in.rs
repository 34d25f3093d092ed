//! Two applications that nobody may touch, as the demo plays them: one that runs the vendor's OAuth flow and
//! pairs by itself, and one with the old platform's host names compiled in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::digest;
use reqwest::Method;
use reqwest::header::LOCATION;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use url::Url;

use crate::app::Running;
use crate::ca::{self, HostNames, KeyAlgorithm};
use crate::clock::Clock;
use crate::model::legacy_host::LEGACY_HOSTS;

use super::applications::{Applications, CallResult, read};
use super::{CLINIC_NAME, DemoEnvironment, PASSWORD, USER};

const CLIENT_ID: &str = "demo-pms";
const CLIENT_SECRET: &str = "demo-pms-secret";
/// Nobody listens there: the demo reads the address that its browser is sent to.
const REDIRECT_URI: &str = "http://127.0.0.1:5000/cb";
/// The application with compiled-in names sends no key: it is known by the address that it comes from.
const OLD_MACHINE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OLD_API: &str = "https://api-proxy.aligntech.com";
const CA_FOLDER: &str = "ca";

/// Puts the listener and the callers of these applications into a configuration, and their CA beside it.
/// `tls` is the listener's address.
pub fn extend_config(folder: &Path, tls: &str) -> anyhow::Result<()> {
    let file = folder.join(crate::sandbox::gateway_files::CONFIG);
    let ca_folder = folder.join(CA_FOLDER);
    if !ca_folder.exists() {
        let names = LEGACY_HOSTS.iter().map(|host| host.name);
        let hosts = HostNames::new(names).map_err(anyhow::Error::msg)?;
        ca::init(&ca_folder, &hosts, KeyAlgorithm::Ecdsa, Clock::system().now())?;
    }
    let secret = hex::encode(digest::digest(&digest::SHA256, CLIENT_SECRET.as_bytes()));
    let listener = format!("[gateway]\ntls = {{ listen = [\"{tls}\"], ca = \"{CA_FOLDER}\" }}\n");
    let callers = format!(
        "\n[[callers]]\nname = \"{CLIENT_ID}\"\naccounts = [\"*\"]\n\
         facade = {{ client_id = \"{CLIENT_ID}\", client_secret_sha256 = \"{secret}\", \
         redirect_uris = [\"{REDIRECT_URI}\"], realm = \"global\" }}\n\
         \n[[callers]]\nname = \"demo-old-names\"\naccounts = [\"{CLINIC_NAME}\"]\n\
         networks = [\"{OLD_MACHINE}/32\"]\nurl = \"{OLD_API}\"\n"
    );
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replacen("[gateway]\n", &listener, 1) + &callers)?;
    Ok(())
}

/// The application with the old names: its machine trusts the private CA and sends them to the gateway.
fn old_application(running: &Running, folder: &Path) -> anyhow::Result<reqwest::Client> {
    let port = running.bound.data_tls.first().context("no TLS listener")?.port();
    let gateway = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let pem = std::fs::read(folder.join(CA_FOLDER).join(ca::CA_CERTIFICATE))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem)?)?;
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    let builder = LEGACY_HOSTS.iter().fold(builder, |builder, host| builder.resolve(host.name, gateway));
    Ok(builder.local_address(IpAddr::V4(OLD_MACHINE)).timeout(Duration::from_secs(30)).build()?)
}

fn expect(response: &CallResult, status: u16) -> anyhow::Result<()> {
    ensure!(response.status == status, "status {} instead of {status}: {}", response.status, response.text());
    Ok(())
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("{value} is no text"))?.to_owned())
}

impl Applications {
    /// One OAuth request of the application, with its own client credentials.
    async fn oauth(&self, fields: &[(&str, &str)]) -> anyhow::Result<CallResult> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", CLIENT_ID).append_pair("client_secret", CLIENT_SECRET);
        let form = form.extend_pairs(fields).finish();
        let request = self.http.post(format!("{}/oauth2/token", self.gateway));
        read(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
    }
}

impl DemoEnvironment {
    /// Authorize → Align's login page → code → tokens → discovery → list → pairing → an order list, each as
    /// the vendor's documents have it.
    pub async fn logs_in_by_itself(&self, account: u64) -> anyhow::Result<String> {
        let apps = &self.applications;
        self.sandbox.clear_calls();
        let code = self.authorization_code().await?;
        let exchange =
            [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", REDIRECT_URI)];
        let login = apps.oauth(&exchange).await?;
        expect(&login, 200)?;
        let login = text(&login.json()?["access_token"])?;
        let discovery =
            "/api/third-party/v2/api-discovery-by-name-and-version?discoveryName=third-party&version=2";
        let found = apps.call_with_bearer(discovery, &login).await?;
        expect(&found, 200)?;
        let path = text(&found.json()?["APIs"][0]["Path"])?;
        let listed = apps.call_with_bearer(&format!("{path}/related-accounts"), &login).await?;
        expect(&listed, 200)?;
        let count = listed.json()?["Data"].as_array().map_or(0, Vec::len);
        let request = apps.http.request(Method::PUT, format!("{}{path}/pair-account", apps.gateway));
        let body = json!({ "AccountId": account }).to_string();
        let request = request.header("content-type", "application/json").body(body);
        let paired = read(request.bearer_auth(&login)).await?;
        expect(&paired, 200)?;
        let tokens = paired.json()?["Data"]["OAuthResponse"].clone();
        let refresh = text(&tokens["refresh_token"])?;
        let refreshed = apps.oauth(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await?;
        expect(&refreshed, 200)?;
        let bearer = text(&refreshed.json()?["access_token"])?;
        expect(&apps.call_with_bearer("/itero-gen-api/v2/orders/lab", &bearer).await?, 200)?;
        let platform = self.sandbox.bearer(account).unwrap_or_default();
        ensure!(![login, bearer].contains(&platform), "an Align token left the gateway");
        let pairings = self.sandbox.calls_to(crate::sandbox::Endpoint::Pair).len();
        ensure!(pairings == 0, "an account that is connected already was paired again");
        Ok(format!(
            "{count} accounts listed; the lab was connected already, so it joined without a second pairing"
        ))
    }

    /// The person's part, in a browser.
    async fn authorization_code(&self) -> anyhow::Result<String> {
        let apps = &self.applications;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", REDIRECT_URI)
            .append_pair("state", "447")
            .finish();
        let sent = read(apps.http.get(format!("{}/oauth2/authorize?{query}", apps.gateway))).await?;
        expect(&sent, 302)?;
        let begun = read(apps.http.get(sent.location()?)).await?;
        let cookie = begun.cookie()?;
        let redirected = self.sandbox.log_in(&begun.location()?, USER, PASSWORD).await?;
        let returned = apps.come_back(&redirected, &cookie).await?;
        let back: Url = returned.location()?.parse()?;
        ensure!(back.as_str().starts_with(REDIRECT_URI), "the browser was sent to {back}");
        let code = back.query_pairs().find(|(name, _)| name == "code").context("no code came back")?;
        Ok(code.1.into_owned())
    }

    /// `https://api-proxy.aligntech.com` as the program has it, with a link that it follows.
    pub async fn keeps_its_old_names(&self) -> anyhow::Result<String> {
        let http = old_application(&self.running, self.folder.path())?;
        let list = read(http.get(format!("{OLD_API}/itero-gen-api/v2/orders/practice"))).await?;
        expect(&list, 200)?;
        let begin = format!("{OLD_API}/accounts/{CLINIC_NAME}");
        let body = list.text();
        let link = body.split('"').find(|word| word.starts_with(&begin) && word.contains("/download/"));
        let link = link.context("the order list holds no link to the host that the program knows")?;
        let asset = read(http.get(link)).await?;
        expect(&asset, 200)?;
        let stranger = read(http.get("https://identity-cus.aligntech.com/orders/practice")).await?;
        expect(&stranger, 421)?;
        ensure!(!stranger.headers.contains_key(LOCATION), "a refusal sends nobody anywhere");
        let size = asset.body.len() / 1_000_000;
        Ok(format!(
            "its own https addresses, a certificate of the private CA, a link of {size} MB to the host it knows"
        ))
    }
}
