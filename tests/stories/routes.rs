//! Discovery names a route: it is proven before any call moves there, and a real move is followed.

use std::time::Duration;

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, HostRole, Region};
use serde_json::Value;

use crate::test_bed::{CLINIC, CLINIC_NAME, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const PATH: &str = "/itero-gen-api/v2";

fn names(domain: &str, path: &str) -> Fault {
    Fault::Discovers { domain: domain.to_owned(), path: path.to_owned() }
}

async fn count(bed: &TestBed, event: &str) -> usize {
    bed.journal(CLINIC_NAME).await.iter().filter(|line| *line == event).count()
}

/// The account's token dies, and its next call has it renewed and its route asked for.
async fn renewed_call(bed: &TestBed) -> u16 {
    bed.sandbox.expire_access(CLINIC);
    bed.while_time_flies(Duration::from_millis(200), bed.get(CLINIC_NAME, LIST)).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_address_that_is_no_api_is_not_used_and_is_forgotten_when_discovery_comes_to_its_senses() {
    let bed = TestBed::new().await;
    let route = bed.account(CLINIC_NAME).await["route"].clone();
    let region = HostRole::Region(Region::NorthAmerica);
    let wrong = [
        names("http://127.0.0.1:1", PATH),
        names(&bed.sandbox.storage_url(), PATH),
        names(route.as_str().unwrap().strip_suffix(PATH).unwrap(), "/itero-gen-api/v9"),
        names(route.as_str().unwrap().strip_suffix(PATH).unwrap(), ""),
        names(route.as_str().unwrap().strip_suffix(PATH).unwrap(), "/"),
    ];
    for fault in wrong {
        bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault.clone()).on_host(region));
        for _ in 0..2 {
            assert_eq!(renewed_call(&bed).await, 200, "{fault:?}");
            assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "{fault:?}");
            assert_eq!(bed.account(CLINIC_NAME).await["route"], route, "{fault:?}");
        }
        bed.sandbox.clear_fault_rules();
        bed.operate(&format!("/discover?pattern={CLINIC_NAME}"), Value::Null).await;
        assert_eq!(bed.account(CLINIC_NAME).await["candidate"], Value::Null, "{fault:?}");
    }
    assert_eq!(count(&bed, "route_changed").await, 1, "first found, and never moved");
    let bed = bed.restart().await;
    assert_eq!(bed.account(CLINIC_NAME).await["route"], route);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_says_which_route_discovery_names_and_why_it_is_not_used() {
    let bed = TestBed::new().await;
    let fault = names("http://127.0.0.1:1", PATH);
    bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault));
    assert_eq!(renewed_call(&bed).await, 200);
    let settled = async {
        while bed.account(CLINIC_NAME).await["candidate"] == Value::Null {
            tokio::task::yield_now().await;
        }
    };
    settled.await;
    let shown = bed.account(CLINIC_NAME).await;
    assert_eq!(shown["candidate"]["route"], "http://127.0.0.1:1/itero-gen-api/v2");
    assert_ne!(shown["route"], shown["candidate"]["route"]);
    assert_eq!(count(&bed, "route_not_proven").await, 1);
    let done = bed.operate(&format!("/discover?pattern={CLINIC_NAME}"), Value::Null).await.lines().remove(0);
    assert_eq!(done["ok"], false);
    assert!(done["detail"].as_str().unwrap().contains("stays in use"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_followed_where_the_platform_serves_no_discovery_there() {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| {
            behavior.discovery_at_domain = false;
            behavior.wrong_region_status = behavior.expiry_status;
        })
        .start()
        .await;
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    bed.sandbox.move_region(CLINIC, Region::AsiaPacific);
    assert_eq!(renewed_call(&bed).await, 200);
    let moved = async {
        while count(&bed, "route_changed").await < 2 {
            assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        }
    };
    moved.await;
    let last = bed.sandbox.calls_to(Endpoint::OrdersPractice).pop().unwrap();
    assert_eq!(last.role, HostRole::Region(Region::AsiaPacific));
    let route = bed.account(CLINIC_NAME).await["route"].clone();
    let bed = bed.restart().await;
    assert_eq!(bed.account(CLINIC_NAME).await["route"], route, "what a call has proven is stored");
}
