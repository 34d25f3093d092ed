//! Assets: bytes, ranges, lists that change, foreign links.

use super::*;
use crate::sandbox::{DownloadedWhen, LinkForm};

async fn ranged(fixture: &Fixture, url: &str, bearer: &str, headers: &[(&str, &str)]) -> TestResponse {
    let mut request = http::Request::get(url).header("authorization", format!("Bearer {bearer}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    fixture.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn a_download_has_the_bytes_of_its_seed_and_says_what_it_is() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let order = fixture.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", fixture.sandbox.region_url(Region::AsiaPacific));
    let response = fixture.get(&url, &access).await;
    let asset = fixture.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(response.inner.body()[..], asset.bytes(0..asset.length));
    assert_eq!(response.header("content-type"), "application/zip");
    assert_eq!(response.header("content-length"), asset.length.to_string());
    assert_eq!(response.header("etag"), asset.etag());
    assert!(response.header("content-disposition").contains(".zip"));
    assert_eq!(fixture.get(&url.replace("IDE", "NONE"), &access).await.status, 404);
    assert_eq!(fixture.get(&url, "dead").await.status, 401);
    fixture.sandbox.set_behavior(|behavior| behavior.download_wants_bearer = false);
    assert_eq!(fixture.get(&url, "dead").await.status, 200);
}

#[tokio::test]
async fn ranges_are_honoured_and_if_range_is_checked() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let order = fixture.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", fixture.sandbox.region_url(Region::AsiaPacific));
    let asset = fixture.sandbox.asset(order, "IDE").unwrap();
    let part = ranged(&fixture, &url, &access, &[("range", "bytes=1000-1999")]).await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 1000-1999/262144"));
    assert_eq!(part.inner.body()[..], asset.bytes(1000..2000));
    let etag = asset.etag();
    let same = ranged(&fixture, &url, &access, &[("range", "bytes=0-9"), ("if-range", &etag)]).await;
    assert_eq!(same.status, 206);
    let changed = ranged(&fixture, &url, &access, &[("range", "bytes=0-9"), ("if-range", "\"x\"")]).await;
    assert_eq!(changed.status, 200);
    let beyond = ranged(&fixture, &url, &access, &[("range", "bytes=262144-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */262144"));
    let known = ranged(&fixture, &url, &access, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.inner.body().len()), (304, 0));
    // None of these was a whole download but one.
    assert!(fixture.sandbox.is_downloaded(order));
}

#[tokio::test]
async fn head_tells_the_length_and_downloads_nothing() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let order = fixture.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", fixture.sandbox.region_url(Region::AsiaPacific));
    let head = fixture.call("HEAD", &url, &access, "").await;
    assert_eq!((head.status, head.header("content-length"), head.inner.body().len()), (200, "262144", 0));
    assert!(!fixture.sandbox.is_downloaded(order));
}

#[tokio::test]
async fn a_labs_list_loses_an_order_when_the_habit_says_so() {
    for (flip, after_part, after_complete) in [
        (DownloadedWhen::FirstDownloadByte, true, true),
        (DownloadedWhen::FullDownload, false, true),
        (DownloadedWhen::Never, false, false),
    ] {
        let fixture =
            Fixture::with_behavior(Behavior { lab_list_flips_on: flip, ..Behavior::default() }).await;
        let access = fixture.sandbox.bearer(LAB).unwrap();
        let api = fixture.sandbox.region_url(Region::AsiaPacific);
        let link = fixture.get(&format!("{api}/orders/lab"), &access).await.links().remove(0);
        let order = fixture.sandbox.order_ids(LAB)[0];
        ranged(&fixture, &link, &access, &[("range", "bytes=0-0")]).await;
        assert_eq!(fixture.sandbox.is_downloaded(order), after_part, "{flip:?}");
        fixture.get(&link, &access).await;
        assert_eq!(fixture.sandbox.is_downloaded(order), after_complete, "{flip:?}");
        let remaining = fixture.get(&format!("{api}/orders/lab"), &access).await.json();
        let expected = if after_complete { 2 } else { 3 };
        assert_eq!(remaining["Data"].as_array().unwrap().len(), expected, "{flip:?}");
    }
}

#[tokio::test]
async fn a_foreign_link_works_bare_and_refuses_a_bearer() {
    let fixture =
        Fixture::with_behavior(Behavior { link_form: LinkForm::ForeignHost, ..Behavior::default() }).await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let api = fixture.sandbox.region_url(Region::AsiaPacific);
    let link = fixture.get(&format!("{api}/orders/lab"), &access).await.links().remove(0);
    let bare = http::Request::get(&link).body(Full::default()).unwrap();
    let response = fixture.send(bare.clone()).await;
    let order = fixture.sandbox.order_ids(LAB)[0];
    let asset = fixture.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(response.inner.body()[..], asset.bytes(0..asset.length));
    assert_eq!(fixture.get(&link, &access).await.status, 400);
    assert_eq!(fixture.get(&link.replace("IDE", "IMAGE_GALLERY"), "").await.status, 403);
    fixture.sandbox.set_behavior(|behavior| behavior.storage_wants_bearer = true);
    assert_eq!(fixture.send(bare.clone()).await.status, 401);
    assert_eq!(fixture.get(&link, &access).await.status, 200);
    fixture.clock.advance(std::time::Duration::from_secs(3601));
    assert_eq!(fixture.send(bare).await.status, 403);
}

#[tokio::test]
async fn a_download_of_64_mb_is_streamed_and_adds_up() {
    let fixture = Fixture::new().await;
    fixture.sandbox.set_asset_bytes(LAB, 64 << 20);
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let order = fixture.sandbox.order_ids(LAB)[1];
    let url = format!("{}/order/{order}/download/IDE", fixture.sandbox.region_url(Region::AsiaPacific));
    let response = fixture.get(&url, &access).await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, response.inner.body());
    let asset = fixture.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(crate::sandbox::hex(digest.as_ref()), asset.sha256());
}
