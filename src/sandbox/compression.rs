//! Compresses a reply where the behaviour and the request ask for it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::behavior::Behavior;
use super::reply::{Reply, ReplyContent};
use super::request::SandboxRequest;

/// The reply, with gzip where it is JSON and either the request takes it or the behaviour does not ask.
pub fn compressed(reply: Reply, request: &SandboxRequest, behavior: &Behavior) -> Reply {
    let accepts = request.header("accept-encoding").is_some_and(|accepted| accepted.contains("gzip"));
    let wanted = behavior.gzip_unasked || (behavior.gzip_json && accepts);
    let ReplyContent::Bytes(bytes) = &reply.body else { return reply };
    if !wanted || !reply.is_json() {
        return reply;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(bytes);
    let body = ReplyContent::Bytes(Bytes::from(encoder.finish().unwrap_or_default()));
    Reply { body, ..reply }.with("Content-Encoding", "gzip").with("Vary", "Accept-Encoding")
}
