//! Formats one line of the access log. By hand, since formatting is most of what a line costs, and each
//! worker does it between two calls.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use crate::config::LogFormat;
use crate::telemetry::ACCESS_LOG;

use super::LogEntry;
use crate::gateway::refusal::RefusalCode;

/// Puts a record's line at the end of `out`.
pub fn write(entry: &LogEntry, format: LogFormat, out: &mut Vec<u8>) {
    let mut text = EntryFormatter { format, out };
    text.begin(UNIX_EPOCH + Duration::from_millis(entry.at.time_of_day().as_millis()) + entry.request);
    text.number("at_ms", entry.at.time_of_day().as_millis());
    text.text("caller", entry.caller.as_ref().map(|caller| caller.name.as_str()));
    text.text("account", entry.account.as_ref().map(|name| name.as_str()));
    text.text("realm", entry.realm.as_ref().map(|name| name.as_str()));
    if let Some(id) = entry.account_id {
        text.number("account_id", id.as_u64());
    }
    text.text("method", Some(method_word(&entry.method)));
    text.text("endpoint", Some(entry.endpoint.name));
    text.key("path");
    text.template(entry.endpoint.template);
    text.number("status", entry.status.into());
    text.text("refusal", entry.refusal.map(RefusalCode::as_str));
    text.number("attempts", entry.attempts.into());
    text.number("renewals", entry.renewals.into());
    text.seconds("request_seconds", entry.request);
    text.seconds("platform_seconds", entry.platform);
    text.number("bytes", entry.bytes);
    text.number("links", entry.links);
    text.boolean("complete", entry.complete);
    // The name of `complete` before 0.2; it goes with 1.0.
    text.boolean("whole", entry.complete);
    text.text("request_id", Some(entry.request_id.to_str().unwrap_or_default()));
    text.end();
}

/// A line that is being written.
struct EntryFormatter<'o> {
    format: LogFormat,
    out: &'o mut Vec<u8>,
}

impl EntryFormatter<'_> {
    fn begin(&mut self, at: std::time::SystemTime) {
        let at = humantime::format_rfc3339_micros(at);
        // Writing into memory cannot fail.
        let _ = match self.format {
            LogFormat::Json => {
                write!(self.out, "{{\"timestamp\":\"{at}\",\"level\":\"INFO\",\"message\":\"call\"")
            }
            LogFormat::Text => write!(self.out, "{at}  INFO {ACCESS_LOG}: call"),
        };
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn end(&mut self) {
        if self.format == LogFormat::Json {
            self.text("target", Some(ACCESS_LOG));
            self.out.push(b'}');
        }
        self.out.push(b'\n');
    }

    fn key(&mut self, key: &str) {
        let (before, behind): (&[u8], &[u8]) = match self.format {
            LogFormat::Json => (b",\"", b"\":"),
            LogFormat::Text => (b" ", b"="),
        };
        for part in [before, key.as_bytes(), behind] {
            self.out.extend_from_slice(part);
        }
    }

    /// What is absent is left out.
    fn text(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.key(key);
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.bytes().all(plain) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            // Both formats can do with JSON's way of quoting.
            drop(serde_json::to_writer(&mut *self.out, value));
        }
    }

    fn template(&mut self, template: &[&str]) {
        self.out.push(b'"');
        for segment in template {
            self.out.push(b'/');
            self.out.extend_from_slice(segment.as_bytes());
        }
        self.out.push(b'"');
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.digits(value);
    }

    fn seconds(&mut self, key: &str, value: Duration) {
        self.key(key);
        self.digits(value.as_secs());
        self.out.push(b'.');
        let micros = value.subsec_micros();
        self.out.extend((0..6).rev().map(|place| b'0' + (micros / 10u32.pow(place) % 10) as u8));
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// A method that somebody made up may be as long as a head, and hold anything.
fn method_word(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    if known.contains(method) { method.as_str() } else { "other" }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::clock::Timestamp;

    fn entry() -> LogEntry {
        let mut entry = LogEntry::begin(
            Timestamp::from_millis(1_795_259_483_018),
            HeaderValue::from_static("01ec26afa23954a1-1"),
            Method::GET,
        );
        entry.account = Some("smile-berlin".parse().unwrap());
        entry.status = 200;
        entry.attempts = 1;
        entry.request = Duration::from_micros(41_205);
        entry.platform = Duration::from_secs(3);
        entry.complete = true;
        entry
    }

    fn written(entry: &LogEntry, format: LogFormat) -> String {
        let mut out = Vec::new();
        write(entry, format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_reads_like_this() {
        let json = r#"{"timestamp":"2026-11-21T11:11:23.059205Z","level":"INFO","message":"call","at_ms":1795259483018,"account":"smile-berlin","method":"GET","endpoint":"other","path":"/**","status":200,"attempts":1,"renewals":0,"request_seconds":0.041205,"platform_seconds":3.000000,"bytes":0,"links":0,"complete":true,"whole":true,"request_id":"01ec26afa23954a1-1","target":"genapi_gateway::access_log"}"#;
        assert_eq!(written(&entry(), LogFormat::Json), format!("{json}\n"));
        let text = written(&entry(), LogFormat::Text);
        assert!(text.starts_with(
            r#"2026-11-21T11:11:23.059205Z  INFO genapi_gateway::access_log: call at_ms=1795259483018 account="smile-berlin" method="GET""#
        ));
        assert!(text.ends_with("complete=true whole=true request_id=\"01ec26afa23954a1-1\"\n"));
    }

    #[test]
    fn what_a_line_quotes_cannot_break_out_of_it() {
        let odd = "a\"b\\c\nd\u{7f}ä";
        let quoted = |format| {
            let mut out = Vec::new();
            EntryFormatter { format, out: &mut out }.text("key", Some(odd));
            String::from_utf8(out).unwrap()
        };
        let json = quoted(LogFormat::Json);
        assert_eq!(json.lines().count(), 1);
        assert_eq!(json.strip_prefix(",\"key\":").map(serde_json::from_str::<String>).unwrap().unwrap(), odd);
        let text = quoted(LogFormat::Text);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(text.strip_prefix(" key=").map(serde_json::from_str::<String>).unwrap().unwrap(), odd);
    }

    #[test]
    fn a_method_that_somebody_made_up_is_logged_as_other() {
        let mut entry = entry();
        entry.method = "M\u{7c}X".parse().unwrap();
        let read: serde_json::Value = serde_json::from_str(&written(&entry, LogFormat::Json)).unwrap();
        assert_eq!(read["method"], "other");
    }
}
