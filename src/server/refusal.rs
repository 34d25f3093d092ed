//! What the server refuses before a handler sees it. The handler renders the response; the connection closes
//! after it.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};

use crate::http1::{FramingError, HeadError, InvalidByte, ReasonPhrase};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRefusal {
    /// The request cannot be understood, or could be understood in two ways; the text says what is wrong with
    /// it.
    BadRequest(&'static str),
    /// A byte that may not stand where it does in a head.
    InvalidByte(InvalidByte),
    HeadTooLarge,
    UriTooLong,
    /// CONNECT and TRACE.
    MethodNotAllowed,
    /// The head, or the rest of the body, did not come in time.
    RequestTimeout,
    TooManyConnections,
    /// A forward proxy was asked for another host than those it is for.
    ProxyTarget,
    /// The handler panicked; the log has it.
    Panicked,
}

impl ServerRefusal {
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::InvalidByte(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
            Self::ProxyTarget => StatusCode::FORBIDDEN,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn detail(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::InvalidByte(odd) => return Cow::Owned(format!("{odd} may not stand there")),
            Self::BadRequest(what) => what,
            Self::HeadTooLarge => "the request head is larger than this server takes",
            Self::UriTooLong => "the request target is longer than this server takes",
            Self::MethodNotAllowed => "CONNECT and TRACE are not answered here",
            Self::RequestTimeout => "the request did not arrive in time",
            Self::TooManyConnections => "all connections that this server takes are in use",
            Self::ProxyTarget => "this is no proxy for that host or port; /proxy.pac says for which",
            Self::Panicked => "the request hit a fault in this server; the log has it",
        })
    }

    /// The refusal as plain text, for listeners that have no dialect of their own.
    pub fn plain(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("{}\n", self.detail())));
        *response.status_mut() = self.status();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }
}

impl From<HeadError> for ServerRefusal {
    fn from(fault: HeadError) -> Self {
        match fault {
            HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::TargetTooLong => Self::UriTooLong,
            HeadError::BareLineFeed => Self::BadRequest("lines of a request head end with CR LF"),
            HeadError::Version => Self::BadRequest("only HTTP/1 is spoken here"),
            HeadError::InvalidByte(odd) => Self::InvalidByte(odd),
            HeadError::ProxyHeader => Self::BadRequest(PROXY_FROM_STRANGER),
            HeadError::Malformed => Self::BadRequest("the request head cannot be parsed"),
        }
    }
}

impl From<FramingError> for ServerRefusal {
    fn from(error: FramingError) -> Self {
        Self::BadRequest(match error {
            FramingError::Method => return Self::MethodNotAllowed,
            FramingError::TransferEncoding => "Transfer-Encoding has to be one single `chunked`",
            FramingError::TwoFramings => "Transfer-Encoding and Content-Length exclude each other",
            FramingError::ContentLength => "Content-Length has to be one single number",
            FramingError::Host => {
                "a request needs exactly one Host header, which holds a host and perhaps a port"
            }
            FramingError::Target => "the request target has to be a path or an absolute http URL",
        })
    }
}

/// Its sender is no trusted proxy, or sends a second header: of those, the first is read before any request.
const PROXY_FROM_STRANGER: &str = "this is a PROXY header of version 1, not a request; PROXY headers are taken of \
    trusted_proxies alone, once, and in version 2";

/// A complete response as bytes, for where there is no request to respond to.
pub(super) fn to_wire(response: &Response<Bytes>) -> Bytes {
    let mut wire = BytesMut::with_capacity(512 + response.body().len());
    let status = response.status();
    wire.put_slice(b"HTTP/1.1 ");
    wire.put_slice(status.as_str().as_bytes());
    wire.put_slice(b" ");
    match response.extensions().get::<ReasonPhrase>() {
        Some(reason) => wire.put_slice(&reason.0),
        None => wire.put_slice(status.canonical_reason().unwrap_or("refused").as_bytes()),
    }
    wire.put_slice(b"\r\n");
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH && *name != header::CONNECTION {
            wire.put_slice(name.as_str().as_bytes());
            wire.put_slice(b": ");
            wire.put_slice(value.as_bytes());
            wire.put_slice(b"\r\n");
        }
    }
    wire.put_slice(
        format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body().len()).as_bytes(),
    );
    wire.put_slice(response.body());
    wire.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_on_the_wire_has_its_length_its_reason_and_closes() {
        let mut response = ServerRefusal::RequestTimeout.plain();
        response.extensions_mut().insert(ReasonPhrase(Bytes::from_static(b"request_timeout")));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        let expected = "HTTP/1.1 408 request_timeout\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: 36\r\nconnection: close\r\n\r\nthe request did not arrive in time\n";
        let wire = to_wire(&response);
        let wire = std::str::from_utf8(&wire).unwrap();
        assert_eq!(wire, expected.replace("36", &response.body().len().to_string()));
    }
}
