//! The body of a request: read from its connection when it is polled, or at hand already.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::parse::BodyError;

/// The body of a request, read when it is asked for.
pub struct RequestBody(pub(super) BodySource);

pub(super) enum BodySource {
    /// At hand, or none at all.
    Buffered(Option<Bytes>),
    Streaming {
        source: Rc<dyn BodyStream>,
        request_number: u64,
    },
}

/// A served connection as its request's body sees it.
pub(super) trait BodyStream {
    fn poll_body(&self, request_number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;
    /// What is left of it, where that is known.
    fn remaining(&self, request_number: u64) -> Option<u64>;
    /// What is left of it, where its length is known and all of it has come.
    fn take_if_complete(&self, request_number: u64) -> Option<Bytes>;
}

impl RequestBody {
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(BodySource::Buffered(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// All of it, where it has come already.
    pub fn take_if_complete(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            BodySource::Buffered(bytes) => Some(bytes.take().unwrap_or_default()),
            BodySource::Streaming { source, request_number } => source.take_if_complete(*request_number),
        }
    }

    /// The next chunk of it.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.0 {
            BodySource::Buffered(bytes) => Poll::Ready(bytes.take().map(Ok)),
            BodySource::Streaming { source, request_number } => source.poll_body(*request_number, cx),
        }
    }

    /// How much is still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match &self.0 {
            BodySource::Buffered(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            BodySource::Streaming { source, request_number } => source.remaining(*request_number),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.remaining() == Some(0)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll_data(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
