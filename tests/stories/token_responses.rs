//! Token responses as no document prints them: whatever carries a sound access token is used, and no refresh
//! token that came is lost.

use std::time::Duration;

use genapi_gateway::sandbox::{
    AccountSpec, BodyEncoding, CustomResponse, Endpoint, Fault, FaultRule, ResponseQuirks,
};
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, TestBed, TestBedBuilder};

const LIST: &str = "/orders/practice";
const MINUTE: Duration = Duration::from_secs(60);

async fn get(bed: &TestBed) -> Response {
    bed.while_time_flies(Duration::from_millis(100), bed.get(CLINIC_NAME, LIST)).await
}

async fn count(bed: &TestBed, event: &str) -> usize {
    bed.journal(CLINIC_NAME).await.iter().filter(|line| *line == event).count()
}

fn odd_responses() -> Vec<ResponseQuirks> {
    let mut all: Vec<ResponseQuirks> =
        [json!("BearerToken"), json!(7), json!(["Bearer"]), json!({}), json!("")]
            .map(|value| ResponseQuirks::field("token_type", value))
            .into();
    all.extend(
        [json!(0), json!(-1), json!(""), json!("soon"), json!(true), json!([3600]), json!(1e300)]
            .map(|value| ResponseQuirks::field("expires_in", value)),
    );
    let raw = |members: &str| ResponseQuirks {
        raw_members: Some(members.to_owned()),
        without: vec!["expires_in".to_owned()],
        ..ResponseQuirks::default()
    };
    all.extend([raw("\"expires_in\":NaN"), raw("\"expires_in\":1e999"), raw("\"expires_in\":,")]);
    all.extend(
        [BodyEncoding::Gzip, BodyEncoding::Deflate, BodyEncoding::RawDeflate, BodyEncoding::GzipByNameOnly]
            .map(|packing| ResponseQuirks { packed: Some(packing), ..ResponseQuirks::default() }),
    );
    all.extend(["", "text/html", "text/plain; charset=iso-8859-1"].map(|content_type| ResponseQuirks {
        content_type: Some(content_type.to_owned()),
        ..ResponseQuirks::default()
    }));
    all.extend(
        [201, 202, 203].map(|status| ResponseQuirks { status: Some(status), ..ResponseQuirks::default() }),
    );
    all.extend([
        ResponseQuirks { inside: Some("OAuthResponse".to_owned()), ..ResponseQuirks::default() },
        ResponseQuirks { before: "\u{feff}".to_owned(), ..ResponseQuirks::default() },
        ResponseQuirks { behind: "\r\n<!-- served by web07 -->".to_owned(), ..ResponseQuirks::default() },
        ResponseQuirks { utf16: true, ..ResponseQuirks::default() },
    ]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_token_response_serves_its_caller_and_keeps_the_rotated_refresh_token() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    for (number, odd) in odd_responses().into_iter().enumerate() {
        bed.sandbox.inject(
            FaultRule::on(Endpoint::Refresh, Fault::OddTokenResponse(odd.clone())).for_account(CLINIC),
        );
        bed.sandbox.expire_access(CLINIC);
        assert_eq!(get(&bed).await.status, 200, "{odd:?}");
        assert_eq!(count(&bed, "token_answer_odd").await, number + 1, "{odd:?}");
        bed.sandbox.clear_fault_rules();
        // What came is what the next renewal is made with: with rotation nothing else would do.
        bed.clock.advance(2 * MINUTE);
        bed.sandbox.expire_access(CLINIC);
        assert_eq!(get(&bed).await.status, 200, "after {odd:?}");
        bed.clock.advance(2 * MINUTE);
    }
    assert_eq!(count(&bed, "needs_login").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_refresh_token_leaves_the_one_at_hand() {
    let bed = TestBed::new().await;
    let unusable: [Value; 7] = [
        json!(""),
        json!(" "),
        json!(null),
        json!(17),
        json!(["r"]),
        json!("one\r\ntwo"),
        json!("schl\u{fc}ssel"),
    ];
    for value in unusable {
        let fault = Fault::OddTokenResponse(ResponseQuirks::field("refresh_token", value.clone()));
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, fault).for_account(CLINIC).once());
        for _ in 0..2 {
            bed.sandbox.expire_access(CLINIC);
            assert_eq!(get(&bed).await.status, 200, "{value}");
            bed.clock.advance(2 * MINUTE);
        }
    }
}

/// What other programs say where a token endpoint should.
fn speakers() -> Vec<CustomResponse> {
    let page = |status| CustomResponse {
        status,
        body: "<html><title>Blocked</title>invalid_grant</html>".to_owned(),
        content_type: Some("text/html".to_owned()),
        ..CustomResponse::default()
    };
    let json = |status, body: &str| CustomResponse {
        status,
        body: body.to_owned(),
        content_type: Some("application/json".to_owned()),
        ..CustomResponse::default()
    };
    let bare = |status| CustomResponse { status, ..CustomResponse::default() };
    let challenge = |status| CustomResponse {
        www_authenticate: Some("Basic realm=\"proxy\"".to_owned()),
        ..bare(status)
    };
    vec![
        page(200),
        page(400),
        page(401),
        page(403),
        bare(400),
        bare(403),
        bare(404),
        challenge(401),
        challenge(407),
        CustomResponse { via: Some("1.1 firewall".to_owned()), ..bare(401) },
        json(400, r#"{"error":"invalid_request"}"#),
        json(401, r#"{"message":"Unauthorized"}"#),
        json(429, r#"{"error":"slow_down"}"#),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_else_speaks_at_the_token_endpoint_costs_no_account_its_login() {
    let bed = TestBed::new().await;
    for speaker in speakers() {
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Speaks(speaker.clone())));
        bed.sandbox.inject(FaultRule::on(Endpoint::Exchange, Fault::Speaks(speaker.clone())));
        for _ in 0..3 {
            bed.sandbox.expire_access(CLINIC);
            let response = get(&bed).await;
            assert!([401, 503].contains(&response.status), "{speaker:?}: {}", response.text());
            bed.clock.advance(2 * MINUTE);
        }
        assert_eq!(bed.account(CLINIC_NAME).await["state"], "ready", "{speaker:?}");
        bed.sandbox.clear_fault_rules();
        let mut healed = false;
        for _ in 0..10 {
            healed |= get(&bed).await.status == 200;
            bed.clock.advance(Duration::from_secs(6));
        }
        assert!(healed, "{speaker:?}");
        assert_eq!(bed.get(LAB_NAME, "/orders/lab").await.status, 200, "{speaker:?}");
    }
    assert_eq!(count(&bed, "needs_login").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oauth_word_blames_the_grant_at_whatever_status() {
    for status in [200, 400, 401, 403, 500] {
        let bed = TestBed::new().await;
        let body = r#"{"error":"invalid_grant"}"#.to_owned();
        let fault = Fault::Speaks(CustomResponse { status, body, ..CustomResponse::default() });
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, fault).for_account(CLINIC));
        bed.sandbox.expire_access(CLINIC);
        let response = get(&bed).await;
        assert_eq!((response.status, response.code().as_str()), (401, "account_needs_login"), "{status}");
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "{status}: and nobody asks again");
    }
}

/// Time goes by while nobody calls.
async fn pass(bed: &TestBed, seconds: u64) {
    for _ in 0..seconds {
        bed.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const THIRD: u64 = 1003;
const ACCOUNTS: [(u64, &str); 3] =
    [(CLINIC, "/orders/practice"), (LAB, "/orders/lab"), (THIRD, "/orders/practice")];

async fn three() -> TestBed {
    TestBedBuilder::new().account(AccountSpec::clinic(THIRD, "Third")).start().await
}

async fn call_all(bed: &TestBed) -> Vec<u16> {
    let mut responses = Vec::new();
    for (id, path) in ACCOUNTS {
        bed.sandbox.expire_access(id);
        let name = format!("acct-{id}");
        let call = bed.get(&name, path);
        responses.push(bed.while_time_flies(Duration::from_millis(100), call).await.status);
    }
    responses
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_a_realm_is_over_a_minute_after_its_end_although_nobody_calls() {
    let bed = three().await;
    let page =
        CustomResponse { status: 400, body: "<html>Blocked</html>".to_owned(), ..CustomResponse::default() };
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Speaks(page)));
    let responses = call_all(&bed).await;
    assert!(!responses.contains(&200), "{responses:?}");
    let trouble = "genapi_gateway_realm_trouble{realm=\"global\",kind=\"unavailable\"}";
    assert_eq!(bed.metric(trouble).await, 1.0);
    pass(&bed, 300).await;
    bed.sandbox.clear_fault_rules();
    pass(&bed, 60).await;
    assert_eq!(bed.metric(trouble).await, 0.0);
    bed.sandbox.clear_calls();
    for (id, path) in ACCOUNTS {
        assert_eq!(bed.get(&format!("acct-{id}"), path).await.status, 200, "{id}");
    }
    assert!(bed.sandbox.calls_to(Endpoint::Refresh).is_empty(), "renewed before anybody asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_asks_for_twenty_seconds_gets_them() {
    let bed = three().await;
    let busy =
        CustomResponse { status: 503, retry_after: Some("20".to_owned()), ..CustomResponse::default() };
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Speaks(busy)).once());
    let responses = call_all(&bed).await;
    assert!(!responses.contains(&200), "{responses:?}");
    assert_eq!(bed.sandbox.calls_to(Endpoint::Refresh).len(), 1);
    pass(&bed, 40).await;
    for (id, path) in ACCOUNTS {
        assert_eq!(bed.get(&format!("acct-{id}"), path).await.status, 200, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_are_all_refused_for_a_moment_cost_no_login() {
    let bed = three().await;
    let body = r#"{"error":"invalid_grant"}"#.to_owned();
    let refusal = CustomResponse { status: 400, body, ..CustomResponse::default() };
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Speaks(refusal)));
    let responses = call_all(&bed).await;
    assert!(!responses.contains(&200), "{responses:?}");
    bed.sandbox.clear_fault_rules();
    pass(&bed, 180).await;
    for (id, path) in ACCOUNTS {
        assert_eq!(bed.get(&format!("acct-{id}"), path).await.status, 200, "{id}");
        assert_eq!(bed.account(&format!("acct-{id}")).await["state"], "ready", "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_beside_an_unusable_access_token_is_not_lost_with_rotation() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    for access in [json!(null), json!(5), json!(""), json!("one\r\ntwo"), json!("x".repeat(20_000))] {
        let fault = Fault::OddTokenResponse(ResponseQuirks::field("access_token", access.clone()));
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, fault).for_account(CLINIC).once());
        bed.sandbox.expire_access(CLINIC);
        get(&bed).await;
        pass(&bed, 70).await;
        assert_eq!(get(&bed).await.status, 200, "{access}");
        bed.clock.advance(2 * MINUTE);
    }
    assert_eq!(count(&bed, "needs_login").await, 0);
    assert_eq!(count(&bed, "refresh_token_kept").await, 5);
}
