//! What the demo checks, each as one story that can fail.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use serde_json::json;

use crate::sandbox::{Endpoint, Fault, FaultRule, HostRole, Region, gateway_files};

use super::applications::CallResult;
use super::{CLINIC, CLINIC_NAME, DemoEnvironment, LAB, PASSWORD, USER};

/// Which checks held so far.
pub struct DemoReport {
    held: usize,
    failed: usize,
}

impl DemoReport {
    pub fn all_held(&self) -> bool {
        self.failed == 0 && self.held > 0
    }

    async fn check(&mut self, what: &str, story: impl Future<Output = anyhow::Result<String>>) {
        let started = Instant::now();
        let outcome = story.await;
        let millis = started.elapsed().as_millis();
        match outcome {
            Ok(detail) => {
                self.held += 1;
                println!("  ok      {what} ({millis} ms)\n          {detail}");
            }
            Err(error) => {
                self.failed += 1;
                println!("  FAILED  {what} ({millis} ms)\n          {error:#}");
            }
        }
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failed {
            0 => write!(f, "all {} checks held", self.held),
            failed => write!(f, "{failed} of {} checks FAILED", self.held + failed),
        }
    }
}

/// Later stories stand on earlier ones: without a pairing nothing can be called.
pub async fn all(demo: &DemoEnvironment) -> DemoReport {
    let mut report = DemoReport { held: 0, failed: 0 };
    report.check("a clinic is paired through the login page", demo.pairs_a_clinic()).await;
    report.check("a lab is taken over with its refresh token", demo.takes_over_a_lab()).await;
    report
        .check("an unmodified legacy call arrives in the account's region", demo.makes_a_legacy_call())
        .await;
    report
        .check("50 callers meet an expired token, one refresh serves them all", demo.survives_an_expiry())
        .await;
    report.check("a 504 and a 500 are retried with backoff", demo.retries_trouble()).await;
    report.check("a scan is downloaded through a rewritten link", demo.downloads_a_scan()).await;
    report
        .check("an application refreshes by itself and gets no Align token", demo.responds_to_a_refresh())
        .await;
    report.check("an application logs people in and pairs by itself", demo.logs_in_by_itself(LAB)).await;
    report.check("an application with old host names compiled in works on", demo.keeps_its_old_names()).await;
    report.check("an account moves to another region and calls follow", demo.follows_a_region_move()).await;
    report.check("strangers and destructive calls are refused", demo.refuses()).await;
    report.check("operators see what is going on", demo.tells_operators()).await;
    report
}

const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);

fn expect(response: &CallResult, status: u16) -> anyhow::Result<()> {
    ensure!(
        response.status == status,
        "status {} instead of {status}: {}",
        response.status,
        shortened(&response.text())
    );
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

impl DemoEnvironment {
    /// Start link → login page in two steps → callback → choice → pairing, as a clinic's browser does it.
    async fn pairs_a_clinic(&self) -> anyhow::Result<String> {
        let apps = &self.applications;
        let request = json!({ "realm": "global", "name": CLINIC_NAME, "account_id": CLINIC });
        let started = apps.operate("/pairings", request).await?;
        expect(&started, 200)?;
        let link = started.json()?["url"].as_str().context("no start link")?.to_owned();
        let (authorize_url, cookie) = apps.begin_login(&link).await?;
        let redirected = self.sandbox.log_in(&authorize_url, USER, PASSWORD).await?;
        let mut page = apps.come_back(&redirected, &cookie).await?;
        if page.text().contains("name=\"choice\"") {
            page = apps.choose(&page, CLINIC, &cookie).await?;
        }
        expect(&page, 200)?;
        ensure!(
            self.sandbox.is_paired(CLINIC),
            "the platform does not know of a pairing: {}",
            shortened(&page.text())
        );
        let replayed = apps.come_back(&redirected, &cookie).await?;
        ensure!(replayed.status >= 400, "the same callback worked twice");
        Ok(format!("{CLINIC_NAME} stands for account {CLINIC}; the callback works once only"))
    }

    async fn takes_over_a_lab(&self) -> anyhow::Result<String> {
        let id = LAB.to_string();
        let entries: serde_json::Value = serde_json::from_str(&gateway_files::import_json(&self.sandbox))?;
        let lab = entries.as_array().into_iter().flatten().find(|entry| entry["account_id"] == id.as_str());
        let lab = lab.context("the sandbox exports no lab")?.clone();
        let imported = self.applications.operate("/import", json!([lab])).await?;
        expect(&imported, 200)?;
        let line = imported.json()?;
        ensure!(line["ok"] == true, "{}", line["detail"]);
        Ok(line["detail"].as_str().unwrap_or_default().to_owned())
    }

    async fn makes_a_legacy_call(&self) -> anyhow::Result<String> {
        self.sandbox.clear_calls();
        for prefix in [
            "/itero-gen-api/v2",
            "/api/third-party/v2",
            "/itero-gen-api/v2/api/third-party/v2",
            "/lab-sw/v1",
            "",
        ] {
            let response =
                self.applications.call(CLINIC_NAME, &format!("{prefix}/practice-configuration")).await?;
            expect(&response, 200).with_context(|| format!("prefix {prefix:?}"))?;
        }
        let calls = self.sandbox.calls_to(Endpoint::PracticeConfiguration);
        ensure!(calls.len() == 5, "the platform saw {} calls instead of 5", calls.len());
        for call in &calls {
            ensure!(call.role == HostRole::Region(Region::Europe), "a call went to {:?}", call.role);
            let bearer = call.header("authorization").unwrap_or_default();
            ensure!(!bearer.contains("an-old-align-token"), "the caller's own token reached the platform");
            ensure!(call.header("x-gateway-key").is_none(), "the caller's key reached the platform");
        }
        Ok("five forms of the old path, all at Europe's Domain and Path with the account's own token".into())
    }

    async fn survives_an_expiry(&self) -> anyhow::Result<String> {
        self.sandbox.clear_calls();
        self.sandbox.expire_access(CLINIC);
        let calls = (0..50).map(|_| self.applications.call(CLINIC_NAME, "/itero-gen-api/v2/orders/practice"));
        let responses = join_all(calls).await;
        for response in responses {
            expect(&response?, 200)?;
        }
        let (refreshes, discoveries) =
            (self.sandbox.refreshes(CLINIC).len(), self.sandbox.discoveries().len());
        ensure!(refreshes == 1, "{refreshes} refreshes instead of one");
        ensure!(discoveries == 1, "{discoveries} discoveries instead of one");
        Ok("50 right answers, one refresh, one discovery".into())
    }

    async fn retries_trouble(&self) -> anyhow::Result<String> {
        self.sandbox.clear_calls();
        for status in [504, 500] {
            self.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(status)).once());
        }
        let started = Instant::now();
        let response = self.applications.call(CLINIC_NAME, "/itero-gen-api/v2/orders/practice").await?;
        let took = started.elapsed();
        self.sandbox.clear_fault_rules();
        expect(&response, 200)?;
        let sends = self.sandbox.calls_to(Endpoint::OrdersPractice).len();
        ensure!(sends == 3, "{sends} sends instead of three");
        ensure!(
            took >= Duration::from_secs(3),
            "the waits were shorter than one and two seconds: {} ms",
            took.as_millis()
        );
        Ok(format!("three sends with {:.1} s between the first and the last", took.as_secs_f64()))
    }

    async fn downloads_a_scan(&self) -> anyhow::Result<String> {
        let list = self.applications.call(CLINIC_NAME, "/itero-gen-api/v2/orders/practice").await?;
        expect(&list, 200)?;
        let text = list.text();
        let region = self.sandbox.region_url(Region::Europe);
        ensure!(!text.contains(&region), "a link still leads to the platform");
        let begin = format!("{}/accounts/{CLINIC_NAME}", self.applications.gateway);
        let link = text.split('"').find(|word| word.starts_with(&begin) && word.contains("/download/"));
        let link = link.context("the order list holds no gateway link")?;
        let response = self.applications.follow(link).await?;
        expect(&response, 200)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &response.body);
        let sha256 = hex::encode(digest);
        let words: Vec<&str> = link.split('?').next().unwrap_or(link).rsplit('/').collect();
        let order = words.get(2).and_then(|id| id.parse().ok()).context("the link names no order")?;
        let asset = self.sandbox.asset(order, words[0]).context("the sandbox does not know the asset")?;
        ensure!(sha256 == asset.sha256(), "the bytes differ from what the platform sent");
        Ok(format!("{} MB, byte for byte", response.body.len() / 1_000_000))
    }

    async fn responds_to_a_refresh(&self) -> anyhow::Result<String> {
        let refresh_token = self.sandbox.grant(LAB).context("the lab has no grant")?;
        let response = self.applications.refresh(&refresh_token).await?;
        expect(&response, 200)?;
        let tokens = response.json()?;
        let token = tokens["access_token"].as_str().context("no access token")?.to_owned();
        ensure!(
            tokens["refresh_token"] == refresh_token.as_str(),
            "the refresh token did not come back unchanged"
        );
        ensure!(
            Some(token.as_str()) != self.sandbox.bearer(LAB).as_deref(),
            "an Align token left the gateway"
        );
        let call = self.applications.call_with_bearer("/itero-gen-api/v2/orders/lab", &token).await?;
        expect(&call, 200)?;
        let unknown = self.applications.refresh("not-a-token-of-ours").await?;
        expect(&unknown, 401)?;
        Ok("a gateway token in the vendor's shape; it opens that one account".into())
    }

    async fn follows_a_region_move(&self) -> anyhow::Result<String> {
        self.sandbox.move_region(CLINIC, Region::AsiaPacific);
        self.sandbox.clear_calls();
        let response =
            self.applications.call(CLINIC_NAME, "/itero-gen-api/v2/practice-configuration").await?;
        expect(&response, 200)?;
        let calls = self.sandbox.calls_to(Endpoint::PracticeConfiguration);
        let last = calls.last().context("the platform saw no call")?;
        ensure!(last.role == HostRole::Region(Region::AsiaPacific), "the last call went to {:?}", last.role);
        Ok("Europe refused, discovery named Asia Pacific, the call was repeated there".into())
    }

    async fn refuses(&self) -> anyhow::Result<String> {
        self.sandbox.clear_calls();
        let stranger = self.applications.call_without_key("/itero-gen-api/v2/orders/practice").await?;
        expect(&stranger, 401)?;
        ensure!(stranger.json()?["code"] == "caller_unknown", "{}", stranger.text());
        let unpair = self.applications.delete(CLINIC_NAME, "/itero-gen-api/v2/unpair-account").await?;
        expect(&unpair, 403)?;
        ensure!(unpair.json()?["code"] == "call_not_allowed", "{}", unpair.text());
        let unknown = self.applications.call("nobody", "/orders/practice").await?;
        expect(&unknown, 404)?;
        let seen = self.sandbox.calls().len();
        ensure!(seen == 0, "{seen} of these calls reached the platform");
        Ok("caller_unknown, call_not_allowed, account_unknown; none of them reached the platform".into())
    }

    /// The journal is written beside the calls, so its newest line may come a moment after the answer.
    async fn journal_tells(&self) -> anyhow::Result<()> {
        let asked_at = Instant::now();
        loop {
            let explained = self.applications.look(&format!("/api/accounts/{CLINIC_NAME}/explain")).await?;
            expect(&explained, 200)?;
            let journal = explained.json()?["journal"].clone();
            let event =
                |wanted: &str| journal.as_array().into_iter().flatten().any(|line| line["event"] == wanted);
            if event("paired") && event("refreshed") && event("route_changed") {
                return Ok(());
            }
            ensure!(asked_at.elapsed() < JOURNAL_PATIENCE, "the journal lacks a change: {journal}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn tells_operators(&self) -> anyhow::Result<String> {
        let ready = self.applications.look("/readyz").await?;
        expect(&ready, 200)?;
        self.journal_tells().await?;
        let metrics = self.applications.look("/metrics").await?.text();
        ensure!(metrics.contains("genapi_gateway_requests_total"), "no metrics");
        ensure!(!metrics.contains(CLINIC_NAME), "a metric names an account");
        Ok("ready; the journal tells of pairing, refresh and region; metrics name nobody".into())
    }
}
