//! The body of one request on its way out.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::http1::parse::BodyError;
use crate::http1::request_body::RequestBody;

/// The body of one attempt at a request.
pub enum OutgoingBody {
    Empty,
    Buffered(Option<Bytes>),
    Streamed(StreamedBody),
}

/// What has been read of a large body, and the rest.
pub struct StreamedBody {
    front: Option<Bytes>,
    rest: RequestBody,
}

impl StreamedBody {
    pub fn new(front: Option<Bytes>, rest: RequestBody) -> Self {
        Self { front, rest }
    }
}

impl OutgoingBody {
    /// The next chunk; a caller's trailers end here.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            OutgoingBody::Empty => Poll::Ready(None),
            OutgoingBody::Buffered(bytes) => Poll::Ready(bytes.take().map(Ok)),
            OutgoingBody::Streamed(stream) => match stream.front.take() {
                Some(front) => Poll::Ready(Some(Ok(front))),
                None => stream.rest.poll_data(cx),
            },
        }
    }

    pub fn has_ended(&self) -> bool {
        match self {
            OutgoingBody::Empty => true,
            OutgoingBody::Buffered(bytes) => bytes.is_none(),
            OutgoingBody::Streamed(stream) => stream.front.is_none() && stream.rest.has_ended(),
        }
    }

    /// The platform may answer before it has all of it.
    pub fn is_streamed(&self) -> bool {
        matches!(self, OutgoingBody::Streamed(_))
    }
}
