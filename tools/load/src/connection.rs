//! One keep-alive connection of the load generator: bytes out, a response in, nothing kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, ready};

use tokio::io::ReadBuf;

use super::response::{ReceivedResponse, ResponseReader};
use super::target::{ResolvedTarget, TargetStream};

/// Room for one read, shared by all connections of a thread: ten
/// thousand of them must not cost ten thousand buffers.
pub struct SharedReadBuffer(RefCell<Box<[u8]>>);

impl SharedReadBuffer {
    pub fn new() -> Self {
        Self(RefCell::new(vec![0; 256 * 1024].into_boxed_slice()))
    }
}

/// A connection to a target that carries one call after another.
pub struct KeepAliveConnection {
    stream: TargetStream,
    /// The last response left it fit for another call.
    pub usable: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub struct BrokenExchange {
    pub why: String,
    /// The connection was dead before a byte of a response came, as an idle one may be.
    pub before_response: bool,
}

impl KeepAliveConnection {
    pub async fn open(target: &ResolvedTarget) -> Result<Self, String> {
        Ok(Self { stream: target.connect().await?, usable: true })
    }

    /// Sends, and reads the response to its end; `on_body` is called with each chunk of its body.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        is_head: bool,
        read_buffer: &SharedReadBuffer,
        mut on_body: impl FnMut(u64),
    ) -> Result<ReceivedResponse, BrokenExchange> {
        self.usable = false;
        let mut reader = ResponseReader::new(is_head);
        if let Err(error) = self.stream.write(request).await {
            return Err(BrokenExchange { why: error.to_string(), before_response: true });
        }
        let response = poll_fn(|cx| {
            loop {
                let mut room = read_buffer.0.borrow_mut();
                let mut chunk = ReadBuf::new(&mut room);
                let read = ready!(self.stream.poll_read(cx, &mut chunk));
                let fed = match read {
                    Err(error) => return Poll::Ready(Err(error.to_string())),
                    Ok(()) if chunk.filled().is_empty() => {
                        return Poll::Ready(reader.close().map_err(str::to_owned));
                    }
                    Ok(()) => reader.feed(chunk.filled()),
                };
                match fed {
                    Err(why) => return Poll::Ready(Err(why.to_owned())),
                    Ok((bytes, response)) => {
                        on_body(bytes);
                        if let Some(response) = response {
                            return Poll::Ready(Ok(response));
                        }
                    }
                }
            }
        })
        .await;
        let response =
            response.map_err(|why| BrokenExchange { why, before_response: !reader.has_begun() })?;
        self.usable = response.keep_alive;
        Ok(response)
    }
}
