//! How the end of a body is known, by the two tables of RFC 9112, 6.3: one for requests, one for responses. A
//! head that two readers could understand in two ways is an error (threats, rows 1 to 3).

use http::{Method, StatusCode, Uri, Version};

use super::parse::{BodyDecoder, DuplicateHeader, Headers, KnownHeader, RequestHead, ResponseHead};

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// No body, or one of known length.
    Sized(u64),
    /// The connection closes after the response: chunked requests are where parsers disagree, and whatever
    /// they disagree about must not become the next request.
    Chunked,
}

/// Why a request's head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    TransferEncoding,
    TwoFramings,
    ContentLength,
    Host,
    Target,
    Method,
}

/// The one meaning of a request's head, or what is wrong with it.
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
    /// How the body behind such a head is delimited.
    pub fn decoder(self) -> BodyDecoder {
        match self {
            RequestFraming::Sized(length) => BodyDecoder::Length(length),
            RequestFraming::Chunked => BodyDecoder::chunked(),
        }
    }
}

/// In any letter case, since some servers do not mind it; TRACK is IIS's TRACE, and would echo our bearer
/// just so.
fn method(method: &Method) -> Result<(), FramingError> {
    let refused = ["CONNECT", "TRACE", "TRACK"];
    if refused.iter().any(|refused| method.as_str().eq_ignore_ascii_case(refused)) {
        Err(FramingError::Method)
    } else {
        Ok(())
    }
}

/// RFC 9112, 3.2: a server responds 400 to a 1.1 request without Host, to any with two, and to a value that
/// is none. 1.0 callers may have none.
fn host(headers: &Headers, version: Version) -> Result<(), FramingError> {
    match headers.get_unique(KnownHeader::Host) {
        Ok(Some(host)) if host.iter().all(|b| is_host_byte(*b)) => Ok(()),
        Ok(None) if version < Version::HTTP_11 => Ok(()),
        _ => Err(FramingError::Host),
    }
}

/// RFC 3986, 3.2.2 and 3.2.3: names, addresses in brackets, a port; and no user before them.
fn is_host_byte(b: u8) -> bool {
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
        Ok(Some(length)) => parse_content_length(length).map(Some).ok_or(FramingError::ContentLength),
        Err(_) => Err(FramingError::ContentLength),
    }
}

/// Why a response's head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFramingError {
    TwoLengths,
    TwoTransferCodings,
    TwoFramings,
    TransferCodingInOldVersion,
    UnknownTransferCoding,
    InvalidLength,
}

impl ResponseFramingError {
    pub fn reason(self) -> &'static str {
        match self {
            Self::TwoLengths => "its answer has two lengths",
            Self::TwoTransferCodings => "its answer has two transfer codings",
            Self::TwoFramings => "its answer has a length and a transfer coding",
            Self::TransferCodingInOldVersion => {
                "its answer has a transfer coding, which its version does not know"
            }
            Self::UnknownTransferCoding => "its answer has an unknown transfer coding",
            Self::InvalidLength => "its answer has an odd length",
        }
    }
}

/// How the body of a response to a request by `method` is delimited.
pub fn response_body(method: &Method, head: &ResponseHead) -> Result<BodyDecoder, ResponseFramingError> {
    let declared = declared_response_body(head.version, &head.headers)?;
    let bodyless =
        *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(if bodyless { BodyDecoder::NONE } else { declared })
}

fn declared_response_body(version: Version, headers: &Headers) -> Result<BodyDecoder, ResponseFramingError> {
    use ResponseFramingError::*;
    let length = headers.get_unique(KnownHeader::ContentLength).map_err(|DuplicateHeader| TwoLengths)?;
    let coding =
        headers.get_unique(KnownHeader::TransferEncoding).map_err(|DuplicateHeader| TwoTransferCodings)?;
    match (length, coding) {
        (Some(_), Some(_)) => Err(TwoFramings),
        (None, Some(_)) if version != Version::HTTP_11 => Err(TransferCodingInOldVersion),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyDecoder::chunked()),
        (None, Some(_)) => Err(UnknownTransferCoding),
        (Some(length), None) => parse_content_length(length).map(BodyDecoder::Length).ok_or(InvalidLength),
        (None, None) => Ok(BodyDecoder::until_close()),
    }
}

/// What a Content-Length says: digits only, no sign, no list, no blanks, and small enough for a `u64` (RFC
/// 9110, 8.6).
pub fn parse_content_length(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
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

    #[test]
    fn a_response_whose_length_is_in_doubt_is_not_passed_on() {
        use ResponseFramingError as Refused;
        const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
        const FIVE: (&str, &str) = ("content-length", "5");
        let v11 = Version::HTTP_11;
        type Row<'a> = (Version, &'a [(&'a str, &'a str)], Result<BodyDecoder, Refused>);
        let table: &[Row<'_>] = &[
            (v11, &[], Ok(BodyDecoder::until_close())),
            (v11, &[FIVE], Ok(BodyDecoder::Length(5))),
            (v11, &[CHUNKED], Ok(BodyDecoder::chunked())),
            (v11, &[("transfer-encoding", "Chunked")], Ok(BodyDecoder::chunked())),
            (v11, &[FIVE, FIVE], Err(Refused::TwoLengths)),
            (v11, &[("content-length", "5, 5")], Err(Refused::InvalidLength)),
            (v11, &[FIVE, CHUNKED], Err(Refused::TwoFramings)),
            (v11, &[("transfer-encoding", "gzip, chunked")], Err(Refused::UnknownTransferCoding)),
            (v11, &[CHUNKED, CHUNKED], Err(Refused::TwoTransferCodings)),
            (Version::HTTP_10, &[CHUNKED], Err(Refused::TransferCodingInOldVersion)),
        ];
        for (version, lines, expected) in table {
            let headers = Headers::from_pairs(lines.iter().copied()).unwrap();
            assert_eq!(declared_response_body(*version, &headers), *expected, "{version:?} {lines:?}");
        }
    }
}
