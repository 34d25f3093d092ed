//! Cooperative yielding. A worker's connections share one thread, so a connection that never blocks has to
//! yield after a number of bytes, or it would starve the others.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

/// How many bytes of a body one connection moves before it yields to the others: a fraction of a
/// millisecond's work.
pub const YIELD_AFTER: usize = 256 * 1024;

/// Lets everyone else go first who has something to do, those included whose bytes have only just come. The
/// task is woken after that; whoever calls this returns `Pending`.
pub fn poll_yield(cx: &mut Context<'_>) {
    // Always pending at first: all that is wanted of it is done then.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// The same for those who can wait.
pub async fn yield_to_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        poll_yield(cx);
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::Waker;

    use bytes::Bytes;
    use http::{Response, Version};
    use http_body::{Body, Frame};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;
    use crate::http1::{
        ForwardedHeaders, HeadLimits, NoopConnectionObserver, ResponseContext, ServerConnection,
    };

    /// A caller that says nothing and takes everything at once.
    struct Eager;

    impl AsyncRead for Eager {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Eager {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Always has another chunk.
    struct Endless(Rc<Cell<usize>>);

    const CHUNK: usize = 64 * 1024;

    impl Body for Endless {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            self.0.set(self.0.get() + CHUNK);
            assert!(self.0.get() < 100 * YIELD_AFTER, "nobody else ever has a turn");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; CHUNK])))))
        }
    }

    impl ForwardedHeaders for Endless {}

    #[tokio::test]
    async fn a_download_that_never_pauses_leaves_the_others_their_turn() {
        let taken = Rc::new(Cell::new(0));
        let connection = ServerConnection::new(
            Eager,
            NoopConnectionObserver,
            HeadLimits { max_bytes: 1000, max_headers: 10 },
        );
        let context = ResponseContext { version: Version::HTTP_11, head_only: false, keep_alive: true };
        let mut responding = pin!(connection.write_response(context, Response::new(Endless(taken.clone()))));
        let cx = &mut Context::from_waker(Waker::noop());
        for turn in 1..4 {
            assert!(responding.as_mut().poll(cx).is_pending());
            assert!(
                (turn * YIELD_AFTER..=turn * (YIELD_AFTER + CHUNK)).contains(&taken.get()),
                "{}",
                taken.get()
            );
        }
    }
}
