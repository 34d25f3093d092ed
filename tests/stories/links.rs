//! Links in responses: each leads through the gateway to the right bytes as it stands, and foreign storage
//! never sees the bearer.

use genapi_gateway::sandbox::{
    ASSET_TYPES, CallEnd, DomainForm, DownloadedWhen, Endpoint, Fault, FaultRule, HostRole, LinkForm,
    Platform, Region,
};
use http::Method;
use serde_json::Value;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, TestBed, TestBedBuilder};
use crate::wire::Line;

const LIST: &str = "/itero-gen-api/v2/orders/practice";
/// With two links each, a list of more than 1 MiB.
const MANY: u64 = 2600;

/// Every link of a response with the order that it belongs to and the
/// kind of file, as an application finds them.
fn links(response: &Response) -> Vec<(u64, String, String)> {
    let mut found = Vec::new();
    for order in response.json()["Data"].as_array().expect("a list") {
        for url in order["URLs"].as_array().unwrap() {
            let text = |key: &str| url[key].as_str().unwrap().to_owned();
            found.push((order["OrderId"].as_u64().unwrap(), text("AssetType"), text("Url")));
        }
    }
    found
}

/// A program that fetches a link where it points, without any credentials, and trusts the sandbox.
fn anybody(bed: &TestBed) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(pem) = bed.sandbox.ca_pem() {
        let certificates = rustls::pki_types::pem::PemObject::pem_slice_iter(pem.as_bytes());
        roots.add_parsable_certificates(certificates.map(Result::unwrap));
    }
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let mut client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    for place in HostRole::ALL {
        if let Some(address) = bed.sandbox.address(place) {
            client = client.resolve(place.host_name(), address);
        }
    }
    client.build().unwrap()
}

/// What the vendor responds without the gateway.
async fn direct(bed: &TestBed, client: &reqwest::Client, path: &str) -> String {
    let url = format!("{}{path}", bed.sandbox.region_url(Region::NorthAmerica));
    let response = client.get(url).bearer_auth(bed.sandbox.bearer(CLINIC).unwrap()).send().await.unwrap();
    response.text().await.unwrap()
}

/// What the response has to be: the vendor's text with its own addresses, in whatever form, turned into ours,
/// and not a byte else.
fn rewritten(bed: &TestBed, text: &str) -> String {
    let prefix = "/itero-gen-api/v2";
    let theirs = bed.sandbox.region_url(Region::NorthAmerica);
    let ours = format!("{}/accounts/{CLINIC_NAME}{prefix}", bed.gateway);
    let escaped = |text: &str| text.replace('/', "\\/");
    text.replace(&theirs, &ours)
        .replace(&escaped(&theirs), &escaped(&ours))
        .replace(&format!("\"{prefix}"), &format!("\"/accounts/{CLINIC_NAME}{prefix}"))
}

async fn every_link_leads_to_its_bytes(secure: bool) {
    let bed = TestBedBuilder::new()
        .options(|options| {
            options.tls = secure;
            options.host_names = secure;
        })
        .behavior(|behavior| behavior.gzip_json = true)
        .start()
        .await;
    bed.sandbox.set_asset_bytes(CLINIC, 3000);
    let client = anybody(&bed);
    let domains: &[DomainForm] = if secure {
        &[DomainForm::Bare, DomainForm::TrailingSlash]
    } else {
        // A bare Domain means https, which this test bed does not speak.
        &[DomainForm::WithScheme, DomainForm::TrailingSlash]
    };
    for size in [4, MANY] {
        bed.sandbox.add_orders(CLINIC, size - bed.sandbox.order_ids(CLINIC).len() as u64);
        // A long list takes its time; Domain's form changes nothing about its length.
        for domain_form in if size == MANY { &domains[..1] } else { domains } {
            bed.sandbox.set_behavior(|behavior| behavior.domain_form = *domain_form);
            bed.operate(&format!("/discover?pattern={CLINIC_NAME}"), Value::Null).await;
            for form in [
                LinkForm::Absolute,
                LinkForm::Relative,
                LinkForm::JsonEscaped,
                LinkForm::ForeignHost,
                LinkForm::Mixed,
            ] {
                for (gzip, chunked) in [(false, None), (true, None), (false, Some(900)), (true, Some(900))] {
                    bed.sandbox.set_behavior(|behavior| {
                        (behavior.link_form, behavior.gzip_unasked, behavior.chunked_json) =
                            (form, gzip, chunked);
                    });
                    check_list(
                        &bed,
                        &client,
                        size,
                        &format!("{size} {domain_form:?} {form:?} {gzip} {chunked:?}"),
                    )
                    .await;
                }
            }
        }
    }
    for call in bed.sandbox.calls_to(Endpoint::Storage) {
        assert_eq!(call.header("authorization"), None, "the bearer leaked to foreign storage");
        assert_eq!(call.status, Some(200));
    }
}

async fn check_list(bed: &TestBed, client: &reqwest::Client, size: u64, what: &str) {
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!(response.status, 200, "{what}");
    assert_eq!(response.header("content-encoding"), "", "{what}: in the clear");
    if response.body.len() <= 1024 * 1024 {
        assert_eq!(response.header("content-length"), response.body.len().to_string(), "{what}")
    } else {
        assert_eq!(response.header("transfer-encoding"), "chunked", "{what}: streamed")
    }
    bed.sandbox.set_behavior(|behavior| behavior.gzip_unasked = false);
    let expected = rewritten(bed, &direct(bed, client, "/orders/practice").await);
    assert!(response.text() == expected, "{what}: {}", first_difference(&response.text(), &expected));
    let links = links(&response);
    assert_eq!(links.len() as u64, size * 2, "{what}");
    // Of a long list, some from everywhere; the comparison above has seen the others.
    for (order, kind, link) in links.iter().step_by((size as usize * 2 / 8).max(1)) {
        let foreign = link.contains(&bed.sandbox.storage_url());
        let bytes = if foreign {
            client.get(link).send().await.unwrap().bytes().await.unwrap()
        } else {
            bed.follow(link).await.body
        };
        let asset = bed.sandbox.asset(*order, kind).unwrap();
        assert!(bytes == asset.bytes(0..asset.length), "{what}: {link} leads elsewhere: {bytes:?}");
    }
}

fn first_difference(got: &str, wanted: &str) -> String {
    let at = got.bytes().zip(wanted.bytes()).position(|(a, b)| a != b);
    let at = at.unwrap_or(got.len().min(wanted.len()));
    let window = |text: &str| {
        let bytes = &text.as_bytes()[at.saturating_sub(60)..text.len().min(at + 60)];
        String::from_utf8_lossy(bytes).into_owned()
    };
    format!("at {at}: got …{}… wanted …{}…", window(got), window(wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_form_leads_to_its_bytes() {
    every_link_leads_to_its_bytes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_form_leads_to_its_bytes_over_tls_with_host_names() {
    every_link_leads_to_its_bytes(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_orders_links_lead_to_its_bytes_too() {
    let bed = TestBed::new().await;
    let rx = bed.sandbox.rx_ids(CLINIC)[1];
    let response = bed.get(CLINIC_NAME, &format!("/itero-gen-api/v2/orders/{rx}")).await;
    let data = response.json()["Data"].clone();
    for url in data["URLs"].as_array().unwrap() {
        let asset = bed.sandbox.asset(data["OrderId"].as_u64().unwrap(), url["AssetType"].as_str().unwrap());
        let asset = asset.unwrap();
        let bytes = bed.follow(url["Url"].as_str().unwrap()).await.body;
        assert!(bytes == asset.bytes(0..asset.length));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_names_its_account_and_works_after_restart_renewal_and_a_move_to_another_region() {
    let bed = TestBed::new().await;
    let (order, kind, link) = links(&bed.get(CLINIC_NAME, LIST).await).remove(0);
    let wanted = bed.sandbox.asset(order, &kind).unwrap();
    let bed = bed.restart().await;
    // The port is another one after this restart, as a link's own host would not be.
    let path = link.split_once("/accounts/").unwrap().1;
    let link = format!("{}/accounts/{path}", bed.gateway);
    bed.sandbox.expire_access(CLINIC);
    assert!(bed.follow(&link).await.body == wanted.bytes(0..wanted.length));
    bed.sandbox.move_region(CLINIC, Region::Europe);
    assert!(bed.follow(&link).await.body == wanted.bytes(0..wanted.length));
    let nobody = bed.send(bed.bare(Method::GET, &format!("/accounts/{path}"))).await;
    assert_eq!(nobody.code(), "caller_unknown", "a link is no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_download_equals_the_same_range_of_the_complete_one() {
    let bed = TestBed::new().await;
    let (order, kind, link) = links(&bed.get(CLINIC_NAME, LIST).await).remove(1);
    let asset = bed.sandbox.asset(order, &kind).unwrap();
    let complete = bed.follow(&link).await;
    assert_eq!(complete.header("accept-ranges"), "bytes");
    assert_eq!(complete.header("etag"), asset.etag());
    assert!(complete.header("content-disposition").contains(&format!("{order}_{kind}.zip")));
    for (range, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=1000-70000", 1000, 70001), ("bytes=262000-", 262000, 262144)]
    {
        let part =
            bed.send(bed.following(&link).header("range", range).header("if-range", asset.etag())).await;
        assert_eq!(part.status, 206);
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{}", to - 1, asset.length));
        assert!(part.body == asset.bytes(from..to));
    }
    let unchanged = bed.send(bed.following(&link).header("if-none-match", asset.etag())).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn location_headers_are_treated_like_links() {
    let bed = TestBed::new().await;
    let theirs = bed.sandbox.origin(HostRole::Region(Region::NorthAmerica));
    let authority = theirs.trim_start_matches("http://").to_owned();
    let ours = format!("{}/accounts/{CLINIC_NAME}", bed.gateway);
    for (location, expected) in [
        (format!("{theirs}/itero-gen-api/v2/orders/7?x=1"), format!("{ours}/itero-gen-api/v2/orders/7?x=1")),
        (
            "/itero-gen-api/v2/orders/7".to_owned(),
            format!("/accounts/{CLINIC_NAME}/itero-gen-api/v2/orders/7"),
        ),
        (format!("{theirs}/elsewhere/7"), format!("{ours}/@{authority}/elsewhere/7")),
        ("/elsewhere/7".to_owned(), format!("/accounts/{CLINIC_NAME}/@{authority}/elsewhere/7")),
        (
            "https://storage.elsewhere.test/a?sig=1".to_owned(),
            "https://storage.elsewhere.test/a?sig=1".to_owned(),
        ),
        ("7".to_owned(), "7".to_owned()),
    ] {
        for endpoint in [Endpoint::PracticeConfiguration, Endpoint::Download] {
            let redirect = Fault::Redirects { status: 302, location: location.clone() };
            bed.sandbox.inject(FaultRule::on(endpoint, redirect).once());
            let order = bed.sandbox.order_ids(CLINIC)[0];
            let path = match endpoint {
                Endpoint::Download => format!("/order/{order}/download/IDE"),
                _ => "/practice-configuration".to_owned(),
            };
            bed.sandbox.clear_calls();
            let response = bed.get(CLINIC_NAME, &path).await;
            assert_eq!(
                (response.status, response.header("location")),
                (302, expected.as_str()),
                "{location}"
            );
            assert_eq!(bed.sandbox.calls().len(), 1, "redirects are not followed here");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_below_the_platforms_own_host_is_followed_through_us_with_the_bearer() {
    let bed = TestBed::new().await;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    let theirs = bed.sandbox.region_url(Region::NorthAmerica);
    let location = format!("{theirs}/order/{order}/download/IDE");
    bed.sandbox.inject(
        FaultRule::on(Endpoint::PracticeConfiguration, Fault::Redirects { status: 307, location }).once(),
    );
    let response = bed.get(CLINIC_NAME, "/practice-configuration").await;
    let asset = bed.sandbox.asset(order, "IDE").unwrap();
    let followed = bed.follow(response.header("location")).await;
    assert!(followed.body == asset.bytes(0..asset.length));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_list_is_never_prefetched_and_a_cut_download_is_resumed_though_its_order_left_the_list() {
    for flip in [DownloadedWhen::FirstDownloadByte, DownloadedWhen::FullDownload] {
        let bed = TestBedBuilder::new().behavior(|behavior| behavior.lab_list_flips_on = flip).start().await;
        let listed = links(&bed.get(LAB_NAME, "/orders/lab").await);
        assert_eq!(listed.len(), 6);
        assert!(
            bed.sandbox.calls_to(Endpoint::Download).is_empty(),
            "nothing is fetched that nobody asked for"
        );
        assert_eq!(bed.account(LAB_NAME).await["signals"]["last_list_links"], 6);

        let (order, kind, link) = &listed[0];
        let asset = bed.sandbox.asset(*order, kind).unwrap();
        let cut = FaultRule::on(Endpoint::Download, Fault::DropsMidBody).once();
        bed.sandbox.inject(cut);
        let mut line = Line::to(&bed.gateway).await;
        let path = link.strip_prefix(&bed.gateway).unwrap();
        line.send(bed.request(&format!("GET {path}"), "")).await;
        let half = line.response(false).await.expect_err("a short file must not look whole");
        assert!(!half.body.is_empty() && (half.body.len() as u64) < asset.length);
        assert!(bed.account(LAB_NAME).await["signals"]["unfinished_download_at"].is_u64());
        assert_eq!(bed.sandbox.is_downloaded(*order), flip == DownloadedWhen::FirstDownloadByte);

        let range = format!("bytes={}-", half.body.len());
        let rest = bed.send(bed.following(link).header("range", range)).await;
        assert_eq!(rest.status, 206);
        let all = [&half.body[..], &rest.body[..]].concat();
        assert!(all == asset.bytes(0..asset.length));
        assert!(bed.follow(link).await.body == asset.bytes(0..asset.length), "{flip:?}");
        assert!(bed.sandbox.is_downloaded(*order));
        let remaining: Vec<u64> =
            links(&bed.get(LAB_NAME, "/orders/lab").await).iter().map(|link| link.0).collect();
        assert!(!remaining.contains(order) && remaining.len() == 4);
        assert_eq!(bed.account(LAB_NAME).await["signals"]["last_list_links"], 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_hangs_up_in_a_download_is_noted_and_the_platforms_connection_ends() {
    let bed = TestBed::new().await;
    bed.sandbox.set_asset_bytes(LAB, 200 * 1024 * 1024);
    let (_, _, link) = links(&bed.get(LAB_NAME, "/orders/lab").await).remove(0);
    let mut line = Line::to(&bed.gateway).await;
    let path = link.strip_prefix(&bed.gateway).unwrap();
    line.send(bed.request(&format!("GET {path}"), "")).await;
    bed.sandbox.until_calls(1, |call| call.endpoint == Some(Endpoint::Download)).await;
    drop(line);
    let ended = |call: &genapi_gateway::sandbox::RecordedCall| {
        call.endpoint == Some(Endpoint::Download) && call.end != CallEnd::Pending
    };
    assert_eq!(bed.sandbox.until_calls(1, ended).await[0].end, CallEnd::PeerClosed);
    // The gateway's own end of the call comes a moment before or after the sandbox's.
    for _ in 0..500 {
        if bed.account(LAB_NAME).await["signals"]["unfinished_download_at"].is_u64() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the unfinished download was not noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_lists_links_are_counted_and_an_empty_list_is_a_signal() {
    let bed = TestBed::new().await;
    bed.sandbox.add_orders(CLINIC, MANY);
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert!(response.body.len() > 1024 * 1024);
    assert_eq!(bed.account(CLINIC_NAME).await["signals"]["last_list_links"], (MANY + 3) * 2);
    for order in bed.sandbox.order_ids(LAB) {
        bed.get(LAB_NAME, &format!("/order/{order}/download/IDE")).await;
    }
    bed.get(LAB_NAME, "/orders/lab").await;
    assert_eq!(bed.account(LAB_NAME).await["signals"]["last_list_links"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_old_platforms_account_stay_in_their_realm() {
    let account = genapi_gateway::sandbox::AccountSpec::clinic(2001, "Old Clinic").on_platform(Platform::Old);
    let bed = TestBedBuilder::new().account(account).start().await;
    let found = links(&bed.get("acct-2001", LIST).await);
    for (order, kind, link) in found {
        let asset = bed.sandbox.asset(order, &kind).unwrap();
        assert!(bed.follow(&link).await.body == asset.bytes(0..asset.length), "{link}");
    }
    let places: Vec<_> = bed.sandbox.calls_to(Endpoint::Download).iter().map(|call| call.role).collect();
    assert_eq!(places, vec![HostRole::Base(Platform::Old); ASSET_TYPES.len() * 3]);
}
