//! Each kind of trouble does what its name says.

use std::time::Duration;

use super::*;
use crate::sandbox::{End, Endpoint, Fault, Gate, Junk, Script};

const EUROPE: Place = Place::Region(Region::Europe);

/// The bytes that an order list gets under a fault.
async fn spoiled(stage: &Stage, fault: Fault, until: usize) -> String {
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, fault).once());
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let request = format!(
        "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {access}\r\nConnection: close\r\n\r\n"
    );
    stage.raw(EUROPE, &request, until).await
}

#[tokio::test]
async fn statuses_come_as_often_as_ordered_and_then_the_right_response() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, Fault::Status(504)).times(2));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(stage.get(&url, &access).await.status);
    }
    assert_eq!(statuses, [504, 504, 200]);
    assert!(stage.sandbox.scripts().is_empty());
}

#[tokio::test]
async fn a_call_can_take_effect_and_look_failed() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/scan-request", stage.sandbox.region_url(Region::Europe));
    stage.sandbox.script(Script::on(Endpoint::ScanRequest, Fault::Status(504)).once().carried_out());
    assert_eq!(stage.call("POST", &url, &access, "{}").await.status, 504);
    assert_eq!(stage.sandbox.creations(CLINIC), 1);
    stage.sandbox.script(Script::on(Endpoint::ScanRequest, Fault::Status(504)).once());
    assert_eq!(stage.call("POST", &url, &access, "{}").await.status, 504);
    assert_eq!(stage.sandbox.creations(CLINIC), 1);
}

#[tokio::test]
async fn drops_come_before_the_head_or_within_the_body() {
    let stage = Stage::new().await;
    assert_eq!(spoiled(&stage, Fault::DropsBeforeHead, usize::MAX).await, "");
    let cut = spoiled(&stage, Fault::DropsMidBody, usize::MAX).await;
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    let promised = head.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap();
    assert!(!body.is_empty() && body.len() < promised.parse().unwrap());
    let ends: Vec<End> = stage.sandbox.calls().iter().map(|call| call.end).collect();
    assert_eq!(ends, [End::Cut, End::Cut]);
}

#[tokio::test]
async fn framing_lies_are_told_as_ordered() {
    let stage = Stage::new().await;
    let lengths = spoiled(&stage, Fault::TwoLengths, usize::MAX).await;
    assert_eq!(lengths.matches("Content-Length").count(), 2);
    let both = spoiled(&stage, Fault::LengthAndChunked, usize::MAX).await;
    assert!(both.contains("Content-Length") && both.contains("Transfer-Encoding: chunked"));
    let stray = spoiled(&stage, Fault::BytesAfterBody, usize::MAX).await;
    assert_eq!(stray.matches("HTTP/1.1 200").count(), 2);
    let bodied = spoiled(&stage, Fault::BodyAfter204, usize::MAX).await;
    assert!(bodied.starts_with("HTTP/1.1 204 ") && bodied.contains("RxId"));
    let bodied = spoiled(&stage, Fault::BodyAfter304, usize::MAX).await;
    assert!(bodied.starts_with("HTTP/1.1 304 ") && bodied.contains("RxId"));
    let switching = spoiled(&stage, Fault::Unsolicited101, usize::MAX).await;
    assert!(switching.starts_with("HTTP/1.1 101 "));
    let garbage = spoiled(&stage, Fault::Garbage, usize::MAX).await;
    assert!(!garbage.starts_with("HTTP/"));
    let endless = spoiled(&stage, Fault::EndlessHead, 1 << 20).await;
    assert!(endless.len() >= 1 << 20 && !endless.contains("\r\n\r\n"));
}

#[tokio::test]
async fn wrong_shapes_come_as_ordered() {
    let stage = Stage::new().await;
    let html = spoiled(&stage, Fault::HtmlInstead, usize::MAX).await;
    assert!(html.starts_with("HTTP/1.1 200 ") && html.contains("text/html"));
    let location = "https://evil.test/".to_owned();
    let redirect = spoiled(&stage, Fault::Redirects { status: 307, location }, usize::MAX).await;
    assert!(redirect.starts_with("HTTP/1.1 307 ") && redirect.contains("Location: https://evil.test/"));
    let failed = spoiled(&stage, Fault::FailsInside200("no licence".to_owned()), usize::MAX).await;
    assert!(failed.contains("\"Failure\"") && failed.contains("no licence"));
    let odd = spoiled(&stage, Fault::Answers { status: 200, body: "[1".to_owned() }, usize::MAX).await;
    assert!(odd.ends_with("\r\n\r\n[1"));
    stage.sandbox.script(Script::on(Endpoint::Discovery, Fault::EmptyArray).once());
    let hostile = Fault::Discovers { domain: "http://169.254.169.254".to_owned(), path: "//x".to_owned() };
    stage.sandbox.script(Script::on(Endpoint::Discovery, hostile).once());
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/{DISCOVERY}", stage.sandbox.region_url(Region::Europe));
    assert_eq!(stage.get(&url, &access).await.text(), r#"{"APIs":[]}"#);
    assert_eq!(stage.get(&url, &access).await.text_at("/APIs/0/Domain"), "http://169.254.169.254");
}

#[tokio::test]
async fn a_lost_token_response_has_rotated_the_token_all_the_same() {
    let stage = Stage::with_habits(Habits { rotate_refresh: true, ..Habits::default() }).await;
    let before = stage.sandbox.grant(CLINIC).unwrap();
    stage.sandbox.script(Script::on(Endpoint::Refresh, Fault::LostTokenResponse).once());
    let client = stage.sandbox.client(Platform::New);
    let body = format!(
        "grant_type=refresh_token&refresh_token={before}&client_id={}&client_secret={}",
        client.id, client.secret
    );
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(stage.raw(Place::Identity(Platform::New), &request, usize::MAX).await, "");
    assert!(!stage.sandbox.refresh_tokens(CLINIC).contains(&before));
    assert_eq!(stage.refresh(Platform::New, &before).await.status, 401);
}

#[tokio::test]
async fn junk_tokens_leave_the_real_one_alone() {
    let stage = Stage::with_habits(Habits { rotate_refresh: true, ..Habits::default() }).await;
    let token = stage.sandbox.grant(CLINIC).unwrap();
    for junk in [
        Junk::NoAccessToken,
        Junk::AccessTokenIsNull,
        Junk::AccessTokenIsNumber,
        Junk::EmptyAccessToken,
        Junk::LineBreakInAccessToken,
        Junk::LineBreakInRefreshToken,
        Junk::AccessTokenOfLength(9000),
        Junk::ExpiresIn(serde_json::json!(-1)),
        Junk::HalfOfTheJson,
        Junk::Huge(2 << 20),
        Junk::GzipBomb(64 << 20),
    ] {
        stage.sandbox.script(Script::on(Endpoint::Refresh, Fault::JunkToken(junk.clone())).once());
        let response = stage.refresh(Platform::New, &token).await;
        assert_eq!(response.status, 200, "{junk:?}");
        match junk {
            Junk::GzipBomb(_) => assert!(response.inner.body().len() < 1 << 20),
            Junk::Huge(size) => assert_eq!(response.inner.body().len() as u64 / 1024, size / 1024),
            _ => {}
        }
    }
    assert_eq!(stage.refresh(Platform::New, &token).await.status, 200);
}

#[tokio::test]
async fn a_late_response_waits_for_the_clock_and_a_held_one_for_its_gate() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    let late = Fault::DelayedThenNormal(Duration::from_secs(5));
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, late).once());
    let move_on = async {
        stage.clock.until_sleeping(1).await;
        stage.clock.advance(Duration::from_secs(5));
    };
    let (response, ()) = tokio::join!(stage.get(&url, &access), move_on);
    assert_eq!(response.status, 200);
    let gate = Gate::new();
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, Fault::HeldBy(gate.clone())).once());
    let open = async {
        gate.until_waiting(1).await;
        assert_eq!(stage.sandbox.calls().last().unwrap().end, End::Pending);
        gate.open();
    };
    let (response, ()) = tokio::join!(stage.get(&url, &access), open);
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn a_stall_ends_with_its_time_and_a_caller_that_leaves_is_noticed() {
    let stage = Stage::new().await;
    let move_on = async {
        stage.clock.until_sleeping(1).await;
        stage.clock.advance(Duration::from_secs(30));
    };
    let (stalled, ()) = tokio::join!(spoiled(&stage, Fault::Stalls(Duration::from_secs(30)), 1), move_on);
    assert_eq!(stalled, "");
    for fault in [Fault::StallsForever, Fault::StallsAfterHead] {
        stage.sandbox.clear_calls();
        let until = if matches!(fault, Fault::StallsForever) { 0 } else { 1 };
        let began = spoiled(&stage, fault.clone(), until).await;
        assert_eq!(began.is_empty(), until == 0, "{fault:?}");
        stage.sandbox.until_calls(1, |call| call.end == End::HungUp).await;
    }
}

#[tokio::test]
async fn a_slow_response_comes_at_its_pace() {
    let stage = Stage::new().await;
    let slow = Fault::Slow { bytes_per_sec: 1000 };
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, slow).once());
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    let began = stage.clock.now();
    let response = stage.get(&url, &access);
    let move_on = async {
        loop {
            stage.clock.until_sleeping(1).await;
            stage.clock.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    let response = tokio::select! { response = response => response, () = move_on => unreachable!() };
    let length = response.inner.body().len() as u64;
    assert!(stage.clock.now().since(began) >= Duration::from_millis(length));
}

#[tokio::test]
async fn a_connection_that_closes_after_a_response_says_nothing_of_it() {
    let stage = Stage::new().await;
    stage.sandbox.script(Script::on(Endpoint::OrdersPractice, Fault::ClosesAfterResponse).once());
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let request = format!(
        "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {access}\r\n\r\n"
    );
    let response = stage.raw(EUROPE, &request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 200 ") && !response.contains("Connection: close"));
}

#[tokio::test]
async fn a_place_that_is_down_refuses_and_comes_back_where_it_was() {
    let stage = Stage::new().await;
    let access = stage.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", stage.sandbox.region_url(Region::Europe));
    let request = || {
        let request = http::Request::get(&url).header("authorization", format!("Bearer {access}"));
        request.body(Full::default()).unwrap()
    };
    stage.sandbox.take_down(EUROPE).await;
    assert!(stage.sandbox.send(request()).await.is_err());
    stage.sandbox.bring_up(EUROPE).await.unwrap();
    assert_eq!(stage.send(request()).await.status, 200);
}

#[tokio::test]
async fn a_response_can_come_before_the_body_has() {
    let stage = Stage::new().await;
    stage.sandbox.script(Script::on(Endpoint::ScanRequest, Fault::AnswersBeforeBody(401)).once());
    let request =
        "POST /itero-gen-api/v2/scan-request HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000000\r\n\r\n{";
    let response = stage.raw(EUROPE, request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 401 ") && response.contains("Connection: close"), "{response}");
    let call = stage.sandbox.calls_to(Endpoint::ScanRequest).remove(0);
    assert_eq!((call.status, call.body_length), (Some(401), 0));
}
