//! Callers and accounts that ask for too much get an honest refusal; the others do not feel it.

use std::time::Duration;

use futures_util::future::join_all;
use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, Gate};
use http::Method;

use crate::test_bed::{CLINIC_NAME, LAB_NAME, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_rate_gets_429_and_is_let_through_after_the_wait_it_was_told() {
    let bed = TestBedBuilder::new()
        .config("accounts = [\"*\"]", "accounts = [\"*\"]\nlimit = { per_second = 1, burst = 3 }")
        .append("\n[[callers]]\nname = \"other\"\naccounts = [\"*\"]\nkey_sha256 = \"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"\n")
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    }
    let refused = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_requests"));
    assert_eq!(refused.header("retry-after"), "1");
    let other =
        bed.bare(Method::GET, &format!("/accounts/{CLINIC_NAME}{LIST}")).header("X-Gateway-Key", "foo");
    assert_eq!(bed.send(other).await.status, 200, "another caller has its own measure");
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_too_many_calls_at_once_does_not_hold_up_another() {
    let bed = TestBedBuilder::new()
        .config("[gateway]", "[gateway]\naccount_limit = { max_concurrent = 2 }")
        .start()
        .await;
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::HeldBy(gate.clone())).times(2));
    let held = join_all((0..2).map(|_| bed.get(CLINIC_NAME, LIST)));
    let meanwhile = async {
        gate.until_waiting(2).await;
        let refused = bed.get(CLINIC_NAME, LIST).await;
        let other = bed.get(LAB_NAME, "/itero-gen-api/v2/orders/lab").await;
        gate.open();
        (refused.status, other.status)
    };
    let (held, meanwhile) = tokio::join!(held, meanwhile);
    assert_eq!(meanwhile, (429, 200));
    assert!(held.iter().all(|response| response.status == 200));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "places are given back");
}
