//! The API hosts: regions, discovery, each endpoint of the table.

use super::*;
use crate::sandbox::{DomainForm, LinkForm};

#[tokio::test]
async fn each_account_is_sent_to_its_own_region_and_refused_by_the_others() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    for region in [Region::NorthAmerica, Region::Europe, Region::AsiaPacific] {
        let api = stage.sandbox.region_url(region);
        let expected = if region == Region::Europe { 200 } else { 403 };
        assert_eq!(stage.get(&format!("{api}/orders/practice"), &access).await.status, expected);
        // Discovery answers everywhere, or an account that moved would never be found.
        let found = stage.get(&format!("{api}/{DISCOVERY}"), &access).await;
        assert_eq!(found.text_at("/APIs/0/Domain"), stage.sandbox.origin(Place::Region(Region::Europe)));
    }
    let china = stage.sandbox.region_url(Region::China);
    assert_eq!(stage.get(&format!("{china}/orders/practice"), &access).await.status, 401);
}

#[tokio::test]
async fn an_account_that_moved_is_found_by_discovery_with_the_token_it_has() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    stage.sandbox.move_region(CLINIC, Region::NorthAmerica);
    let base = stage.sandbox.base_url(Platform::New);
    let found = stage.get(&format!("{base}/api/third-party/v2/{DISCOVERY}"), &access).await;
    assert_eq!(found.text_at("/APIs/0/Domain"), stage.sandbox.origin(Place::Region(Region::NorthAmerica)));
    let old = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    assert_eq!(stage.get(&old, &access).await.status, 403);
}

#[tokio::test]
async fn discovery_has_every_printed_outcome() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let url = format!("{api}/api-discovery-by-name-and-version");
    let found = stage.get(&format!("{api}/{DISCOVERY}"), &access).await.json();
    let expected = serde_json::json!({"APIs": [{
        "Name": "third-party", "Version": "2", "Path": "/itero-gen-api/v2",
        "Domain": stage.sandbox.origin(Place::Region(Region::Europe)),
    }]});
    assert_eq!(found, expected);
    assert_eq!(stage.get(&format!("{url}?discoveryName=third-party"), &access).await.status, 400);
    let wrong = stage.get(&format!("{url}?discoveryName=third-party&version=3"), &access).await;
    assert_eq!((wrong.status, wrong.json()), (200, serde_json::json!({"APIs": []})));
    stage.sandbox.set_habits(|habits| habits.domain_form = DomainForm::TrailingSlash);
    let slash = stage.get(&format!("{api}/{DISCOVERY}"), &access).await;
    assert!(slash.text_at("/APIs/0/Domain").ends_with('/'));
    stage.sandbox.set_habits(|habits| habits.domain_form = DomainForm::Bare);
    let bare = stage.get(&format!("{api}/{DISCOVERY}"), &access).await;
    assert!(!bare.text_at("/APIs/0/Domain").contains("://"));
    stage.sandbox.set_habits(|habits| habits.discovery_at_domain = false);
    assert_eq!(stage.get(&format!("{api}/{DISCOVERY}"), &access).await.status, 404);
    let base = format!("{}/api/third-party/v2/{DISCOVERY}", stage.sandbox.base_url(Platform::New));
    assert_eq!(stage.get(&base, &access).await.status, 200);
    stage.sandbox.set_habits(|habits| habits.discovery_enabled = false);
    assert_eq!(stage.get(&base, &access).await.text(), r#"{"APIs":[]}"#);
}

#[tokio::test]
async fn the_three_worlds_share_no_token() {
    let stage = Stage::new().await;
    stage.sandbox.add_account(Account::clinic(20, "Old").on_platform(Platform::Old));
    stage.sandbox.add_account(Account::clinic(30, "China").on_platform(Platform::China));
    let homes = [
        (CLINIC, stage.sandbox.region_url(Region::Europe)),
        (20, stage.sandbox.base_url(Platform::Old)),
        (30, stage.sandbox.region_url(Region::China)),
    ];
    for (account, home) in &homes {
        let access = stage.sandbox.bearer(*account).unwrap();
        for (other, url) in &homes {
            let expected = if account == other { 200 } else { 401 };
            let status = stage.get(&format!("{url}/orders/practice"), &access).await.status;
            assert_eq!(status, expected, "{home} at {url}");
        }
    }
}

#[tokio::test]
async fn v1_answers_in_its_own_manner() {
    let stage = Stage::new().await;
    stage.sandbox.add_account(Account::lab(20, "Old lab").on_platform(Platform::Old));
    let access = stage.sandbox.bearer(20).unwrap();
    let v1 = stage.get(&format!("{}/orders/lab", stage.sandbox.v1_url()), &access).await;
    assert_eq!(v1.status, 200);
    assert!(!v1.text().contains("ProcedureName"));
    assert!(v1.links()[0].starts_with(&stage.sandbox.v1_url()));
    let v2 = stage.get(&format!("{}/orders/lab", stage.sandbox.base_url(Platform::Old)), &access).await;
    assert!(v2.text().contains("ProcedureName"));
    let configuration = format!("{}/practice-configuration", stage.sandbox.v1_url());
    assert!(stage.get(&configuration, &access).await.text().contains("CaseTypes"));
}

#[tokio::test]
async fn an_rx_is_created_found_and_deleted_and_every_creation_counts() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let create = format!("{api}/scan-request");
    let body = r#"{"MapID":"FR","Patient":{"LastName":"Müller"}}"#;
    let created = stage.call("POST", &create, &access, body).await.json();
    let rx_id = created["Data"]["RxId"].as_u64().unwrap();
    assert_eq!(stage.sandbox.created(CLINIC)[0].body["Patient"]["LastName"], "Müller");
    stage.call("POST", &create, &access, body).await;
    assert_eq!(stage.sandbox.creations(CLINIC), 2);
    let found = stage.get(&format!("{api}/orders/{rx_id}"), &access).await.json();
    assert_eq!(found["Data"]["Status"], "Scanning");
    let one = format!("{create}/{rx_id}");
    assert_eq!(stage.call("DELETE", &one, &access, "").await.status, 200);
    assert_eq!(stage.call("DELETE", &one, &access, "").await.status, 404);
    assert_eq!(stage.call("POST", &create, &access, "not json").await.status, 400);
    assert_eq!(stage.sandbox.creations(CLINIC), 2);
}

#[tokio::test]
async fn orders_are_shown_to_their_own_account_only() {
    let stage = Stage::new().await;
    stage.sandbox.add_account(Account::clinic(9, "Neighbour").in_region(Region::Europe));
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let (mine, theirs) = (stage.sandbox.rx_ids(CLINIC)[0], stage.sandbox.rx_ids(9)[0]);
    assert_eq!(stage.get(&format!("{api}/orders/{mine}"), &access).await.status, 200);
    assert_eq!(stage.get(&format!("{api}/orders/{theirs}"), &access).await.status, 404);
    let order = stage.sandbox.order_ids(9)[0];
    assert_eq!(stage.get(&format!("{api}/order/{order}/download/IDE"), &access).await.status, 404);
    assert_eq!(stage.call("POST", &format!("{api}/order/{order}/return"), &access, "").await.status, 404);
    // A clinic has no lab list.
    assert_eq!(stage.get(&format!("{api}/orders/lab"), &access).await.status, 403);
}

#[tokio::test]
async fn links_come_in_the_form_that_is_asked_for() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let list = async |form| {
        stage.sandbox.set_habits(|habits| habits.link_form = form);
        stage.get(&format!("{api}/orders/practice"), &access).await
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
    assert!(foreign.links().iter().all(|link| link.starts_with(&stage.sandbox.storage_url())));
    let mixed = list(LinkForm::Mixed).await.links();
    let starts = mixed.iter().map(|link| link.split("/order/").next().unwrap().to_owned());
    assert_eq!(starts.collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn an_order_given_back_leaves_the_labs_list() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(LAB).unwrap();
    let api = stage.sandbox.region_url(Region::AsiaPacific);
    let order = stage.sandbox.order_ids(LAB)[0];
    let back = format!("{api}/order/{order}/return");
    assert_eq!(stage.call("POST", &back, &access, "{}").await.status, 200);
    assert!(stage.sandbox.is_returned(order));
    let list = stage.get(&format!("{api}/orders/lab"), &access).await.json();
    assert_eq!(list["Data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn patients_are_searched_and_updated_by_guid_and_chart_number() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let search = format!("{api}/patient/search");
    let all = stage.call("POST", &search, &access, "{}").await.json();
    assert_eq!(all["Data"].as_array().unwrap().len(), 5);
    let patient = &all["Data"][2];
    let (guid, chart) = (patient["PatientGuid"].as_str().unwrap(), patient["ChartNumber"].as_str().unwrap());
    let body = serde_json::json!({"PatientGuid": guid, "LastName": "Changed"}).to_string();
    assert_eq!(stage.call("PUT", &format!("{api}/patients"), &access, &body).await.status, 200);
    let body = serde_json::json!({"ChartNumber": chart, "FirstName": "Also"}).to_string();
    let by_chart = format!("{api}/patient/by-chart-number");
    assert_eq!(stage.call("PUT", &by_chart, &access, &body).await.status, 200);
    let found = stage.call("POST", &search, &access, r#"{"LastName":"changed"}"#).await.json();
    assert_eq!(found["Data"][0]["FirstName"], "Also");
    assert_eq!(found["Data"].as_array().unwrap().len(), 1);
    let unknown = r#"{"ChartNumber":"nobody"}"#;
    assert_eq!(stage.call("PUT", &by_chart, &access, unknown).await.status, 404);
}

#[tokio::test]
async fn a_denied_path_stays_403_whatever_the_token() {
    let stage = Stage::new().await;
    let api = stage.sandbox.region_url(Region::Europe);
    stage.sandbox.deny(CLINIC, "/practice-configuration");
    for _ in 0..2 {
        let access = stage.sandbox.bearer(CLINIC).unwrap();
        assert_eq!(stage.get(&format!("{api}/practice-configuration"), &access).await.status, 403);
        assert_eq!(stage.get(&format!("{api}/orders/practice"), &access).await.status, 200);
    }
}

#[tokio::test]
async fn unknown_paths_are_404_in_json_and_a_foreign_host_field_is_refused() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let api = stage.sandbox.region_url(Region::Europe);
    let unknown = stage.get(&format!("{api}/nothing"), &access).await;
    assert_eq!((unknown.status, unknown.json()["Message"].is_string()), (404, true));
    let request = "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: elsewhere.test:80\r\nConnection: close\r\n\r\n";
    let response = stage.raw(Place::Region(Region::Europe), request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
}

#[tokio::test]
async fn json_is_compressed_and_chunked_where_that_is_the_habit() {
    let stage = Stage::with_habits(Habits { gzip_json: true, ..Habits::default() }).await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    let plain = stage.get(&url, &access).await;
    assert_eq!(plain.header("content-encoding"), "");
    stage.sandbox.set_habits(|habits| habits.gzip_unasked = true);
    let packed = stage.get(&url, &access).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.inner.body()[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert_eq!(text, plain.text());
    stage.sandbox.set_habits(|habits| {
        habits.gzip_unasked = false;
        habits.chunked_json = Some(7);
    });
    let chunked = stage.get(&url, &access).await;
    assert_eq!(chunked.header("transfer-encoding"), "chunked");
    assert_eq!(chunked.text(), plain.text());
}

#[tokio::test]
async fn the_path_of_discovery_can_be_another_and_the_old_one_is_then_gone() {
    let stage =
        Stage::with_habits(Habits { path: "/itero-gen-api/v3".to_owned(), ..Habits::default() }).await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let base = format!("{}/api/third-party/v2/{DISCOVERY}", stage.sandbox.base_url(Platform::New));
    let found = stage.get(&base, &access).await;
    assert_eq!(found.text_at("/APIs/0/Path"), "/itero-gen-api/v3");
    let domain = found.text_at("/APIs/0/Domain");
    let list = stage.get(&format!("{domain}/itero-gen-api/v3/orders/practice"), &access).await;
    assert_eq!(list.status, 200);
    assert!(list.links()[0].starts_with(&stage.sandbox.region_url(Region::Europe)));
    let old = stage.get(&format!("{domain}/itero-gen-api/v2/orders/practice"), &access).await;
    assert_eq!(old.status, 404);
}
