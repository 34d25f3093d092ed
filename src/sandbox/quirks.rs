//! Token responses that are right and oddly written: the call is carried out, its tokens are good, and
//! something around them is not as the documents print it. Good clients use them.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reply::{Reply, ReplyContent};

/// What differs from the documented response; by default nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseQuirks {
    /// Put over the fields of the token object.
    pub fields: Map<String, Value>,
    /// Left out of it.
    pub without: Vec<String>,
    /// Members as they are to be spelled, put in front of the others: `"expires_in":NaN`.
    pub raw_members: Option<String>,
    /// The whole object becomes this member of another one.
    pub inside: Option<String>,
    pub before: String,
    pub behind: String,
    pub utf16: bool,
    pub packed: Option<BodyEncoding>,
    pub status: Option<u16>,
    /// Empty: none at all.
    pub content_type: Option<String>,
}

/// How a body is compressed, or is said to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyEncoding {
    Gzip,
    /// In zlib's format.
    Deflate,
    RawDeflate,
    /// The field says gzip and the body is plain.
    GzipByNameOnly,
}

impl ResponseQuirks {
    /// One field that is not as documented.
    pub fn field(name: &str, value: Value) -> Self {
        Self { fields: Map::from_iter([(name.to_owned(), value)]), ..Self::default() }
    }

    /// An error response stays as it is.
    pub fn applied_to(&self, mut reply: Reply) -> Reply {
        let ReplyContent::Bytes(bytes) = &reply.body else { return reply };
        let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return reply };
        if reply.status != 200 {
            return reply;
        }
        let tokens = match value.pointer_mut("/Data/OAuthResponse") {
            Some(tokens) => tokens,
            None => &mut value,
        };
        if let Some(tokens) = tokens.as_object_mut() {
            tokens.retain(|name, _| !self.without.contains(name));
            tokens.extend(self.fields.clone());
        }
        if let Some(name) = &self.inside {
            value = Value::Object(Map::from_iter([(name.clone(), value)]));
        }
        reply.body = ReplyContent::Bytes(Bytes::from(self.written(&value)));
        reply.status = self.status.unwrap_or(reply.status);
        if let Some(content_type) = &self.content_type {
            reply.headers.retain(|(name, _)| *name != "Content-Type");
            if !content_type.is_empty() {
                reply = reply.with("Content-Type", content_type.clone());
            }
        }
        match self.packed {
            Some(BodyEncoding::Gzip | BodyEncoding::GzipByNameOnly) => reply.with("Content-Encoding", "gzip"),
            Some(BodyEncoding::Deflate | BodyEncoding::RawDeflate) => {
                reply.with("Content-Encoding", "deflate")
            }
            None => reply,
        }
    }

    fn written(&self, value: &Value) -> Vec<u8> {
        let mut text = value.to_string();
        if let Some(members) = &self.raw_members {
            text = text.replacen('{', &format!("{{{members},"), 1);
        }
        let text = format!("{}{text}{}", self.before, self.behind);
        let bytes = if self.utf16 {
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        } else {
            text.into_bytes()
        };
        // Writing into memory cannot fail.
        let packed = match self.packed {
            Some(BodyEncoding::Gzip) => {
                packed(GzEncoder::new(Vec::new(), Compression::fast()), &bytes, GzEncoder::finish)
            }
            Some(BodyEncoding::Deflate) => {
                packed(ZlibEncoder::new(Vec::new(), Compression::fast()), &bytes, ZlibEncoder::finish)
            }
            Some(BodyEncoding::RawDeflate) => {
                packed(DeflateEncoder::new(Vec::new(), Compression::fast()), &bytes, DeflateEncoder::finish)
            }
            Some(BodyEncoding::GzipByNameOnly) | None => return bytes,
        };
        packed.unwrap_or_default()
    }
}

fn packed<W: Write>(
    mut packer: W,
    bytes: &[u8],
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> std::io::Result<Vec<u8>> {
    packer.write_all(bytes)?;
    finish(packer)
}

/// A response of somebody in front of the token endpoint, or of the endpoint itself: whatever it is to say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustomResponse {
    pub status: u16,
    pub body: String,
    /// None: not a word about it.
    pub content_type: Option<String>,
    pub retry_after: Option<String>,
    pub www_authenticate: Option<String>,
    pub via: Option<String>,
}

impl CustomResponse {
    pub fn reply(&self) -> Reply {
        let mut reply = Reply::empty(self.status);
        reply.body = ReplyContent::Bytes(Bytes::from(self.body.clone()));
        let fields = [
            ("Content-Type", &self.content_type),
            ("Retry-After", &self.retry_after),
            ("WWW-Authenticate", &self.www_authenticate),
            ("Via", &self.via),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                reply = reply.with(name, value.clone());
            }
        }
        reply
    }
}
