//! The caller's body, kept so that the call can be repeated, or passed on once where it is larger. Bodies go out framed as they came
//! in, and trailers end here.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::http1::RequestBody;

use super::headers::Framing;
use super::refusal::Refusal;

/// A caller's body on our side.
pub enum Held {
    Nothing,
    Kept {
        bytes: Bytes,
        framing: Framing,
    },
    /// Too large to keep: it can be sent once.
    Once {
        stream: RefCell<Option<Stream>>,
        framing: Framing,
    },
}

/// What has been read of a large body, and the rest.
pub struct Stream {
    front: Option<Bytes>,
    rest: RequestBody,
}

/// The body of one attempt.
pub enum OutBody {
    Empty,
    Kept(Option<Bytes>),
    Once(Stream),
}

/// The caller's body broke off: the platform's connection ends with it, so that half a body never looks whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller's body broke off")]
pub struct BrokenOff;

/// Whether there is anything to wait for.
pub enum Holding {
    Done(Held),
    ToRead(Reading),
}

/// A body that is to be kept and has not come yet.
pub struct Reading {
    body: RequestBody,
    framing: Framing,
    limit: usize,
}

/// No body, no cost; a body announced as larger than `limit` is not touched.
pub fn hold(mut body: RequestBody, framing: Framing, limit: usize) -> Holding {
    if body.has_ended() {
        // A chunked body of nothing is one all the same: it goes out as it came.
        return Holding::Done(match framing {
            Framing::AsDeclared => Held::Nothing,
            Framing::Chunked => Held::Kept { bytes: Bytes::new(), framing },
        });
    }
    match body.left() {
        Some(length) if length > limit as u64 => Holding::Done(Held::once(None, body, framing)),
        // Small bodies come with their heads.
        _ => match body.take_whole() {
            Some(bytes) => Holding::Done(Held::Kept { bytes, framing }),
            None => Holding::ToRead(Reading { body, framing, limit }),
        },
    }
}

impl Reading {
    /// Reads up to the limit, waiting at most `idle` for each piece.
    pub async fn read(self, idle: Duration) -> Result<Held, Refusal> {
        let Reading { mut body, framing, limit } = self;
        let announced = body.left();
        let mut kept = Kept::default();
        loop {
            let chunk = tokio::time::timeout(idle, next_chunk(&mut body));
            let chunk = chunk.await.map_err(|_| Refusal::RequestTimeout)?;
            let Some(chunk) = chunk? else { return Ok(Held::Kept { bytes: kept.into_bytes(), framing }) };
            kept.add(chunk, announced);
            if kept.len() > limit {
                return Ok(Held::once(Some(kept.into_bytes()), body, framing));
            }
        }
    }
}

/// Most bodies come in one piece, which is then kept as it is.
#[derive(Default)]
struct Kept {
    first: Option<Bytes>,
    all: BytesMut,
}

impl Kept {
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

impl Held {
    fn once(front: Option<Bytes>, rest: RequestBody, framing: Framing) -> Self {
        Held::Once { stream: RefCell::new(Some(Stream { front, rest })), framing }
    }

    pub fn framing(&self) -> Framing {
        match self {
            Held::Nothing => Framing::AsDeclared,
            Held::Kept { framing, .. } | Held::Once { framing, .. } => *framing,
        }
    }

    pub fn replayable(&self) -> bool {
        !matches!(self, Held::Once { .. })
    }

    /// The body for one attempt. A body that can be sent once is empty the second time; `retry` never lets that happen.
    pub fn send(&self) -> OutBody {
        match self {
            Held::Nothing => OutBody::Empty,
            Held::Kept { bytes, .. } => OutBody::Kept(Some(bytes.clone()).filter(|bytes| !bytes.is_empty())),
            Held::Once { stream, .. } => stream.borrow_mut().take().map_or(OutBody::Empty, OutBody::Once),
        }
    }
}

impl OutBody {
    /// The next piece; a caller's trailers end here.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match self {
            OutBody::Empty => Poll::Ready(None),
            OutBody::Kept(bytes) => Poll::Ready(bytes.take().map(Ok)),
            OutBody::Once(stream) => match stream.front.take() {
                Some(front) => Poll::Ready(Some(Ok(front))),
                None => {
                    stream.rest.poll_data(cx).map(|chunk| chunk.map(|chunk| chunk.map_err(|_| BrokenOff)))
                }
            },
        }
    }

    pub fn has_ended(&self) -> bool {
        match self {
            OutBody::Empty => true,
            OutBody::Kept(bytes) => bytes.is_none(),
            OutBody::Once(stream) => stream.front.is_none() && stream.rest.has_ended(),
        }
    }

    /// The platform may answer before it has all of it.
    pub fn takes_time(&self) -> bool {
        matches!(self, OutBody::Once(_))
    }
}
