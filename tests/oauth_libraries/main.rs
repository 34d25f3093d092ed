//! Legacy applications on OAuth libraries that others wrote log in, pair and live a day of refreshes: at the
//! sandbox as the vendor, and unmodified at the gateway.
//!
//! Not in the default suite, since the libraries come from PyPI and npm: `sh tests/oauth_libraries/run.sh`.

mod application;
mod library;

#[allow(dead_code, reason = "each test binary uses its own part of the test bed")]
#[path = "../stories/test_bed.rs"]
mod test_bed;
#[path = "../common/web_browser.rs"]
mod web_browser;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::join_all;
use genapi_gateway::sandbox::{Endpoint, Platform};
use url::Url;

use application::{Application, Facts, Settings};
use library::Library;
use test_bed::{LAB, PASSWORD, TestBed, TestBedBuilder, USER};
use web_browser::{Person, WebBrowser};

const USERS_LOGIN: Person = Person::LogsIn { email: USER, password: PASSWORD };
const HOUR: Duration = Duration::from_secs(3600);
const DAY: usize = 24;

/// What an application is told at the vendor: its operator's client credentials and the login page.
fn at_the_vendor(bed: &TestBed) -> Settings {
    let client = bed.sandbox.client(Platform::New);
    Settings {
        oauth_base: bed.sandbox.oauth_base(Platform::New),
        api_base: bed.sandbox.base_url(Platform::New),
        client_id: client.id,
        client_secret: client.secret,
        login_page: bed.sandbox.login_page(Platform::New),
        basic: false,
        pkce: true,
        id_token: "",
    }
}

/// What changes in its settings when it is moved to the gateway: two addresses, and its credentials.
fn at_the_gateway(bed: &TestBed, name: &str) -> Settings {
    Settings {
        oauth_base: bed.gateway.clone(),
        api_base: bed.gateway.clone(),
        client_id: name.to_owned(),
        client_secret: secret_of(name),
        ..at_the_vendor(bed)
    }
}

/// Of letters that are written in two ways where credentials go by Basic.
fn secret_of(name: &str) -> String {
    format!("{name}: 100%+~secret/!")
}

/// A lab that is paired nowhere, and a gateway that knows these applications.
async fn gateway_for(names: &[&str]) -> TestBed {
    gateway_with(names, "").await
}

/// `more` goes into the facade of each.
async fn gateway_with(names: &[&str], more: &str) -> TestBed {
    let caller = |name: &&str| {
        let digest = digest(&SHA256, secret_of(name).as_bytes());
        format!(
            "\n[[callers]]\nname = \"{name}\"\naccounts = [\"*\"]\n\
             facade = {{ client_id = \"{name}\", client_secret_sha256 = \"{}\", \
             redirect_uris = [\"http://127.0.0.1/cb\"]{more} }}\n",
            hex::encode(digest.as_ref()),
        )
    };
    let callers: String = names.iter().map(caller).collect();
    TestBedBuilder::new().append(&callers).unpaired().start().await
}

/// Starts it, and brings the person's browser back to it.
async fn begins(bed: &TestBed, library: &Library, settings: &Settings, person: Person<'_>) -> Application {
    let mut application = Application::start(library, settings);
    let url = application.authorization_url().await;
    let asked: Url = url.parse().unwrap();
    let (_, redirect_uri) = asked.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap();
    if settings.oauth_base != bed.gateway {
        bed.sandbox.allow_redirect(Platform::New, &redirect_uri);
    }
    let back = WebBrowser::new(bed.http.clone()).go_through_login(&url, &redirect_uri, person).await;
    assert_eq!(bed.send(bed.http.get(back)).await.status, 200, "the application's own page");
    application
}

/// From the printed URL to the pair tokens.
async fn pairs(bed: &TestBed, library: &Library, settings: &Settings) -> Application {
    let mut application = begins(bed, library, settings, USERS_LOGIN).await;
    for step in ["login", "discovery", "related-accounts"] {
        application.completes(step).await;
    }
    within_the_vendors_bounds(&application.completes("pair").await);
    application
}

/// "Its size is up to 40 characters", "number of seconds left" (Authentication and Pairing V2, 4.1.2).
fn within_the_vendors_bounds(tokens: &Facts) {
    let number = |name: &str| tokens[name].parse::<u64>().unwrap();
    assert!((1..=40).contains(&number("refresh_chars")), "{tokens:?}");
    assert!((1..=3600).contains(&number("expires_in")), "{tokens:?}");
}

/// All at once, each hour anew.
async fn lives_a_day(bed: &TestBed, applications: &mut [Application]) {
    for _ in 0..DAY {
        bed.clock.advance(HOUR);
        join_all(applications.iter_mut().map(async |application| {
            let fresh = application.does("refresh").await;
            within_the_vendors_bounds(&fresh);
            assert_eq!(fresh["same_refresh_token"], "yes");
            application.does("orders").await;
        }))
        .await;
    }
}

/// However many they are.
async fn lives_a_day_on_one_refresh_an_hour(bed: &TestBed, applications: &mut [Application]) {
    let before = bed.sandbox.refreshes(LAB).len();
    lives_a_day(bed, applications).await;
    let refreshes = &bed.sandbox.refreshes(LAB)[before..];
    assert_eq!(refreshes.len(), DAY, "{refreshes:?}");
    assert_eq!(bed.sandbox.smallest_refresh_gap(LAB), Some(HOUR));
}

async fn is_refused_after_revoking(application: &mut Application) {
    application.does("revoke").await;
    let refused = application.fails("refresh").await;
    assert!(refused.contains("401") || refused.contains("invalid_grant"), "{refused}");
}

async fn completes(bed: &TestBed, library: &Library, settings: &Settings) {
    let mut application = pairs(bed, library, settings).await;
    assert_ne!(application.does("orders").await["orders"], "0");
    assert_ne!(application.does("download").await["bytes"], "0");
    lives_a_day_on_one_refresh_an_hour(bed, std::slice::from_mut(&mut application)).await;
    is_refused_after_revoking(&mut application).await;
}

async fn completes_at_the_vendor(library: &Library) {
    let bed = TestBedBuilder::new().unpaired().start().await;
    completes(&bed, library, &at_the_vendor(&bed)).await;
}

/// As it was, and as the library would have it by itself: credentials by Basic, no login page, and without
/// PKCE.
async fn completes_at_the_gateway(library: &Library) {
    let bed = gateway_for(&["oldpms"]).await;
    let as_it_was = at_the_gateway(&bed, "oldpms");
    completes(&bed, library, &as_it_was).await;
    let by_itself = Settings { basic: true, pkce: false, login_page: String::new(), ..as_it_was };
    completes(&bed, library, &by_itself).await;
    assert_eq!(
        bed.sandbox.calls_to(Endpoint::Pair).len(),
        1,
        "an account that is connected here is not paired again"
    );
}

macro_rules! libraries {
    ($($library:ident: $at_the_vendor:ident, $at_the_gateway:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $at_the_vendor() {
            completes_at_the_vendor(&library::$library).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $at_the_gateway() {
            completes_at_the_gateway(&library::$library).await;
        }
    )*};
}

libraries! {
    AUTHLIB: authlib_completes_at_the_vendor, authlib_completes_at_the_gateway;
    REQUESTS_OAUTHLIB: requests_oauthlib_completes_at_the_vendor, requests_oauthlib_completes_at_the_gateway;
    OAUTH4WEBAPI: oauth4webapi_completes_at_the_vendor, oauth4webapi_completes_at_the_gateway;
    SIMPLE_OAUTH2: simple_oauth2_completes_at_the_vendor, simple_oauth2_completes_at_the_gateway;
    GOOGLE_JAVA: googles_java_client_completes_at_the_vendor, googles_java_client_completes_at_the_gateway;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_applications_of_one_lab_cost_one_pairing_and_one_refresh_an_hour() {
    let names = ["oldpms", "labsync", "cadflow"];
    let bed = gateway_for(&names).await;
    let mut applications = Vec::new();
    for (library, name) in [library::AUTHLIB, library::OAUTH4WEBAPI, library::GOOGLE_JAVA].iter().zip(names) {
        applications.push(pairs(&bed, library, &at_the_gateway(&bed, name)).await);
    }
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1, "the vendor answers a second one 409");
    lives_a_day_on_one_refresh_an_hour(&bed, &mut applications).await;
    is_refused_after_revoking(&mut applications[0]).await;
    lives_a_day_on_one_refresh_an_hour(&bed, &mut applications[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_reads_of_a_cancelled_login_what_it_would_read_at_the_vendor() {
    let bed = gateway_for(&["oldpms"]).await;
    for library in library::ALL {
        let mut said = Vec::new();
        for settings in [at_the_vendor(&bed), at_the_gateway(&bed, "oldpms")] {
            let mut application = begins(&bed, library, &settings, Person::Cancels).await;
            said.push(application.is_refused("login").await);
        }
        // Authlib does not look for an error, and asks for a token without a code.
        let word = if library.name == "Authlib" { "unsupported_grant_type" } else { "access_denied" };
        assert!(said.iter().all(|text| text.contains(word)), "{}: {said:?}", library.name);
    }
}

/// The vendor's "simple use case" (4.2.1.2): a call fails, and the library refreshes and repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_refreshes_by_itself_when_a_call_fails_does_so_at_the_gateway_too() {
    let bed = gateway_for(&["oldpms"]).await;
    for settings in [at_the_vendor(&bed), at_the_gateway(&bed, "oldpms")] {
        let mut application = pairs(&bed, &library::GOOGLE_JAVA, &settings).await;
        for _ in 0..DAY {
            bed.clock.advance(HOUR);
            application.does("orders").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_set_up_for_openid_connect_gets_the_id_token_that_it_wants() {
    let bed = gateway_with(&["oldpms"], ", id_token = true").await;
    let at_the_vendor = Settings { id_token: "RS256", ..at_the_vendor(&bed) };
    let at_the_gateway = Settings { id_token: "HS256", ..at_the_gateway(&bed, "oldpms") };
    for settings in [at_the_vendor, at_the_gateway] {
        pairs(&bed, &library::OAUTH4WEBAPI, &settings).await;
    }
}
