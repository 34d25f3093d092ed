//! Writes responses to the wire: complete and correct, or spoiled in the way that a fault asks for.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::behavior::DownloadedWhen;
use super::context::VirtualHost;
use super::faults::Fault;
use super::peer_stream::PeerStream;
use super::record::CallEnd;
use super::reply::{Reply, ReplyContent};
use super::request::SandboxRequest;

/// Pieces in which assets go out; large enough to be cheap, small enough for back-pressure.
const CHUNK: usize = 64 * 1024;
/// An endless head is ended all the same, should nobody have disconnected by then.
const ENDLESS: usize = 256 * 1024 * 1024;

/// How it went, and whether the connection can be used again.
pub struct Delivered {
    pub status: Option<u16>,
    pub end: CallEnd,
    pub keep: bool,
}

impl Delivered {
    fn cut(status: Option<u16>) -> Self {
        Self { status, end: CallEnd::Cut, keep: false }
    }

    fn gone(status: Option<u16>) -> Self {
        Self { status, end: CallEnd::PeerClosed, keep: false }
    }
}

/// What shapes a response besides the reply itself.
#[derive(Clone, Copy)]
struct ResponseShape {
    keep_alive: bool,
    /// HEAD, 204 and 304 have none, whatever Content-Length says.
    bodiless: bool,
    chunk: Option<usize>,
    bytes_per_sec: Option<u32>,
}

/// Writes `reply`, spoiled by `fault`.
pub async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    request: &SandboxRequest,
    reply: Reply,
    fault: Option<&Fault>,
) -> Delivered {
    let status = Some(reply.status);
    let written = match fault {
        Some(fault) => spoiled(peer, host, request, reply, fault).await,
        None => intact(peer, host, request, reply).await,
    };
    written.unwrap_or(Delivered::gone(status))
}

async fn intact<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    request: &SandboxRequest,
    reply: Reply,
) -> io::Result<Delivered> {
    let shape = shape_of(host, request, &reply);
    send(peer, host, &reply, shape).await?;
    Ok(Delivered { status: Some(reply.status), end: CallEnd::Complete, keep: shape.keep_alive })
}

fn shape_of(host: &VirtualHost, request: &SandboxRequest, reply: &Reply) -> ResponseShape {
    let json = reply.is_json() && reply.body.length() > 0;
    ResponseShape {
        keep_alive: request.keep_alive,
        bodiless: request.method() == "HEAD" || matches!(reply.status, 204 | 304),
        chunk: host.behavior().chunked_json.filter(|size| json && *size > 0 && request.may_chunk),
        bytes_per_sec: None,
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    reply: &Reply,
    shape: ResponseShape,
) -> io::Result<()> {
    let mut head = reply.open_head(host.now());
    match shape.chunk {
        Some(_) => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // A 304 would have to say the length of the 200 (RFC 9110, 8.6).
        None if matches!(reply.status, 204 | 304) => {}
        None => head.extend_from_slice(format!("Content-Length: {}\r\n", reply.body.length()).as_bytes()),
    }
    if !shape.keep_alive {
        head.extend_from_slice(b"Connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    match &reply.body {
        _ if shape.bodiless => peer.write(&head).await,
        ReplyContent::Bytes(bytes) => send_bytes(peer, host, head, bytes, shape).await,
        ReplyContent::Asset { .. } => {
            peer.write(&head).await?;
            send_asset(peer, host, &reply.body, u64::MAX, shape).await
        }
    }
}

async fn send_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    mut head: Vec<u8>,
    bytes: &Bytes,
    shape: ResponseShape,
) -> io::Result<()> {
    if let Some(size) = shape.chunk {
        for chunk in bytes.chunks(size) {
            head.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            head.extend_from_slice(chunk);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"0\r\n\r\n");
        return peer.write(&head).await;
    }
    if let Some(rate) = shape.bytes_per_sec {
        peer.write(&head).await?;
        for chunk in bytes.chunks(slow_chunk(rate)) {
            slow_pause(peer, host, chunk.len(), rate).await?;
            peer.write(chunk).await?;
        }
        return Ok(());
    }
    head.extend_from_slice(bytes);
    peer.write(&head).await
}

/// At most `limit` bytes of it.
async fn send_asset<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    body: &ReplyContent,
    limit: u64,
    shape: ResponseShape,
) -> io::Result<()> {
    let ReplyContent::Asset { asset, range, order } = body else { return Ok(()) };
    let end = range.end.min(range.start.saturating_add(limit));
    let mut chunk = vec![0; shape.bytes_per_sec.map_or(CHUNK, slow_chunk)];
    let mut offset = range.start;
    if let Some(order) = order {
        host.on_download_progress(*order, DownloadedWhen::FirstDownloadByte);
    }
    while offset < end {
        let take = usize::try_from(end - offset).unwrap_or(usize::MAX).min(chunk.len());
        asset.fill(offset, &mut chunk[..take]);
        if let Some(rate) = shape.bytes_per_sec {
            slow_pause(peer, host, take, rate).await?;
        }
        offset += take as u64;
        match order {
            Some(order) if offset == asset.length => {
                // Recorded before the last byte is out: whoever has it all may ask for the list at once.
                peer.write(&chunk[..take - 1]).await?;
                host.on_download_progress(*order, DownloadedWhen::FullDownload);
                peer.write(&chunk[take - 1..take]).await?;
            }
            _ => peer.write(&chunk[..take]).await?,
        }
    }
    Ok(())
}

/// Ten chunks a second.
fn slow_chunk(bytes_per_sec: u32) -> usize {
    (bytes_per_sec / 10).max(1) as usize
}

async fn slow_pause<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    bytes: usize,
    bytes_per_sec: u32,
) -> io::Result<()> {
    let pause = Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_sec.max(1)));
    if peer.wait_while_connected(host.clock().sleep(pause)).await {
        Ok(())
    } else {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

async fn spoiled<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    request: &SandboxRequest,
    reply: Reply,
    fault: &Fault,
) -> io::Result<Delivered> {
    let status = Some(reply.status);
    match fault {
        Fault::Stalls(pause) => {
            if peer.wait_while_connected(host.clock().sleep(*pause)).await {
                Ok(Delivered::cut(None))
            } else {
                Ok(Delivered::gone(None))
            }
        }
        Fault::StallsForever => {
            peer.wait_while_connected(std::future::pending()).await;
            Ok(Delivered::gone(None))
        }
        Fault::DropsBeforeHead | Fault::LostTokenResponse => Ok(Delivered::cut(None)),
        Fault::StallsAfterHead => {
            send_half(peer, host, &reply).await?;
            peer.wait_while_connected(std::future::pending()).await;
            Ok(Delivered::gone(status))
        }
        Fault::DropsMidBody => {
            send_half(peer, host, &reply).await?;
            Ok(Delivered::cut(status))
        }
        Fault::ClosesAfterResponse => {
            let shape = ResponseShape { keep_alive: true, ..shape_of(host, request, &reply) };
            send(peer, host, &reply, shape).await?;
            Ok(Delivered { status, end: CallEnd::Complete, keep: false })
        }
        Fault::Slow { bytes_per_sec } => {
            let shape = ResponseShape {
                bytes_per_sec: Some(*bytes_per_sec),
                chunk: None,
                ..shape_of(host, request, &reply)
            };
            send(peer, host, &reply, shape).await?;
            Ok(Delivered { status, end: CallEnd::Complete, keep: shape.keep_alive })
        }
        Fault::Garbage => {
            peer.write(b"\x16\x03\x01\x00not http at all\xff\xfe\r\n\r\n").await?;
            Ok(Delivered::cut(None))
        }
        Fault::EndlessHead => endless_head(peer).await,
        _ => {
            let bytes = misframed(host, &reply, fault);
            peer.write(&bytes).await?;
            // The connection stays open: stray bytes hurt whoever uses it for the next call.
            let keep = request.keep_alive && !matches!(fault, Fault::Unsolicited101);
            Ok(Delivered { status, end: CallEnd::Complete, keep })
        }
    }
}

async fn send_half<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut PeerStream<S>,
    host: &VirtualHost,
    reply: &Reply,
) -> io::Result<()> {
    let mut bytes = reply.open_head(host.now());
    // An empty response promises something too, or there would be nothing to miss.
    let length = reply.body.length().max(2);
    bytes.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
    if let ReplyContent::Bytes(body) = &reply.body {
        bytes.extend_from_slice(&body[..body.len() / 2]);
    }
    peer.write(&bytes).await?;
    let shape = ResponseShape { keep_alive: false, bodiless: false, chunk: None, bytes_per_sec: None };
    send_asset(peer, host, &reply.body, length / 2, shape).await
}

async fn endless_head<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut PeerStream<S>) -> io::Result<Delivered> {
    peer.write(b"HTTP/1.1 200 OK\r\n").await?;
    let line = b"X-Endless: and so on and so on and so on and so on\r\n";
    let block = line.repeat(CHUNK / line.len());
    for _ in 0..ENDLESS / block.len() {
        peer.write(&block).await?;
    }
    Ok(Delivered::cut(None))
}

/// Responses whose framing lies. All of them are small; an asset is stood in for by its first bytes.
fn misframed(host: &VirtualHost, reply: &Reply, fault: &Fault) -> Vec<u8> {
    let body = match &reply.body {
        ReplyContent::Bytes(bytes) => bytes.to_vec(),
        ReplyContent::Asset { asset, range, .. } => {
            asset.bytes(range.start..range.end.min(range.start + 4096))
        }
    };
    let length = body.len();
    let status = match fault {
        Fault::BodyAfter204 => 204,
        Fault::BodyAfter304 => 304,
        _ => reply.status,
    };
    let head = Reply { status, headers: reply.headers.clone(), body: ReplyContent::Bytes(Bytes::new()) };
    let mut bytes = head.open_head(host.now());
    let framing = match fault {
        Fault::TwoLengths => format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 7),
        Fault::LengthAndChunked => format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        Fault::Unsolicited101 => {
            bytes =
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sandbox\r\nConnection: upgrade\r\n".to_vec();
            String::new()
        }
        _ => format!("Content-Length: {length}\r\n"),
    };
    bytes.extend_from_slice(framing.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    match fault {
        Fault::LengthAndChunked => {
            bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        _ => bytes.extend_from_slice(&body),
    }
    if matches!(fault, Fault::BytesAfterBody) {
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"stray\":\"other\"}");
    }
    bytes
}
