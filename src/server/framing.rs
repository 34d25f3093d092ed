//! Whether a parsed request head has exactly one meaning. Pure; how its lines are put together was `http1`'s business.

use http::{Method, Uri, Version};

use crate::http1::{self, BodyDecoder, Headers, KnownHeader, RequestHead};

use super::refusal::ServerRefusal;

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// No body, or one of known length.
    Sized(u64),
    /// The connection closes after the answer: chunked requests are where parsers disagree, and whatever they disagree
    /// about must not become the next request.
    Chunked,
}

/// Why the server refuses a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    TransferEncoding,
    TwoFramings,
    ContentLength,
    Host,
    Target,
    Method,
}

impl FramingError {
    pub fn refusal(self) -> ServerRefusal {
        ServerRefusal::BadRequest(match self {
            Self::Method => return ServerRefusal::MethodNotAllowed,
            Self::TransferEncoding => "Transfer-Encoding has to be one single `chunked`",
            Self::TwoFramings => "Transfer-Encoding and Content-Length exclude each other",
            Self::ContentLength => "Content-Length has to be one single number",
            Self::Host => "a request needs exactly one Host header, which holds a host and perhaps a port",
            Self::Target => "the request target has to be a path or an absolute http URL",
        })
    }
}

pub fn request_framing(head: &RequestHead) -> Result<RequestFraming, FramingError> {
    method(&head.method)?;
    host(&head.headers, head.version)?;
    target(&head.method, &head.uri)?;
    let chunked = transfer_encoding(&head.headers, head.version)?;
    match (chunked, content_length(&head.headers)?) {
        (false, length) => Ok(RequestFraming::Sized(length.unwrap_or_default())),
        (true, None) => Ok(RequestFraming::Chunked),
        (true, Some(_)) => Err(FramingError::TwoFramings),
    }
}

impl RequestFraming {
    /// How the body behind such a head is told from what follows it.
    pub fn decoder(self) -> BodyDecoder {
        match self {
            RequestFraming::Sized(length) => BodyDecoder::Length(length),
            RequestFraming::Chunked => BodyDecoder::chunked(),
        }
    }
}

/// In any letter case, since some servers do not mind it; TRACK is IIS's TRACE, and would echo our bearer just so.
fn method(method: &Method) -> Result<(), FramingError> {
    match ["CONNECT", "TRACE", "TRACK"].iter().any(|tunnel| method.as_str().eq_ignore_ascii_case(tunnel)) {
        true => Err(FramingError::Method),
        false => Ok(()),
    }
}

/// RFC 9112, 3.2: a server answers 400 to a 1.1 request without Host, to any with two, and to a value that is none. 1.0 callers may
/// have none.
fn host(headers: &Headers, version: Version) -> Result<(), FramingError> {
    match headers.get_unique(KnownHeader::Host) {
        Ok(Some(host)) if host.iter().all(|b| may_stand_in_host(*b)) => Ok(()),
        Ok(None) if version < Version::HTTP_11 => Ok(()),
        _ => Err(FramingError::Host),
    }
}

/// RFC 3986, 3.2.2 and 3.2.3: names, addresses in brackets, a port; and no user before them.
fn may_stand_in_host(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&b)
}

/// Origin form, absolute form, and `*` for OPTIONS. Authority form is CONNECT's.
fn target(method: &Method, uri: &Uri) -> Result<(), FramingError> {
    let fits = match uri.scheme_str() {
        Some(scheme) => matches!(scheme, "http" | "https") && uri.host().is_some_and(|host| !host.is_empty()),
        None => match uri.path() {
            "*" => *method == Method::OPTIONS,
            path => uri.authority().is_none() && path.starts_with('/'),
        },
    };
    if fits { Ok(()) } else { Err(FramingError::Target) }
}

/// Nothing here unpacks the codings that may stand before `chunked`.
fn transfer_encoding(headers: &Headers, version: Version) -> Result<bool, FramingError> {
    match headers.get_unique(KnownHeader::TransferEncoding) {
        Ok(None) => Ok(false),
        Ok(Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && version == Version::HTTP_11 => {
            Ok(true)
        }
        _ => Err(FramingError::TransferEncoding),
    }
}

fn content_length(headers: &Headers) -> Result<Option<u64>, FramingError> {
    match headers.get_unique(KnownHeader::ContentLength) {
        Ok(None) => Ok(None),
        Ok(Some(length)) => http1::parse_content_length(length).map(Some).ok_or(FramingError::ContentLength),
        Err(_) => Err(FramingError::ContentLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FramingError::*;

    fn head(method: &str, uri: &str, version: Version, headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: method.parse().unwrap(),
            uri: uri.parse().unwrap(),
            version,
            headers: Headers::from_pairs(headers.iter().copied()).unwrap(),
        }
    }

    type Row<'a> =
        (&'a str, &'a str, Version, &'a [(&'a str, &'a str)], Result<RequestFraming, FramingError>);

    #[test]
    fn a_head_has_one_meaning_or_is_refused() {
        const HOST: (&str, &str) = ("host", "a");
        let v11 = Version::HTTP_11;
        let v10 = Version::HTTP_10;
        #[rustfmt::skip]
        let table: &[Row<'_>] = &[
            ("GET",     "/",             v11, &[HOST],                                              Ok(RequestFraming::Sized(0))),
            ("GET",     "http://x/p?q",  v11, &[HOST],                                              Ok(RequestFraming::Sized(0))),
            ("OPTIONS", "*",             v11, &[HOST],                                              Ok(RequestFraming::Sized(0))),
            ("GET",     "/",             v10, &[],                                                  Ok(RequestFraming::Sized(0))),
            ("DELETE",  "/",             v11, &[HOST, ("content-length", "5")],                     Ok(RequestFraming::Sized(5))),
            ("POST",    "/",             v11, &[HOST, ("content-length", "00005")],                 Ok(RequestFraming::Sized(5))),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "chunked")],            Ok(RequestFraming::Chunked)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "Chunked")],            Ok(RequestFraming::Chunked)),
            ("CONNECT", "x:443",         v11, &[HOST],                                              Err(Method)),
            ("TRACE",   "/",             v11, &[HOST],                                              Err(Method)),
            ("trace",   "/",             v11, &[HOST],                                              Err(Method)),
            ("TRACK",   "/",             v11, &[HOST],                                              Err(Method)),
            ("GET",     "/",             v11, &[("host", "")],                                      Ok(RequestFraming::Sized(0))),
            ("GET",     "/",             v11, &[("host", "[::1]:80")],                              Ok(RequestFraming::Sized(0))),
            ("GET",     "/",             v11, &[("host", "a@b")],                                   Err(Host)),
            ("GET",     "/",             v11, &[("host", "a/b")],                                   Err(Host)),
            ("GET",     "/",             v11, &[("host", "a b")],                                   Err(Host)),
            ("GET",     "/",             v10, &[("host", "a\\b")],                                  Err(Host)),
            ("GET",     "/",             v11, &[],                                                  Err(Host)),
            ("GET",     "/",             v11, &[HOST, HOST],                                        Err(Host)),
            ("GET",     "/",             v10, &[HOST, HOST],                                        Err(Host)),
            ("GET",     "*",             v11, &[HOST],                                              Err(Target)),
            ("GET",     "x:443",         v11, &[HOST],                                              Err(Target)),
            ("GET",     "ftp://x/",      v11, &[HOST],                                              Err(Target)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "gzip, chunked")],      Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "chunked, chunked")],   Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "xchunked")],           Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "identity")],           Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "\"chunked\"")],        Err(TransferEncoding)),
            ("POST",    "/",             v10, &[HOST, ("transfer-encoding", "chunked")],            Err(TransferEncoding)),
            ("POST",    "/",             v11, &[HOST, ("transfer-encoding", "chunked"), ("content-length", "5")], Err(TwoFramings)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "5"), ("content-length", "5")], Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "5, 5")],                  Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "+5")],                    Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "-1")],                    Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "0x5")],                   Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "")],                      Err(ContentLength)),
            ("POST",    "/",             v11, &[HOST, ("content-length", "18446744073709551616")],  Err(ContentLength)),
        ];
        for (method, uri, version, headers, expected) in table {
            let got = request_framing(&head(method, uri, *version, headers));
            assert_eq!(got, *expected, "{method} {uri} {version:?} {headers:?}");
        }
    }
}
