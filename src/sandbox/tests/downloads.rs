//! Assets: bytes, ranges, lists that change, foreign links.

use super::*;
use crate::sandbox::{Flip, LinkForm};

async fn ranged(stage: &Stage, url: &str, bearer: &str, headers: &[(&str, &str)]) -> TestResponse {
    let mut request = http::Request::get(url).header("authorization", format!("Bearer {bearer}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stage.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn a_download_has_the_bytes_of_its_seed_and_says_what_it_is() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(LAB).unwrap();
    let order = stage.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", stage.sandbox.region_url(Region::AsiaPacific));
    let response = stage.get(&url, &access).await;
    let asset = stage.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(response.inner.body()[..], asset.bytes(0..asset.length));
    assert_eq!(response.header("content-type"), "application/zip");
    assert_eq!(response.header("content-length"), asset.length.to_string());
    assert_eq!(response.header("etag"), asset.etag());
    assert!(response.header("content-disposition").contains(".zip"));
    assert_eq!(stage.get(&url.replace("IDE", "NONE"), &access).await.status, 404);
    assert_eq!(stage.get(&url, "dead").await.status, 401);
    stage.sandbox.set_habits(|habits| habits.download_wants_bearer = false);
    assert_eq!(stage.get(&url, "dead").await.status, 200);
}

#[tokio::test]
async fn ranges_are_honoured_and_if_range_is_checked() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(LAB).unwrap();
    let order = stage.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", stage.sandbox.region_url(Region::AsiaPacific));
    let asset = stage.sandbox.asset(order, "IDE").unwrap();
    let part = ranged(&stage, &url, &access, &[("range", "bytes=1000-1999")]).await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 1000-1999/262144"));
    assert_eq!(part.inner.body()[..], asset.bytes(1000..2000));
    let etag = asset.etag();
    let same = ranged(&stage, &url, &access, &[("range", "bytes=0-9"), ("if-range", &etag)]).await;
    assert_eq!(same.status, 206);
    let changed = ranged(&stage, &url, &access, &[("range", "bytes=0-9"), ("if-range", "\"x\"")]).await;
    assert_eq!(changed.status, 200);
    let beyond = ranged(&stage, &url, &access, &[("range", "bytes=262144-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */262144"));
    let known = ranged(&stage, &url, &access, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.inner.body().len()), (304, 0));
    // None of these was a whole download but one.
    assert!(stage.sandbox.is_downloaded(order));
}

#[tokio::test]
async fn head_tells_the_length_and_downloads_nothing() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(LAB).unwrap();
    let order = stage.sandbox.order_ids(LAB)[0];
    let url = format!("{}/order/{order}/download/IDE", stage.sandbox.region_url(Region::AsiaPacific));
    let head = stage.call("HEAD", &url, &access, "").await;
    assert_eq!((head.status, head.header("content-length"), head.inner.body().len()), (200, "262144", 0));
    assert!(!stage.sandbox.is_downloaded(order));
}

#[tokio::test]
async fn a_labs_list_loses_an_order_when_the_habit_says_so() {
    for (flip, after_part, after_whole) in [
        (Flip::FirstDownloadByte, true, true),
        (Flip::FullDownload, false, true),
        (Flip::Never, false, false),
    ] {
        let stage = Stage::with_habits(Habits { lab_list_flips_on: flip, ..Habits::default() }).await;
        let access = stage.sandbox.bearer(LAB).unwrap();
        let api = stage.sandbox.region_url(Region::AsiaPacific);
        let link = stage.get(&format!("{api}/orders/lab"), &access).await.links().remove(0);
        let order = stage.sandbox.order_ids(LAB)[0];
        ranged(&stage, &link, &access, &[("range", "bytes=0-0")]).await;
        assert_eq!(stage.sandbox.is_downloaded(order), after_part, "{flip:?}");
        stage.get(&link, &access).await;
        assert_eq!(stage.sandbox.is_downloaded(order), after_whole, "{flip:?}");
        let left = stage.get(&format!("{api}/orders/lab"), &access).await.json();
        let expected = if after_whole { 2 } else { 3 };
        assert_eq!(left["Data"].as_array().unwrap().len(), expected, "{flip:?}");
    }
}

#[tokio::test]
async fn a_foreign_link_works_bare_and_refuses_a_bearer() {
    let stage = Stage::with_habits(Habits { link_form: LinkForm::ForeignHost, ..Habits::default() }).await;
    let access = stage.sandbox.bearer(LAB).unwrap();
    let api = stage.sandbox.region_url(Region::AsiaPacific);
    let link = stage.get(&format!("{api}/orders/lab"), &access).await.links().remove(0);
    let bare = http::Request::get(&link).body(Full::default()).unwrap();
    let response = stage.send(bare.clone()).await;
    let order = stage.sandbox.order_ids(LAB)[0];
    let asset = stage.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(response.inner.body()[..], asset.bytes(0..asset.length));
    assert_eq!(stage.get(&link, &access).await.status, 400);
    assert_eq!(stage.get(&link.replace("IDE", "IMAGE_GALLERY"), "").await.status, 403);
    stage.sandbox.set_habits(|habits| habits.storage_wants_bearer = true);
    assert_eq!(stage.send(bare.clone()).await.status, 401);
    assert_eq!(stage.get(&link, &access).await.status, 200);
    stage.clock.advance(std::time::Duration::from_secs(3601));
    assert_eq!(stage.send(bare).await.status, 403);
}

#[tokio::test]
async fn a_download_of_64_mb_is_streamed_and_adds_up() {
    let stage = Stage::new().await;
    stage.sandbox.set_asset_bytes(LAB, 64 << 20);
    let access = stage.sandbox.bearer(LAB).unwrap();
    let order = stage.sandbox.order_ids(LAB)[1];
    let url = format!("{}/order/{order}/download/IDE", stage.sandbox.region_url(Region::AsiaPacific));
    let response = stage.get(&url, &access).await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, response.inner.body());
    let asset = stage.sandbox.asset(order, "IDE").unwrap();
    assert_eq!(crate::sandbox::hex(digest.as_ref()), asset.sha256());
}
