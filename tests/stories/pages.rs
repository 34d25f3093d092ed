//! Web pages as callers: listed by a caller and with its key, or not at all.

use crate::path::key_line;
use crate::test_bed::{CLINIC_NAME, TestBed, TestBedBuilder};

fn callers() -> String {
    format!(
        "\n[[callers]]\nname = \"viewer\"\naccounts = [\"{CLINIC_NAME}\"]\norigins = [\"file://\", \"https://viewer.test\"]\n{}",
        key_line("key-of-viewer")
    )
}

async fn call(bed: &TestBed, head: &str) -> crate::wire::Raw {
    crate::wire::exchange(&bed.gateway, format!("{}\r\nHost: a\r\n\r\n", head.replace('\n', "\r\n"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_page_with_the_key_is_let_in_and_may_read_its_responses() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    for origin in ["file://", "https://viewer.test"] {
        let asked = call(
            &bed,
            &format!(
                "OPTIONS /orders/practice HTTP/1.1\nOrigin: {origin}\nAccess-Control-Request-Method: GET\n\
                 Access-Control-Request-Headers: x-gateway-key\nAccess-Control-Request-Private-Network: true"
            ),
        )
        .await;
        assert_eq!((asked.status(), asked.header("access-control-allow-origin")), (204, Some(origin)));
        assert_eq!(asked.header("access-control-allow-private-network"), Some("true"));
        assert!(bed.sandbox.calls().is_empty(), "the platform is not asked");
        let response = call(
            &bed,
            &format!("GET /itero-gen-api/v2/orders/practice HTTP/1.1\nOrigin: {origin}\nX-Gateway-Key: key-of-viewer"),
        )
        .await;
        assert_eq!(response.status(), 200, "{}", response.text());
        assert_eq!(response.all("access-control-allow-origin"), [origin]);
        assert_eq!(bed.sandbox.calls().pop().unwrap().header("origin"), None);
        let refused = call(
            &bed,
            &format!("GET /accounts/none/orders HTTP/1.1\nOrigin: {origin}\nX-Gateway-Key: key-of-viewer"),
        )
        .await;
        assert_eq!((refused.status(), refused.header("access-control-allow-origin")), (403, Some(origin)));
        bed.sandbox.clear_calls();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_page_is_let_in_nor_learns_anything() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    for head in [
        "GET /orders/practice HTTP/1.1\nOrigin: https://evil.test\nX-Gateway-Key: key-of-viewer",
        "GET /orders/practice HTTP/1.1\nOrigin: https://viewer.test.evil.test\nX-Gateway-Key: key-of-viewer",
        "GET /orders/practice HTTP/1.1\nOrigin: null\nX-Gateway-Key: key-of-viewer",
        "GET /orders/practice HTTP/1.1\nOrigin: file://",
        "GET /orders/practice HTTP/1.1\nOrigin: file://\nX-Gateway-Key: wrong",
        "GET /orders/practice HTTP/1.1\nOrigin: file://\nAuthorization: Bearer key-of-viewer",
        "OPTIONS /orders/practice HTTP/1.1\nOrigin: https://evil.test\nAccess-Control-Request-Method: GET",
        "OPTIONS /orders/practice HTTP/1.1\nOrigin: file://",
    ] {
        let response = call(&bed, head).await;
        assert_eq!(response.status_line, "HTTP/1.1 403 origin_refused", "{head}");
        assert!(response.header("access-control-allow-origin").is_none(), "{head}");
    }
    assert!(bed.sandbox.calls().is_empty());
}
