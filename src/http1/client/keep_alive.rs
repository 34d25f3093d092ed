//! Whether a connection goes on after a response, and for how long it may be idle.

use std::time::Duration;

use http::Version;

use crate::http1::parse::{BodyDecoder, Headers, KnownHeader, ResponseHead};

/// The longest that a connection may be idle: below the 60 s after which many balancers drop one.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(55);

/// Whether the connection may serve another exchange after this one (RFC 9112, 9.3).
pub(super) fn persists(head: &ResponseHead, body: &BodyDecoder) -> bool {
    let says = |word| head.headers.has_token(KnownHeader::Connection, word);
    let open = head.version == Version::HTTP_11 || says(b"keep-alive");
    open && !says(b"close") && !matches!(body, BodyDecoder::UntilClose { .. })
}

/// How long the connection may lie idle by the platform's own word, less what a request needs to get there in
/// time.
pub(super) fn max_idle(headers: &Headers) -> Duration {
    if !headers.has(KnownHeader::KeepAlive) {
        return MAX_IDLE;
    }
    let timeout = headers.tokens(KnownHeader::KeepAlive).find_map(|word| {
        let (name, value) = word.split_at(word.iter().position(|byte| *byte == b'=')?);
        let digits = std::str::from_utf8(&value[1..]).ok()?.trim().trim_matches('"');
        let seconds = name.trim_ascii().eq_ignore_ascii_case(b"timeout").then(|| digits.parse().ok())??;
        Some(Duration::from_secs(seconds))
    });
    timeout.map_or(MAX_IDLE, |timeout| MAX_IDLE.min(timeout - IN_TIME.min(timeout / 2)))
}

/// What a request may take to get to the platform.
const IN_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_heeded_with_a_margin() {
        for (says, millis) in [
            ("timeout=5, max=100", 4_000),
            ("max=100,Timeout=5", 4_000),
            ("timeout=\"20\"", 19_000),
            ("timeout = 1", 500),
            ("timeout=0", 0),
            ("timeout=600", 55_000),
            ("timeout=99999999999999999999", 55_000),
            ("timeout=-1", 55_000),
            ("timeout", 55_000),
            ("", 55_000),
        ] {
            let headers = Headers::from_pairs([("Keep-Alive", says)]).unwrap();
            assert_eq!(max_idle(&headers), Duration::from_millis(millis), "{says}");
        }
    }
}
