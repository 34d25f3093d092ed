//! The pages in a real browser, as a clinic's user meets them: everything over TLS, the login at another
//! site, Debian's Chromium. `PAGES_SCREENSHOTS=folder` keeps a picture of every page.

// The stories use the rest of it.
#[allow(dead_code)]
#[path = "../stories/test_bed.rs"]
mod test_bed;

mod webdriver;

use std::sync::LazyLock;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Platform};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use test_bed::{CLINIC, LAB, PASSWORD, TestBed, TestBedBuilder, USER};
use webdriver::Chromium;

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const START: &str = "Connect an iTero account";
const CHOOSE: &str = "Which account is to be connected?";
const CONNECTED: &str = "The account is connected";
const LOGIN: &str = "Sandbox login";
const NARROW: u32 = 360;
const WIDE: u32 = 1280;
/// WebDriver's codes for keys (W3C WebDriver, 17.4.2).
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// Browsers are heavy: one after the other, whatever the test runner does.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// A gateway at https://gateway.localhost and a platform at another site, as it is in real life.
struct BrowserTestBed {
    bed: TestBed,
    browser: Chromium,
    _certificate: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl BrowserTestBed {
    async fn new() -> Self {
        Self::with(Chromium::start(), TestBedBuilder::new()).await
    }

    async fn with(browser: impl Future<Output = Chromium>, setup: TestBedBuilder) -> Self {
        let turn = TURN.lock().await;
        let certificate = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["gateway.localhost".to_owned()]).unwrap();
        let (cert, key) = (certificate.path().join("cert.pem"), certificate.path().join("key.pem"));
        std::fs::write(&cert, signed.cert.pem()).unwrap();
        std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
        let public = format!(
            "\n[public]\nlisten = [\"127.0.0.1:0\"]\nurl = \"https://gateway.localhost\"\n\
             tls = {{ cert = \"{}\", key = \"{}\" }}\n",
            cert.display(),
            key.display()
        );
        let setup = setup.options(|options| options.tls = true).unpaired().append(&public);
        let setup = setup.config("http://127.0.0.1:0/oauth2", "https://gateway.localhost:0/oauth2");
        let bed = setup.start().await;
        Self { bed, browser: browser.await, _certificate: certificate, _turn: turn }
    }

    /// The two steps of the platform's login page, filled in by hand.
    async fn log_in(&self, email: &str, password: &str) {
        self.browser.until_heading(LOGIN).await;
        self.browser.type_into("input[type=email]", email).await;
        self.browser.click("form[action='/login/email'] button").await;
        while self.browser.text("input[type=password]").await.is_err() {
            tokio::task::yield_now().await;
        }
        self.browser.type_into("input[type=password]", password).await;
        self.browser.click("form[action='/login/password'] button").await;
    }

    /// Waits for a page of ours, and looks at it in both widths.
    async fn arrives(&self, heading: &str, picture: &str) {
        self.browser.until_heading(heading).await;
        for width in [WIDE, NARROW] {
            self.measure(width).await;
            self.keep_picture(&format!("{picture}-{width}")).await;
        }
        self.measure(WIDE).await;
    }

    async fn measure(&self, width: u32) {
        let screen =
            json!({"width": width, "height": 760, "deviceScaleFactor": 1, "mobile": width == NARROW});
        self.browser.devtools("Emulation.setDeviceMetricsOverride", screen).await;
        let seen = self.browser.script(INSPECT).await;
        assert_eq!(seen, faultless(width), "at {width} px of {}", self.browser.url().await);
    }

    async fn keep_picture(&self, name: &str) {
        let Ok(folder) = std::env::var("PAGES_SCREENSHOTS") else { return };
        for scheme in ["light", "dark"] {
            let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.browser.devtools("Emulation.setEmulatedMedia", feature).await;
            let file = std::path::Path::new(&folder).join(format!("{name}-{scheme}.png"));
            std::fs::write(file, self.browser.screenshot().await).unwrap();
        }
    }

    /// No violated policy, no file that is missing, no script that failed.
    async fn console_is_silent(&self) {
        let platform = self.bed.sandbox.oauth_base(Platform::New);
        let mut said = self.browser.console().await;
        said.retain(|line| !line.starts_with(&platform));
        assert!(said.is_empty(), "{said:#?}");
    }
}

/// What every page owes its reader.
const INSPECT: &str = "
    const all = (css) => [...document.querySelectorAll(css)];
    const inputs = all('input:not([type=hidden]), select, textarea');
    const named = (element) => element.outerHTML;
    return {
        width: window.innerWidth,
        scrolls: document.documentElement.scrollWidth > window.innerWidth,
        headings: all('h1').length,
        titled: document.title.trim() !== '',
        language: document.documentElement.lang,
        styled: getComputedStyle(document.querySelector('main')).maxWidth !== 'none',
        unlabelled: inputs.filter((input) => !input.labels.length || !input.labels[0].innerText.trim()).map(named),
        small: all('button, .button, label').filter((e) => e.getBoundingClientRect().height < 40).map(named),
        scripts: all('script').length,
    };";

fn faultless(width: u32) -> Value {
    json!({
        "width": width, "scrolls": false, "headings": 1, "titled": true, "language": "en", "styled": true,
        "unlabelled": [], "small": [], "scripts": 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clinics_user_opens_the_link_logs_in_chooses_and_is_done() {
    let long = "Zahnärztliche Gemeinschaftspraxis für Kieferorthopädie Dr. Dr. Müller-Lüdenscheidt & Partner"
        .repeat(2);
    let hostile = AccountSpec::clinic(1003, "<script>alert('Grin')</script>").with_user(USER, PASSWORD);
    let setup = TestBedBuilder::new()
        .account(hostile)
        .account(AccountSpec::lab(1004, &long).with_user(USER, PASSWORD));
    let clinic = BrowserTestBed::with(Chromium::start(), setup).await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    let link =
        bed.start_link(json!({"name": "smile", "callback_url": "https://lab.example.com/scans"})).await;
    assert!(link.starts_with("https://gateway.localhost:"), "{link}");

    browser.open(&link).await;
    clinic.arrives(START, "start").await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    clinic.arrives(CHOOSE, "choose").await;
    browser.click("button").await;
    assert_eq!(
        browser.text("h1").await.as_deref(),
        Ok(CHOOSE),
        "nothing happens before an account is chosen"
    );
    browser.click(&format!("input[value='{CLINIC}']")).await;
    browser.click("button").await;
    clinic.arrives(CONNECTED, "connected").await;
    assert!(browser.text("main").await.unwrap().contains("Smile Berlin"));
    clinic.console_is_silent().await;
    assert_eq!(bed.get("smile", LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_works_without_javascript() {
    let clinic = BrowserTestBed::with(Chromium::without_javascript(), TestBedBuilder::new()).await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    let off = "data:text/html,<h1>off</h1><script>document.querySelector('h1').textContent = 'on'</script>";
    browser.open(off).await;
    assert_eq!(browser.text("h1").await.as_deref(), Ok("off"), "scripts are off");
    browser.open(&bed.start_link(json!({"name": "lab"})).await).await;
    browser.until_heading(START).await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    browser.until_heading(CHOOSE).await;
    browser.click(&format!("input[value='{LAB}']")).await;
    browser.click("button").await;
    browser.until_heading(CONNECTED).await;
    assert!(bed.sandbox.is_paired(LAB));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_works_by_keyboard_alone() {
    let clinic = BrowserTestBed::new().await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    browser.open(&bed.start_link(json!({"name": "smile"})).await).await;
    browser.until_heading(START).await;
    browser.press(&[TAB, ENTER]).await;
    clinic.log_in(USER, PASSWORD).await;
    browser.until_heading(CHOOSE).await;
    browser.press(&[TAB, ' ', TAB, ENTER]).await;
    browser.until_heading(CONNECTED).await;
    assert!(bed.sandbox.is_paired(CLINIC), "the first account had the focus");
    clinic.console_is_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cancels_finds_the_way_back_to_the_start() {
    let clinic = BrowserTestBed::new().await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    browser.open(&bed.start_link(json!({"account_id": CLINIC})).await).await;
    browser.until_heading(START).await;
    browser.click("button").await;
    browser.until_heading(LOGIN).await;
    browser.click("form[action='/login/cancel'] button").await;
    clinic.arrives("Login cancelled", "cancelled").await;
    browser.click("a.button").await;
    browser.until_heading(START).await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    browser.until_heading(CONNECTED).await;
    clinic.console_is_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloading_and_going_back_never_pair_twice() {
    let clinic = BrowserTestBed::new().await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    let link = bed.start_link(json!({"account_id": CLINIC})).await;
    browser.open(&link).await;
    browser.until_heading(START).await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    browser.until_heading(CONNECTED).await;
    browser.reload().await;
    clinic.arrives("This login was already used", "reloaded").await;
    browser.back().await;
    browser.open(&link).await;
    clinic.arrives("This link was already used", "used").await;
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dead_end_is_a_readable_page() {
    let charts = AccountSpec {
        chart_trouble: true,
        ..AccountSpec::clinic(1003, "Charts").with_user("charts@sandbox.test", PASSWORD)
    };
    let clinic = BrowserTestBed::with(Chromium::start(), TestBedBuilder::new().account(charts)).await;
    let BrowserTestBed { bed, browser, .. } = &clinic;
    let link = bed.start_link(json!({"account_id": LAB})).await;
    let origin = link.split("/connect/").next().unwrap();
    browser.open(&format!("{origin}/connect/{}", "x".repeat(43))).await;
    clinic.arrives("This link is not valid", "not-valid").await;
    browser.open(&format!("{origin}/elsewhere")).await;
    clinic.arrives("There is no such page", "not-found").await;
    browser.open(&format!("{origin}/oauth2/callback?code=x&state={}", "x".repeat(43))).await;
    clinic.arrives("This login has run out", "run-out").await;

    bed.sandbox.pair_elsewhere(LAB);
    browser.open(&link).await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    clinic.arrives("The account is connected to another application", "paired-elsewhere").await;
    bed.sandbox.set_behavior(|behavior| behavior.discovery_enabled = false);
    browser.click("a.button").await;
    browser.until_heading(START).await;
    browser.click("button").await;
    clinic.log_in(USER, PASSWORD).await;
    clinic.arrives("iTero's services are not enabled for this integration", "not-enabled").await;

    bed.sandbox.set_behavior(|behavior| behavior.discovery_enabled = true);
    browser.open(&bed.start_link(json!({})).await).await;
    browser.click("button").await;
    clinic.log_in("charts@sandbox.test", PASSWORD).await;
    clinic.arrives(CONNECTED, "warnings").await;
}
