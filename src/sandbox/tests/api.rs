//! The API hosts: regions, discovery, each endpoint of the table.

use super::*;
use crate::sandbox::{DomainForm, LinkForm};

#[tokio::test]
async fn each_account_is_sent_to_its_own_region_and_refused_by_the_others() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    for region in [Region::NorthAmerica, Region::Europe, Region::AsiaPacific] {
        let api = fixture.sandbox.region_url(region);
        let expected = if region == Region::Europe { 200 } else { 403 };
        assert_eq!(fixture.get(&format!("{api}/orders/practice"), &access).await.status, expected);
        // Discovery answers everywhere, or an account that moved would never be found.
        let found = fixture.get(&format!("{api}/{DISCOVERY}"), &access).await;
        assert_eq!(found.text_at("/APIs/0/Domain"), fixture.sandbox.origin(HostRole::Region(Region::Europe)));
    }
    let china = fixture.sandbox.region_url(Region::China);
    assert_eq!(fixture.get(&format!("{china}/orders/practice"), &access).await.status, 401);
}

#[tokio::test]
async fn an_account_that_moved_is_found_by_discovery_with_the_token_it_has() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    fixture.sandbox.move_region(CLINIC, Region::NorthAmerica);
    let base = fixture.sandbox.base_url(Platform::New);
    let found = fixture.get(&format!("{base}/api/third-party/v2/{DISCOVERY}"), &access).await;
    assert_eq!(
        found.text_at("/APIs/0/Domain"),
        fixture.sandbox.origin(HostRole::Region(Region::NorthAmerica))
    );
    let old = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    assert_eq!(fixture.get(&old, &access).await.status, 403);
}

#[tokio::test]
async fn discovery_has_every_printed_outcome() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let url = format!("{api}/api-discovery-by-name-and-version");
    let found = fixture.get(&format!("{api}/{DISCOVERY}"), &access).await.json();
    let expected = serde_json::json!({"APIs": [{
        "Name": "third-party", "Version": "2", "Path": "/itero-gen-api/v2",
        "Domain": fixture.sandbox.origin(HostRole::Region(Region::Europe)),
    }]});
    assert_eq!(found, expected);
    assert_eq!(fixture.get(&format!("{url}?discoveryName=third-party"), &access).await.status, 400);
    let wrong = fixture.get(&format!("{url}?discoveryName=third-party&version=4"), &access).await;
    assert_eq!((wrong.status, wrong.json()), (200, serde_json::json!({"APIs": []})));
    fixture.sandbox.set_behavior(|behavior| behavior.domain_form = DomainForm::TrailingSlash);
    let slash = fixture.get(&format!("{api}/{DISCOVERY}"), &access).await;
    assert!(slash.text_at("/APIs/0/Domain").ends_with('/'));
    fixture.sandbox.set_behavior(|behavior| behavior.domain_form = DomainForm::Bare);
    let bare = fixture.get(&format!("{api}/{DISCOVERY}"), &access).await;
    assert!(!bare.text_at("/APIs/0/Domain").contains("://"));
    fixture.sandbox.set_behavior(|behavior| behavior.discovery_at_domain = false);
    assert_eq!(fixture.get(&format!("{api}/{DISCOVERY}"), &access).await.status, 404);
    let base = format!("{}/api/third-party/v2/{DISCOVERY}", fixture.sandbox.base_url(Platform::New));
    assert_eq!(fixture.get(&base, &access).await.status, 200);
    fixture.sandbox.set_behavior(|behavior| behavior.discovery_enabled = false);
    assert_eq!(fixture.get(&base, &access).await.text(), r#"{"APIs":[]}"#);
}

#[tokio::test]
async fn the_three_worlds_share_no_token() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::clinic(20, "Old").on_platform(Platform::Old));
    fixture.sandbox.add_account(AccountSpec::clinic(30, "China").on_platform(Platform::China));
    let homes = [
        (CLINIC, fixture.sandbox.region_url(Region::Europe)),
        (20, fixture.sandbox.base_url(Platform::Old)),
        (30, fixture.sandbox.region_url(Region::China)),
    ];
    for (account, home) in &homes {
        let access = fixture.sandbox.bearer(*account).unwrap();
        for (other, url) in &homes {
            let expected = if account == other { 200 } else { 401 };
            let status = fixture.get(&format!("{url}/orders/practice"), &access).await.status;
            assert_eq!(status, expected, "{home} at {url}");
        }
    }
}

#[tokio::test]
async fn v1_responds_in_its_own_manner() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::lab(20, "Old lab").on_platform(Platform::Old));
    let access = fixture.sandbox.bearer(20).unwrap();
    let v1 = fixture.get(&format!("{}/orders/lab", fixture.sandbox.v1_url()), &access).await;
    assert_eq!(v1.status, 200);
    assert!(!v1.text().contains("ProcedureName"));
    assert!(v1.links()[0].starts_with(&fixture.sandbox.v1_url()));
    let v2 = fixture.get(&format!("{}/orders/lab", fixture.sandbox.base_url(Platform::Old)), &access).await;
    assert!(v2.text().contains("ProcedureName"));
    let configuration = format!("{}/practice-configuration", fixture.sandbox.v1_url());
    assert!(fixture.get(&configuration, &access).await.text().contains("CaseTypes"));
}

#[tokio::test]
async fn an_rx_is_created_found_and_deleted_and_every_creation_counts() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let create = format!("{api}/scan-request");
    let body = r#"{"MapID":"FR","Patient":{"LastName":"Müller"}}"#;
    let created = fixture.call("POST", &create, &access, body).await.json();
    let rx_id = created["Data"]["RxId"].as_u64().unwrap();
    assert_eq!(fixture.sandbox.created(CLINIC)[0].body["Patient"]["LastName"], "Müller");
    fixture.call("POST", &create, &access, body).await;
    assert_eq!(fixture.sandbox.creations(CLINIC), 2);
    let found = fixture.get(&format!("{api}/orders/{rx_id}"), &access).await.json();
    assert_eq!(found["Data"]["Status"], "Scanning");
    let one = format!("{create}/{rx_id}");
    assert_eq!(fixture.call("DELETE", &one, &access, "").await.status, 200);
    assert_eq!(fixture.call("DELETE", &one, &access, "").await.status, 404);
    assert_eq!(fixture.call("POST", &create, &access, "not json").await.status, 400);
    assert_eq!(fixture.sandbox.creations(CLINIC), 2);
}

#[tokio::test]
async fn orders_are_shown_to_their_own_account_only() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::clinic(9, "Neighbour").in_region(Region::Europe));
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let (mine, theirs) = (fixture.sandbox.rx_ids(CLINIC)[0], fixture.sandbox.rx_ids(9)[0]);
    assert_eq!(fixture.get(&format!("{api}/orders/{mine}"), &access).await.status, 200);
    assert_eq!(fixture.get(&format!("{api}/orders/{theirs}"), &access).await.status, 404);
    let order = fixture.sandbox.order_ids(9)[0];
    assert_eq!(fixture.get(&format!("{api}/order/{order}/download/IDE"), &access).await.status, 404);
    assert_eq!(fixture.call("POST", &format!("{api}/order/{order}/return"), &access, "").await.status, 404);
    // A clinic has no lab list.
    assert_eq!(fixture.get(&format!("{api}/orders/lab"), &access).await.status, 403);
}

#[tokio::test]
async fn links_come_in_the_form_that_is_asked_for() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let list = async |form| {
        fixture.sandbox.set_behavior(|behavior| behavior.link_form = form);
        fixture.get(&format!("{api}/orders/practice"), &access).await
    };
    let absolute = list(LinkForm::Absolute).await;
    assert_eq!(absolute.links().len(), 6);
    assert!(absolute.links().iter().all(|link| link.starts_with(&api)));
    let relative = list(LinkForm::Relative).await;
    assert!(relative.links().iter().all(|link| link.starts_with("/itero-gen-api/v2/order/")));
    let escaped = list(LinkForm::JsonEscaped).await;
    assert!(escaped.text().contains(&api.replace('/', "\\/")));
    assert_eq!(escaped.links(), absolute.links());
    let foreign = list(LinkForm::ForeignHost).await;
    assert!(foreign.links().iter().all(|link| link.starts_with(&fixture.sandbox.storage_url())));
    let mixed = list(LinkForm::Mixed).await.links();
    let starts = mixed.iter().map(|link| link.split("/order/").next().unwrap().to_owned());
    assert_eq!(starts.collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn an_order_given_back_leaves_the_labs_list() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let api = fixture.sandbox.region_url(Region::AsiaPacific);
    let order = fixture.sandbox.order_ids(LAB)[0];
    let back = format!("{api}/order/{order}/return");
    assert_eq!(fixture.call("POST", &back, &access, "{}").await.status, 200);
    assert!(fixture.sandbox.is_returned(order));
    let list = fixture.get(&format!("{api}/orders/lab"), &access).await.json();
    assert_eq!(list["Data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn patients_are_searched_and_updated_by_guid_and_chart_number() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let search = format!("{api}/patient/search");
    let all = fixture.call("POST", &search, &access, "{}").await.json();
    assert_eq!(all["Data"].as_array().unwrap().len(), 5);
    let patient = &all["Data"][2];
    let (guid, chart) = (patient["PatientGuid"].as_str().unwrap(), patient["ChartNumber"].as_str().unwrap());
    let body = serde_json::json!({"PatientGuid": guid, "LastName": "Changed"}).to_string();
    assert_eq!(fixture.call("PUT", &format!("{api}/patients"), &access, &body).await.status, 200);
    let body = serde_json::json!({"ChartNumber": chart, "FirstName": "Also"}).to_string();
    let by_chart = format!("{api}/patient/by-chart-number");
    assert_eq!(fixture.call("PUT", &by_chart, &access, &body).await.status, 200);
    let found = fixture.call("POST", &search, &access, r#"{"LastName":"changed"}"#).await.json();
    assert_eq!(found["Data"][0]["FirstName"], "Also");
    assert_eq!(found["Data"].as_array().unwrap().len(), 1);
    let unknown = r#"{"ChartNumber":"nobody"}"#;
    assert_eq!(fixture.call("PUT", &by_chart, &access, unknown).await.status, 404);
}

#[tokio::test]
async fn a_denied_path_stays_403_whatever_the_token() {
    let fixture = Fixture::new().await;
    let api = fixture.sandbox.region_url(Region::Europe);
    fixture.sandbox.deny(CLINIC, "/practice-configuration");
    for _ in 0..2 {
        let access = fixture.sandbox.bearer(CLINIC).unwrap();
        assert_eq!(fixture.get(&format!("{api}/practice-configuration"), &access).await.status, 403);
        assert_eq!(fixture.get(&format!("{api}/orders/practice"), &access).await.status, 200);
    }
}

#[tokio::test]
async fn unknown_paths_are_404_in_json_and_a_foreign_host_field_is_refused() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let api = fixture.sandbox.region_url(Region::Europe);
    let unknown = fixture.get(&format!("{api}/nothing"), &access).await;
    assert_eq!((unknown.status, unknown.json()["Message"].is_string()), (404, true));
    let request = "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: elsewhere.test:80\r\nConnection: close\r\n\r\n";
    let response = fixture.raw(HostRole::Region(Region::Europe), request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
}

#[tokio::test]
async fn json_is_compressed_and_chunked_where_that_is_the_habit() {
    let fixture = Fixture::with_behavior(Behavior { gzip_json: true, ..Behavior::default() }).await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    let plain = fixture.get(&url, &access).await;
    assert_eq!(plain.header("content-encoding"), "");
    fixture.sandbox.set_behavior(|behavior| behavior.gzip_unasked = true);
    let packed = fixture.get(&url, &access).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.inner.body()[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert_eq!(text, plain.text());
    fixture.sandbox.set_behavior(|behavior| {
        behavior.gzip_unasked = false;
        behavior.chunked_json = Some(7);
    });
    let chunked = fixture.get(&url, &access).await;
    assert_eq!(chunked.header("transfer-encoding"), "chunked");
    assert_eq!(chunked.text(), plain.text());
}

#[tokio::test]
async fn the_path_of_discovery_can_be_another_and_the_old_one_is_then_gone() {
    let fixture =
        Fixture::with_behavior(Behavior { path: "/itero-gen-api/v3".to_owned(), ..Behavior::default() })
            .await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let base = format!("{}/api/third-party/v2/{DISCOVERY}", fixture.sandbox.base_url(Platform::New));
    let found = fixture.get(&base, &access).await;
    assert_eq!(found.text_at("/APIs/0/Path"), "/itero-gen-api/v3");
    let domain = found.text_at("/APIs/0/Domain");
    let list = fixture.get(&format!("{domain}/itero-gen-api/v3/orders/practice"), &access).await;
    assert_eq!(list.status, 200);
    assert!(list.links()[0].starts_with(&fixture.sandbox.region_url(Region::Europe)));
    let old = fixture.get(&format!("{domain}/itero-gen-api/v2/orders/practice"), &access).await;
    assert_eq!(old.status, 404);
}
