//! Each kind of trouble does what its name says.

use std::time::Duration;

use super::*;
use crate::sandbox::{CallEnd, Endpoint, Fault, FaultRule, Gate, InvalidTokens};

const EUROPE: HostRole = HostRole::Region(Region::Europe);

/// The bytes that an order list gets under a fault.
async fn spoiled(fixture: &Fixture, fault: Fault, until: usize) -> String {
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, fault).once());
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let request = format!(
        "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {access}\r\nConnection: close\r\n\r\n"
    );
    fixture.raw(EUROPE, &request, until).await
}

#[tokio::test]
async fn statuses_come_as_often_as_ordered_and_then_the_right_response() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(504)).times(2));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(fixture.get(&url, &access).await.status);
    }
    assert_eq!(statuses, [504, 504, 200]);
    assert!(fixture.sandbox.fault_rules().is_empty());
}

#[tokio::test]
async fn a_call_can_take_effect_and_look_failed() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/scan-request", fixture.sandbox.region_url(Region::Europe));
    fixture.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, Fault::Status(504)).once().carried_out());
    assert_eq!(fixture.call("POST", &url, &access, "{}").await.status, 504);
    assert_eq!(fixture.sandbox.creations(CLINIC), 1);
    fixture.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, Fault::Status(504)).once());
    assert_eq!(fixture.call("POST", &url, &access, "{}").await.status, 504);
    assert_eq!(fixture.sandbox.creations(CLINIC), 1);
}

#[tokio::test]
async fn drops_come_before_the_head_or_within_the_body() {
    let fixture = Fixture::new().await;
    assert_eq!(spoiled(&fixture, Fault::DropsBeforeHead, usize::MAX).await, "");
    let cut = spoiled(&fixture, Fault::DropsMidBody, usize::MAX).await;
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    let promised = head.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap();
    assert!(!body.is_empty() && body.len() < promised.parse().unwrap());
    let ends: Vec<CallEnd> = fixture.sandbox.calls().iter().map(|call| call.end).collect();
    assert_eq!(ends, [CallEnd::Cut, CallEnd::Cut]);
}

#[tokio::test]
async fn framing_lies_are_told_as_ordered() {
    let fixture = Fixture::new().await;
    let lengths = spoiled(&fixture, Fault::TwoLengths, usize::MAX).await;
    assert_eq!(lengths.matches("Content-Length").count(), 2);
    let both = spoiled(&fixture, Fault::LengthAndChunked, usize::MAX).await;
    assert!(both.contains("Content-Length") && both.contains("Transfer-Encoding: chunked"));
    let stray = spoiled(&fixture, Fault::BytesAfterBody, usize::MAX).await;
    assert_eq!(stray.matches("HTTP/1.1 200").count(), 2);
    let bodied = spoiled(&fixture, Fault::BodyAfter204, usize::MAX).await;
    assert!(bodied.starts_with("HTTP/1.1 204 ") && bodied.contains("RxId"));
    let bodied = spoiled(&fixture, Fault::BodyAfter304, usize::MAX).await;
    assert!(bodied.starts_with("HTTP/1.1 304 ") && bodied.contains("RxId"));
    let switching = spoiled(&fixture, Fault::Unsolicited101, usize::MAX).await;
    assert!(switching.starts_with("HTTP/1.1 101 "));
    let garbage = spoiled(&fixture, Fault::Garbage, usize::MAX).await;
    assert!(!garbage.starts_with("HTTP/"));
    let endless = spoiled(&fixture, Fault::EndlessHead, 1 << 20).await;
    assert!(endless.len() >= 1 << 20 && !endless.contains("\r\n\r\n"));
}

#[tokio::test]
async fn wrong_shapes_come_as_ordered() {
    let fixture = Fixture::new().await;
    let html = spoiled(&fixture, Fault::HtmlInstead, usize::MAX).await;
    assert!(html.starts_with("HTTP/1.1 200 ") && html.contains("text/html"));
    let location = "https://evil.test/".to_owned();
    let redirect = spoiled(&fixture, Fault::Redirects { status: 307, location }, usize::MAX).await;
    assert!(redirect.starts_with("HTTP/1.1 307 ") && redirect.contains("Location: https://evil.test/"));
    let failed = spoiled(&fixture, Fault::FailsInside200("no licence".to_owned()), usize::MAX).await;
    assert!(failed.contains("\"Failure\"") && failed.contains("no licence"));
    let quirks = spoiled(&fixture, Fault::Responds { status: 200, body: "[1".to_owned() }, usize::MAX).await;
    assert!(quirks.ends_with("\r\n\r\n[1"));
    fixture.sandbox.inject(FaultRule::on(Endpoint::Discovery, Fault::EmptyArray).once());
    let hostile = Fault::Discovers { domain: "http://169.254.169.254".to_owned(), path: "//x".to_owned() };
    fixture.sandbox.inject(FaultRule::on(Endpoint::Discovery, hostile).once());
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/{DISCOVERY}", fixture.sandbox.region_url(Region::Europe));
    assert_eq!(fixture.get(&url, &access).await.text(), r#"{"APIs":[]}"#);
    assert_eq!(fixture.get(&url, &access).await.text_at("/APIs/0/Domain"), "http://169.254.169.254");
}

#[tokio::test]
async fn a_lost_token_response_has_rotated_the_token_all_the_same() {
    let fixture = Fixture::with_behavior(Behavior { rotate_refresh: true, ..Behavior::default() }).await;
    let before = fixture.sandbox.grant(CLINIC).unwrap();
    fixture.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::LostTokenResponse).once());
    let client = fixture.sandbox.client(Platform::New);
    let body = format!(
        "grant_type=refresh_token&refresh_token={before}&client_id={}&client_secret={}",
        client.id, client.secret
    );
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(fixture.raw(HostRole::Identity(Platform::New), &request, usize::MAX).await, "");
    assert!(!fixture.sandbox.refresh_tokens(CLINIC).contains(&before));
    assert_eq!(fixture.refresh(Platform::New, &before).await.status, 401);
}

#[tokio::test]
async fn junk_tokens_leave_the_real_one_alone() {
    let fixture = Fixture::with_behavior(Behavior { rotate_refresh: true, ..Behavior::default() }).await;
    let token = fixture.sandbox.grant(CLINIC).unwrap();
    for invalid_tokens in [
        InvalidTokens::NoAccessToken,
        InvalidTokens::AccessTokenIsNull,
        InvalidTokens::AccessTokenIsNumber,
        InvalidTokens::EmptyAccessToken,
        InvalidTokens::LineBreakInAccessToken,
        InvalidTokens::LineBreakInRefreshToken,
        InvalidTokens::AccessTokenOfLength(9000),
        InvalidTokens::ExpiresIn(serde_json::json!(-1)),
        InvalidTokens::HalfOfTheJson,
        InvalidTokens::Huge(2 << 20),
        InvalidTokens::GzipBomb(64 << 20),
    ] {
        fixture
            .sandbox
            .inject(FaultRule::on(Endpoint::Refresh, Fault::JunkToken(invalid_tokens.clone())).once());
        let response = fixture.refresh(Platform::New, &token).await;
        assert_eq!(response.status, 200, "{invalid_tokens:?}");
        match invalid_tokens {
            InvalidTokens::GzipBomb(_) => assert!(response.inner.body().len() < 1 << 20),
            InvalidTokens::Huge(size) => assert_eq!(response.inner.body().len() as u64 / 1024, size / 1024),
            _ => {}
        }
    }
    assert_eq!(fixture.refresh(Platform::New, &token).await.status, 200);
}

#[tokio::test]
async fn a_late_response_waits_for_the_clock_and_a_held_one_for_its_gate() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    let late = Fault::DelayedThenNormal(Duration::from_secs(5));
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, late).once());
    let move_on = async {
        fixture.clock.until_sleeping(1).await;
        fixture.clock.advance(Duration::from_secs(5));
    };
    let (response, ()) = tokio::join!(fixture.get(&url, &access), move_on);
    assert_eq!(response.status, 200);
    let gate = Gate::new();
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::HeldBy(gate.clone())).once());
    let open = async {
        gate.until_waiting(1).await;
        assert_eq!(fixture.sandbox.calls().last().unwrap().end, CallEnd::Pending);
        gate.open();
    };
    let (response, ()) = tokio::join!(fixture.get(&url, &access), open);
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn a_stall_ends_with_its_time_and_a_caller_that_leaves_is_noticed() {
    let fixture = Fixture::new().await;
    let move_on = async {
        fixture.clock.until_sleeping(1).await;
        fixture.clock.advance(Duration::from_secs(30));
    };
    let (stalled, ()) = tokio::join!(spoiled(&fixture, Fault::Stalls(Duration::from_secs(30)), 1), move_on);
    assert_eq!(stalled, "");
    for fault in [Fault::StallsForever, Fault::StallsAfterHead] {
        fixture.sandbox.clear_calls();
        let until = if matches!(fault, Fault::StallsForever) { 0 } else { 1 };
        let began = spoiled(&fixture, fault.clone(), until).await;
        assert_eq!(began.is_empty(), until == 0, "{fault:?}");
        fixture.sandbox.until_calls(1, |call| call.end == CallEnd::PeerClosed).await;
    }
}

#[tokio::test]
async fn a_slow_response_comes_at_its_pace() {
    let fixture = Fixture::new().await;
    let slow = Fault::Slow { bytes_per_sec: 1000 };
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, slow).once());
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    let began = fixture.clock.now();
    let response = fixture.get(&url, &access);
    let move_on = async {
        loop {
            fixture.clock.until_sleeping(1).await;
            fixture.clock.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    let response = tokio::select! { response = response => response, () = move_on => unreachable!() };
    let length = response.inner.body().len() as u64;
    assert!(fixture.clock.now().since(began) >= Duration::from_millis(length));
}

#[tokio::test]
async fn a_connection_that_closes_after_a_response_says_nothing_of_it() {
    let fixture = Fixture::new().await;
    fixture.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::ClosesAfterResponse).once());
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let request = format!(
        "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {access}\r\n\r\n"
    );
    let response = fixture.raw(EUROPE, &request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 200 ") && !response.contains("Connection: close"));
}

#[tokio::test]
async fn a_place_that_is_down_refuses_and_comes_back_where_it_was() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    let request = || {
        let request = http::Request::get(&url).header("authorization", format!("Bearer {access}"));
        request.body(Full::default()).unwrap()
    };
    fixture.sandbox.take_down(EUROPE).await;
    assert!(fixture.sandbox.send(request()).await.is_err());
    fixture.sandbox.bring_up(EUROPE).await.unwrap();
    assert_eq!(fixture.send(request()).await.status, 200);
}

#[tokio::test]
async fn a_response_can_come_before_the_body_has() {
    let fixture = Fixture::new().await;
    fixture.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, Fault::RespondsBeforeBody(401)).once());
    let request =
        "POST /itero-gen-api/v2/scan-request HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000000\r\n\r\n{";
    let response = fixture.raw(EUROPE, request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 401 ") && response.contains("Connection: close"), "{response}");
    let call = fixture.sandbox.calls_to(Endpoint::ScanRequest).remove(0);
    assert_eq!((call.status, call.body_length), (Some(401), 0));
}
