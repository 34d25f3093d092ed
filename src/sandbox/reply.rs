//! A response before it is on the wire, and its head as bytes.

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;

use super::assets::Asset;
use crate::clock::Timestamp;

/// On every response of a sandbox: whoever sends load or tries things out can tell it from the real platform.
pub const MARK: (&str, &str) = ("X-Sandbox", "genapi-gateway");

/// A response: status, headers and content, without its framing.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: ReplyContent,
}

/// The body of a response.
#[derive(Debug)]
pub enum ReplyContent {
    Bytes(Bytes),
    Asset {
        asset: Asset,
        range: Range<u64>,
        /// The order whose download this is.
        order: Option<u64>,
    },
}

impl ReplyContent {
    pub fn length(&self) -> u64 {
        match self {
            ReplyContent::Bytes(bytes) => bytes.len() as u64,
            ReplyContent::Asset { range, .. } => range.end - range.start,
        }
    }
}

impl Reply {
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ReplyContent::Bytes(Bytes::new()) }
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::json_text(status, value.to_string())
    }

    /// For JSON whose exact spelling matters.
    pub fn json_text(status: u16, text: String) -> Self {
        Self::typed(status, "application/json; charset=utf-8", text)
    }

    pub fn html(status: u16, text: String) -> Self {
        Self::typed(status, "text/html; charset=utf-8", text).with("Cache-Control", "no-store")
    }

    /// An error in the manner of the API hosts.
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"Message": message, "Errors": [message]}))
    }

    /// An error in the manner of the identity host (RFC 6749, 5.2).
    pub fn oauth_error(status: u16, error: &str, description: &str) -> Self {
        Self::json(status, &json!({"error": error, "error_description": description}))
    }

    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::empty(status).with("Location", location)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn typed(status: u16, content_type: &str, text: String) -> Self {
        let body = ReplyContent::Bytes(Bytes::from(text));
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body }
    }

    pub fn is_json(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| *name == "Content-Type" && value.starts_with("application/json"))
    }

    /// The head up to and without the framing fields and the last blank line.
    pub fn open_head(&self, now: Timestamp) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let reason = http::StatusCode::from_u16(self.status).ok().and_then(|code| code.canonical_reason());
        // Writing to a Vec cannot fail.
        let _ = write!(head, "HTTP/1.1 {} {}\r\nDate: ", self.status, reason.unwrap_or("Unknown"));
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        head.extend_from_slice(httpdate::fmt_http_date(now).as_bytes());
        let _ = write!(head, "\r\n{}: {}\r\n", MARK.0, MARK.1);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head
    }
}
