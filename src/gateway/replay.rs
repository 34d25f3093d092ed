//! The caller's body, kept so that the call can be repeated, or passed on once where it is larger. Bodies go out framed as they came
//! in, and trailers end here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

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
    rest: Incoming,
}

/// The body of one attempt.
pub struct OutBody {
    kind: Kind,
    watch: Option<Rc<Watch>>,
}

enum Kind {
    Empty,
    Kept { bytes: Option<Bytes>, framing: Framing },
    Once { stream: Stream, framing: Framing },
}

/// How the sending of a passed-on body goes: the attempt looks at it from outside.
#[derive(Default)]
pub struct Watch {
    pub ended: Cell<bool>,
    pub waits_for_caller: Cell<bool>,
    pub failed: Cell<bool>,
}

/// The caller's body broke off: the platform's connection ends with it, so that half a body never looks whole.
#[derive(Debug, thiserror::Error)]
#[error("the caller's body broke off")]
pub struct BrokenOff;

/// Whether there is anything to wait for.
pub enum Holding {
    Done(Held),
    ToRead(Reading),
}

/// A body that is to be kept and has not come yet.
pub struct Reading {
    body: Incoming,
    framing: Framing,
    limit: usize,
}

/// No body, no cost; a body announced as larger than `limit` is not touched.
pub fn hold(body: Incoming, framing: Framing, limit: usize) -> Holding {
    if body.is_end_stream() {
        // A chunked body of nothing is one all the same: it goes out as it came.
        return Holding::Done(match framing {
            Framing::AsDeclared => Held::Nothing,
            Framing::Chunked => Held::Kept { bytes: Bytes::new(), framing },
        });
    }
    match body.size_hint().exact() {
        Some(length) if length > limit as u64 => Holding::Done(Held::once(None, body, framing)),
        _ => Holding::ToRead(Reading { body, framing, limit }),
    }
}

impl Reading {
    /// Reads up to the limit, waiting at most `idle` for each piece.
    pub async fn read(self, idle: Duration) -> Result<Held, Refusal> {
        let Reading { mut body, framing, limit } = self;
        let announced = body.size_hint().exact();
        let mut kept = Kept::default();
        loop {
            let piece = tokio::time::timeout(idle, next_piece(&mut body));
            let piece = piece.await.map_err(|_| Refusal::RequestTimeout)?;
            let Some(piece) = piece? else { return Ok(Held::Kept { bytes: kept.into_bytes(), framing }) };
            kept.add(piece, announced);
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

    fn add(&mut self, piece: Bytes, announced: Option<u64>) {
        if self.first.is_none() && self.all.is_empty() {
            self.first = Some(piece);
            return;
        }
        if let Some(first) = self.first.take() {
            // At most `limit`, since larger ones are never read.
            self.all.reserve(announced.map_or(2 * first.len(), |length| length as usize));
            self.all.extend_from_slice(&first);
        }
        self.all.extend_from_slice(&piece);
    }

    fn into_bytes(self) -> Bytes {
        self.first.unwrap_or_else(|| self.all.freeze())
    }
}

async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::BadFraming("the body broke off or is not framed properly")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

impl Held {
    fn once(front: Option<Bytes>, rest: Incoming, framing: Framing) -> Self {
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
            Held::Nothing => OutBody { kind: Kind::Empty, watch: None },
            Held::Kept { bytes, framing } => {
                OutBody { kind: Kind::Kept { bytes: Some(bytes.clone()), framing: *framing }, watch: None }
            }
            Held::Once { stream, framing } => match stream.borrow_mut().take() {
                Some(stream) => {
                    OutBody { kind: Kind::Once { stream, framing: *framing }, watch: Some(Rc::default()) }
                }
                None => OutBody { kind: Kind::Empty, watch: None },
            },
        }
    }
}

impl OutBody {
    pub fn watch(&self) -> Option<Rc<Watch>> {
        self.watch.clone()
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Kept { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Once { stream, .. } => {
                let polled = stream.poll(cx);
                if let Some(watch) = &this.watch {
                    watch.waits_for_caller.set(polled.is_pending());
                    watch.ended.set(matches!(polled, Poll::Ready(None)) || stream.is_end());
                    watch.failed.set(matches!(polled, Poll::Ready(Some(Err(_)))));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Kept { bytes, framing } => match framing {
                Framing::AsDeclared => bytes.is_none(),
                // Even an empty chunked body has an end of its own to be written.
                Framing::Chunked => false,
            },
            Kind::Once { stream, .. } => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Kept { framing: Framing::Chunked, .. } | Kind::Once { framing: Framing::Chunked, .. } => {
                SizeHint::default()
            }
            Kind::Kept { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Once { stream, .. } => {
                let front = stream.front.as_ref().map_or(0, |front| front.len() as u64);
                match stream.rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(front + rest),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(front) = self.front.take() {
            return Poll::Ready(Some(Ok(Frame::data(front))));
        }
        loop {
            return match std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Err(_)) => Poll::Ready(Some(Err(BrokenOff))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(_trailers) => continue,
                },
            };
        }
    }

    fn is_end(&self) -> bool {
        self.front.is_none() && self.rest.is_end_stream()
    }
}
