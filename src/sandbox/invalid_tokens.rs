//! Token responses with status 200 that nobody should believe.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::faults::InvalidTokens;
use super::reply::{Reply, ReplyContent};

pub fn response(invalid_tokens: &InvalidTokens) -> Reply {
    let mut good = json!({
        "access_token": "eyJ.junk.access", "refresh_token": "11111111-2222-4333-8444-555555555555",
        "scope": "openid", "token_type": "Bearer", "expires_in": 3600,
    });
    match invalid_tokens {
        InvalidTokens::NoAccessToken => {
            good.as_object_mut().map(|fields| fields.remove("access_token"));
        }
        InvalidTokens::AccessTokenIsNull => good["access_token"] = Value::Null,
        InvalidTokens::AccessTokenIsNumber => good["access_token"] = json!(12345),
        InvalidTokens::EmptyAccessToken => good["access_token"] = json!(""),
        InvalidTokens::LineBreakInAccessToken => good["access_token"] = json!("eyJ.one\r\nX-Injected: yes"),
        InvalidTokens::LineBreakInRefreshToken => good["refresh_token"] = json!("one\r\ntwo"),
        InvalidTokens::AccessTokenOfLength(length) => good["access_token"] = json!("a".repeat(*length)),
        InvalidTokens::ExpiresIn(value) => good["expires_in"] = value.clone(),
        InvalidTokens::HalfOfTheJson => {
            let text = good.to_string();
            return Reply::json_text(200, text[..text.len() / 2].to_owned());
        }
        InvalidTokens::Huge(size) => {
            let size = usize::try_from(*size).unwrap_or(usize::MAX);
            let padding = size.saturating_sub(good.to_string().len());
            good["padding"] = json!("x".repeat(padding));
        }
        InvalidTokens::GzipBomb(size) => return bomb(&good, *size),
    }
    Reply::json(200, &good)
}

fn bomb(good: &Value, size: u64) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let text = good.to_string();
    let block = [b'x'; 16 * 1024];
    let mut remaining = size;
    // Writing into memory cannot fail.
    let _ = encoder.write_all(&text.as_bytes()[..text.len() - 1]);
    let _ = encoder.write_all(b",\"padding\":\"");
    while remaining > 0 {
        let take = remaining.min(block.len() as u64);
        let _ = encoder.write_all(&block[..take as usize]);
        remaining -= take;
    }
    let _ = encoder.write_all(b"\"}");
    let mut reply = Reply::json(200, &Value::Null).with("Content-Encoding", "gzip");
    reply.body = ReplyContent::Bytes(Bytes::from(encoder.finish().unwrap_or_default()));
    reply
}
