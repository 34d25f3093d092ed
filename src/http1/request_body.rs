//! The body of a request, wherever it comes from.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyFault;

/// The body of a request, read when it is asked for.
pub struct RequestBody(pub(super) Kind);

pub(super) enum Kind {
    /// At hand, or none at all.
    Whole(Option<Bytes>),
    Live {
        source: Rc<dyn Source>,
        number: u64,
    },
}

/// A served connection as its request's body sees it.
pub(super) trait Source {
    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>>;
    /// What is left of it, where that is known.
    fn left(&self, number: u64) -> Option<u64>;
    /// What is left of it, where its length is known and all of it has come.
    fn take_whole(&self, number: u64) -> Option<Bytes>;
}

impl RequestBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// All of it, where it has come already.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Whole(bytes) => Some(bytes.take().unwrap_or_default()),
            Kind::Live { source, number } => source.take_whole(*number),
        }
    }

    /// The next piece of it.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Live { source, number } => source.poll_body(*number, cx),
        }
    }

    /// How much is still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Live { source, number } => source.left(*number),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.left() == Some(0)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.get_mut().poll_data(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
