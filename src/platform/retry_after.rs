//! `Retry-After` (RFC 9110, 10.2.3), in seconds or as a date, within bounds: a slip of the platform must not
//! stop renewals for a day.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use httpdate::parse_http_date;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// `None` where nothing readable is asked. A date counts from the response's own `Date`, since our clock may
/// go differently; without one nobody can tell how long it is.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match asked.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => seconds,
        Ok(_) => return None,
        Err(_) => {
            let now = parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
            parse_http_date(asked).ok()?.duration_since(now).unwrap_or_default().as_secs_f64()
        }
    };
    let longest = LONGEST.as_secs_f64();
    Some(Duration::from_secs_f64(seconds.min(longest)).clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(after: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::from_iter([(RETRY_AFTER, after.parse().unwrap())]);
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_read_within_bounds() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (after, seconds) in [
            ("20", Some(20)),
            (" 20 ", Some(20)),
            ("1.5", Some(1)),
            ("0", Some(1)),
            ("86400", Some(300)),
            ("1e300", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(300)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(1)),
            ("-5", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(asked(after, date), seconds, "{after}");
        }
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", None), None);
    }
}
