//! Buffers the caller's body so that the call can be retried, or streams it once where it is larger. Bodies
//! go out framed as they came in, and trailers are dropped.

use std::cell::RefCell;
use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::http1::RequestBody;
use crate::http1::client::{OutgoingBody, StreamedBody};

use super::headers::OutboundFraming;
use crate::gateway::refusal::Refusal;

/// A caller's body on our side.
pub enum ReplayableBody {
    Empty,
    Buffered {
        bytes: Bytes,
        framing: OutboundFraming,
    },
    /// Too large to keep: it can be sent once.
    Streamed {
        stream: RefCell<Option<StreamedBody>>,
        framing: OutboundFraming,
    },
}

/// Whether there is anything to wait for.
pub enum BufferState {
    Ready(ReplayableBody),
    Incomplete(BufferingBody),
}

/// A body that is to be kept and has not come yet.
pub struct BufferingBody {
    body: RequestBody,
    framing: OutboundFraming,
    limit: usize,
}

/// No body, no cost; a body announced as larger than `limit` is not touched.
pub fn buffer(mut body: RequestBody, framing: OutboundFraming, limit: usize) -> BufferState {
    if body.has_ended() {
        // A chunked body of nothing is one all the same: it goes out as it came.
        return BufferState::Ready(match framing {
            OutboundFraming::AsReceived | OutboundFraming::Length(_) => ReplayableBody::Empty,
            OutboundFraming::Chunked => ReplayableBody::Buffered { bytes: Bytes::new(), framing },
        });
    }
    match body.remaining() {
        Some(length) if length > limit as u64 => {
            BufferState::Ready(ReplayableBody::streamed(None, body, framing))
        }
        // Small bodies come with their heads.
        _ => match body.take_if_complete() {
            Some(bytes) => BufferState::Ready(ReplayableBody::Buffered { bytes, framing }),
            None => BufferState::Incomplete(BufferingBody { body, framing, limit }),
        },
    }
}

impl BufferingBody {
    /// Reads up to the limit, waiting at most `idle` for each chunk.
    pub async fn read(self, idle: Duration) -> Result<ReplayableBody, Refusal> {
        let BufferingBody { mut body, framing, limit } = self;
        let announced = body.remaining();
        let mut buffered = Buffered::default();
        loop {
            let chunk = tokio::time::timeout(idle, next_chunk(&mut body));
            let chunk = chunk.await.map_err(|_| Refusal::RequestTimeout)?;
            let Some(chunk) = chunk? else {
                return Ok(ReplayableBody::Buffered { bytes: buffered.into_bytes(), framing });
            };
            buffered.add(chunk, announced);
            if buffered.len() > limit {
                return Ok(ReplayableBody::streamed(Some(buffered.into_bytes()), body, framing));
            }
        }
    }
}

/// Most bodies come in one chunk, which is then kept as it is.
#[derive(Default)]
struct Buffered {
    first: Option<Bytes>,
    all: BytesMut,
}

impl Buffered {
    fn len(&self) -> usize {
        self.first.as_ref().map_or(self.all.len(), Bytes::len)
    }

    fn add(&mut self, chunk: Bytes, announced: Option<u64>) {
        if self.first.is_none() && self.all.is_empty() {
            self.first = Some(chunk);
            return;
        }
        if let Some(first) = self.first.take() {
            // At most `limit`, since larger ones are never read.
            self.all.reserve(announced.map_or(2 * first.len(), |length| length as usize));
            self.all.extend_from_slice(&first);
        }
        self.all.extend_from_slice(&chunk);
    }

    fn into_bytes(self) -> Bytes {
        self.first.unwrap_or_else(|| self.all.freeze())
    }
}

async fn next_chunk(body: &mut RequestBody) -> Result<Option<Bytes>, Refusal> {
    let chunk = poll_fn(|cx| body.poll_data(cx)).await.transpose();
    chunk.map_err(|_| Refusal::BadFraming("the body broke off or is not framed properly"))
}

impl ReplayableBody {
    fn streamed(front: Option<Bytes>, rest: RequestBody, framing: OutboundFraming) -> Self {
        ReplayableBody::Streamed { stream: RefCell::new(Some(StreamedBody::new(front, rest))), framing }
    }

    pub fn framing(&self) -> OutboundFraming {
        match self {
            ReplayableBody::Empty => OutboundFraming::AsReceived,
            ReplayableBody::Buffered { framing, .. } | ReplayableBody::Streamed { framing, .. } => *framing,
        }
    }

    pub fn replayable(&self) -> bool {
        !matches!(self, ReplayableBody::Streamed { .. })
    }

    /// The body for one attempt. A body that can be sent once is empty the second time; `retry` never lets
    /// that happen.
    pub fn attempt_body(&self) -> OutgoingBody {
        match self {
            ReplayableBody::Empty => OutgoingBody::Empty,
            ReplayableBody::Buffered { bytes, .. } => {
                OutgoingBody::Buffered(Some(bytes.clone()).filter(|bytes| !bytes.is_empty()))
            }
            ReplayableBody::Streamed { stream, .. } => {
                stream.borrow_mut().take().map_or(OutgoingBody::Empty, OutgoingBody::Streamed)
            }
        }
    }
}
