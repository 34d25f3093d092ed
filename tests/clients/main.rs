//! Unmodified HTTP clients cannot tell the gateway from the platform: each kind makes the same calls directly
//! and through the gateway, and gets the same status, body and end-to-end fields (links aside), while the
//! platform gets the same requests.
//!
//! Each test starts two sandboxes that are alike, and a gateway in front of the second, from the real binary.

mod kind;
mod plain;
mod plan;
mod request;
mod response;
mod test_bed;

use kind::Kind;
use test_bed::{PlatformBehavior, TestBed};

/// Runs one kind of client on both ways, against a plain platform and against one with every habit that the
/// documents leave open.
fn gets_the_same(kind: &Kind) {
    kind.is_installed();
    for behavior in [PlatformBehavior::Documented, PlatformBehavior::Adverse] {
        let bed = TestBed::start(behavior);
        let direct = kind.run(&bed, &bed.direct);
        let through = kind.run(&bed, &bed.through);
        let mut differences = response::compare(&bed, &direct, &through);
        differences.extend(request::compare(&bed, kind));
        differences.extend(kind.connections(&bed, &direct, &through));
        assert!(
            differences.is_empty(),
            "{}, {behavior:?}:\n{}\n{}",
            kind.name,
            differences.join("\n"),
            bed.gateway_log()
        );
    }
}

macro_rules! kinds {
    ($($test:ident => $kind:ident,)*) => {$(
        #[test]
        fn $test() {
            gets_the_same(&kind::$kind);
        }
    )*};
}

kinds! {
    curl_gets_the_same => CURL,
    curl_that_speaks_http_1_0_gets_the_same => CURL_10,
    curl_that_uploads_in_chunks_gets_the_same => CURL_CHUNKED,
    curl_that_waits_for_100_continue_gets_the_same => CURL_EXPECT,
    curl_that_offers_http_2_gets_the_same => CURL_H2C,
    curl_that_accepts_compression_gets_the_same => CURL_COMPRESSED,
    wget_gets_the_same => WGET,
    python_urllib_gets_the_same => URLLIB,
    python_http_client_gets_the_same => HTTP_CLIENT,
    java_url_connection_gets_the_same => URL_CONNECTION,
    java_http_client_gets_the_same => JAVA_CLIENT,
    node_http_gets_the_same => NODE_HTTP,
    node_fetch_gets_the_same => NODE_FETCH,
    perl_http_tiny_gets_the_same => HTTP_TINY,
    perl_lwp_gets_the_same => LWP,
    php_streams_get_the_same => PHP_STREAMS,
    php_curl_gets_the_same => PHP_CURL,
    netcat_gets_the_same => NETCAT,
    a_program_that_keeps_its_connection_gets_the_same => RAW_KEEP_ALIVE,
    a_program_that_sends_line_by_line_gets_the_same => RAW_DRIBBLE,
    a_program_that_keeps_http_1_0_alive_gets_the_same => RAW_10_KEEP_ALIVE,
    a_program_that_sends_absolute_targets_gets_the_same => RAW_ABSOLUTE,
}
