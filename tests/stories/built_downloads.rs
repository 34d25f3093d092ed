//! Applications that build a download's address by hand, which the platform asks them not to: they are served
//! through the link of the order, and operators see who they are.

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, LinkForm};
use http::Method;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, Response, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

async fn with_tickets(form: LinkForm) -> TestBed {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| (behavior.download_ticket, behavior.link_form) = (true, form))
        .start()
        .await;
    bed.sandbox.set_asset_bytes(CLINIC, 3000);
    bed
}

fn built(order: u64, asset: &str) -> String {
    format!("/itero-gen-api/v2/order/{order}/download/{asset}")
}

/// How many of the caller's downloads were built by hand: by link, by path, and as the caller's number.
async fn counted(bed: &TestBed) -> (f64, f64, u64) {
    let series = |served: &str| format!("genapi_gateway_built_downloads_total{{served=\"{served}\"}}");
    let callers = bed.look("/api/callers").await.json();
    let number = callers[0]["built_downloads"].as_u64().unwrap();
    (bed.metric(&series("link")).await, bed.metric(&series("path")).await, number)
}

fn is_asset(bed: &TestBed, response: &Response, order: u64, asset: &str) -> bool {
    let expected = bed.sandbox.asset(order, asset).unwrap();
    response.status == 200 && response.body.len() as u64 == expected.length
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_built_by_hand_is_served_through_the_link_of_its_order_in_every_form() {
    for form in [LinkForm::Absolute, LinkForm::Relative, LinkForm::JsonEscaped] {
        let bed = with_tickets(form).await;
        let orders = bed.sandbox.order_ids(CLINIC);
        // Before any list there is no link to go by: as the platform answers it.
        assert_eq!(bed.get(CLINIC_NAME, &built(orders[0], "IDE")).await.status, 404, "{form:?}");
        assert_eq!(counted(&bed).await, (0.0, 0.0, 0), "spelled like a link of ours, and none was seen");
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        for path in [
            built(orders[0], "IDE"),
            format!("/order/{}/download/IDE", orders[0]),
            format!("/lab-sw/v1/order/{}/download/ide", orders[0]),
        ] {
            let response = bed.get(CLINIC_NAME, &path).await;
            assert!(is_asset(&bed, &response, orders[0], "IDE"), "{form:?} {path}: {}", response.status);
        }
        let other = bed.get(CLINIC_NAME, &built(orders[1], "IMAGE_GALLERY")).await;
        assert!(is_asset(&bed, &other, orders[1], "IMAGE_GALLERY"), "{form:?}");
        let head = bed.call(Method::HEAD, CLINIC_NAME, &built(orders[1], "IDE"), "").await;
        assert_eq!((head.status, head.header("content-length")), (200, "3000"));
        // A body is never left behind, nor sent where nobody asked for it.
        let body = bed.call(Method::GET, CLINIC_NAME, &built(orders[1], "IDE"), "GET / HTTP/1.1").await;
        assert_eq!(body.status, 404, "as the platform answers the address itself");
        assert_eq!(bed.sandbox.calls_to(Endpoint::Download).pop().unwrap().body, "GET / HTTP/1.1");
        bed.get(CLINIC_NAME, LIST).await;
        assert!(is_asset(&bed, &bed.get(CLINIC_NAME, &built(orders[1], "IDE")).await, orders[1], "IDE"));
        // Whoever follows the link, ticket and all, builds nothing; nor does another account see it.
        let last = bed.sandbox.calls_to(Endpoint::Download).pop().unwrap();
        assert!(last.target().contains("ticket="), "{}", last.target());
        let followed = bed.get(CLINIC_NAME, last.target()).await;
        assert!(is_asset(&bed, &followed, orders[1], "IDE"));
        assert_eq!(bed.get(LAB_NAME, &built(orders[0], "IDE")).await.status, 404);
        assert_eq!(counted(&bed).await, (6.0, 0.0, 6), "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_link_that_differs_it_goes_to_domain_and_path_and_shows_who_builds() {
    let bed = TestBed::new().await;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    bed.get(CLINIC_NAME, LIST).await;
    for (path, by_path) in [
        (built(order, "IDE"), 0.0),
        (format!("/order/{order}/download/IDE"), 1.0),
        (format!("/lab-sw/v1/order/{order}/download/IDE"), 2.0),
        (built(order, "IMAGE_GALLERY"), 2.0),
    ] {
        assert_eq!(bed.get(CLINIC_NAME, &path).await.status, 200, "{path}");
        assert_eq!(bed.sandbox.calls_to(Endpoint::Download).pop().unwrap().target(), {
            let asset = path.rsplit('/').next().unwrap();
            built(order, asset)
        });
        assert_eq!(counted(&bed).await, (0.0, by_path, by_path as u64), "{path}");
    }
    // By the account's id, too: no link of ours is spelled so.
    assert_eq!(bed.get(&CLINIC.to_string(), &built(order, "IDE")).await.status, 200);
    assert_eq!(counted(&bed).await, (0.0, 3.0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_the_platform_knows_no_more_is_forgotten_and_the_built_address_tried() {
    let bed = with_tickets(LinkForm::Absolute).await;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    bed.get(CLINIC_NAME, LIST).await;
    // From now on any address does, and the one with a ticket is refused.
    bed.sandbox.set_behavior(|behavior| behavior.download_ticket = false);
    bed.sandbox.inject(FaultRule::on(Endpoint::Download, Fault::Status(404)).once());
    assert_eq!(bed.get(CLINIC_NAME, &built(order, "IDE")).await.status, 200);
    let targets: Vec<String> =
        bed.sandbox.calls_to(Endpoint::Download).iter().map(|call| call.target().to_owned()).collect();
    assert!(targets[0].contains("?ticket=") && targets[1] == built(order, "IDE"), "{targets:?}");
    assert_eq!(bed.get(CLINIC_NAME, &built(order, "IDE")).await.status, 200);
    assert_eq!(bed.sandbox.calls_to(Endpoint::Download).len(), 3, "the link is not tried again");
}
