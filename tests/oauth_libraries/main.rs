//! Legacy applications on OAuth libraries that others wrote log in, pair and live a day of refreshes: at the
//! sandbox as the vendor, then unmodified at the gateway.
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

use genapi_gateway::sandbox::Platform;
use url::Url;

use application::{Application, Settings};
use library::Library;
use test_bed::{LAB, PASSWORD, TestBed, TestBedBuilder, USER};
use web_browser::WebBrowser;

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
    }
}

/// From the printed URL to the pair tokens.
async fn pairs(bed: &TestBed, library: &Library, settings: &Settings) -> Application {
    let mut application = Application::start(library, settings);
    let url = application.authorization_url().await;
    let asked: Url = url.parse().unwrap();
    let (_, redirect_uri) = asked.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap();
    bed.sandbox.allow_redirect(Platform::New, &redirect_uri);
    let mut browser = WebBrowser::new(bed.http.clone());
    let back = browser.log_in(&url, USER, PASSWORD, &redirect_uri).await;
    let page = bed.send(bed.http.get(back)).await;
    assert!(page.text().contains("You are logged in"), "{page:?}");
    for step in ["login", "discovery", "related-accounts", "pair"] {
        application.completes(step).await;
    }
    application
}

async fn lives_a_day(bed: &TestBed, applications: &mut [Application]) {
    for _ in 0..DAY {
        bed.clock.advance(HOUR);
        for application in &mut *applications {
            let fresh = application.does("refresh").await;
            assert_eq!(fresh["same_refresh_token"], "yes");
            application.does("orders").await;
        }
    }
}

async fn completes_at_the_vendor(library: &Library) {
    let bed = TestBedBuilder::new().unpaired().start().await;
    let mut application = pairs(&bed, library, &at_the_vendor(&bed)).await;
    assert_ne!(application.does("orders").await["orders"], "0");
    assert_ne!(application.does("download").await["bytes"], "0");
    lives_a_day(&bed, std::slice::from_mut(&mut application)).await;
    assert_eq!(bed.sandbox.refreshes(LAB).len(), DAY);
    application.does("revoke").await;
    let refused = application.fails("refresh").await;
    assert!(refused.contains("401") || refused.contains("invalid_grant"), "{refused}");
}

macro_rules! libraries {
    ($($test:ident => $library:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            completes_at_the_vendor(&library::$library).await;
        }
    )*};
}

libraries! {
    authlib_completes_at_the_vendor => AUTHLIB,
    oauth4webapi_completes_at_the_vendor => OAUTH4WEBAPI,
    simple_oauth2_completes_at_the_vendor => SIMPLE_OAUTH2,
    googles_java_client_completes_at_the_vendor => GOOGLE_JAVA,
}
