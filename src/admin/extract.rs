//! What a call carries, read from its path, query and body. The rule: what cannot be read is answered with a
//! problem that says what is wrong, and never with the text that was sent, which may hold a token.

use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body.
pub struct ApiJson<T>(pub T);

/// The query; parameters that the call does not know are refused, so that a mistyped one does not change what
/// is done.
pub struct ApiQuery<T>(pub T);

/// What stands for `{…}` in a call's path.
pub struct ApiPath<T>(pub T);

/// A body as it came.
pub struct ApiBytes(pub bytes::Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = axum::Json::from_request(request, state).await;
        read.map(|axum::Json(value)| Self(value)).map_err(unreadable_json)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(value)| Self(value)).map_err(|rejection: QueryRejection| {
            let why = without_values(&root_cause(&rejection));
            ApiError::bad_request(format!("The query cannot be read: {why}."))
                .fix("docs/admin-api.json names the parameters of each call and their types.")
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(value)| Self(value)).map_err(|_: PathRejection| {
            ApiError::bad_request("The path is not valid UTF-8 when its percent signs are resolved.")
                .fix("Percent-encode names as UTF-8.")
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for ApiBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        bytes::Bytes::from_request(request, state).await.map(Self).map_err(unreadable_body)
    }
}

fn unreadable_json(rejection: JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body is not declared as JSON.",
        )
        .fix("Send `Content-Type: application/json`."),
        JsonRejection::JsonSyntaxError(error) => {
            ApiError::bad_request(format!("The body is not JSON: {}.", without_values(&root_cause(&error))))
                .fix("Send one JSON object in UTF-8.")
        }
        JsonRejection::JsonDataError(error) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "wrong_body",
            format!("The body does not fit the call: {}.", without_values(&root_cause(&error))),
        )
        .fix("docs/admin-api.json names the fields of each call and their types."),
        JsonRejection::BytesRejection(rejection) => unreadable_body(rejection),
        _ => ApiError::bad_request("The body cannot be read.").fix("Send one JSON object in UTF-8."),
    }
}

fn unreadable_body(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "content_too_large",
            "The body is larger than the call takes.",
        )
        .fix("An import takes 64 MiB, every other call 1 MiB. Send a large import in parts.");
    }
    ApiError::bad_request("The body broke off before its end.").fix("Send it again.")
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// serde names the value that it met, in quotes of one kind or another; what remains says where and which
/// type was expected.
fn without_values(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(open) = rest.find(['"', '`']) {
        let quote = &rest[open..=open];
        let before = &rest[..open];
        // Names of fields are ours, except one that is unknown.
        let is_ours = quote == "`"
            && !before.ends_with("unknown field ")
            && !before.ends_with("unknown variant ")
            && !before.ends_with("integer ")
            && !before.ends_with("floating point ")
            && !before.ends_with("boolean ")
            && !before.ends_with("character ");
        let inside = &rest[open + 1..];
        let close = closing(inside, quote);
        kept.push_str(before);
        kept.push_str(if is_ours { &rest[open..(open + close + 2).min(rest.len())] } else { "…" });
        rest = inside.get(close + 1..).unwrap_or_default();
    }
    kept.push_str(rest);
    // Before it stands where it was found, which is its name once more.
    match kept.find("unknown field …") {
        Some(at) => kept[at..].to_owned(),
        None => kept,
    }
}

/// Where a quoted text ends; a value in double quotes is escaped.
fn closing(inside: &str, quote: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if !escaped && inside[at..].starts_with(quote) {
            return at;
        }
        escaped = !escaped && c == '\\' && quote == "\"";
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_quoted_and_what_was_expected_is() {
        for (said, told) in [
            (
                r#"invalid type: string "s3\"cret", expected u32 at line 1 column 9"#,
                "invalid type: string …, expected u32 at line 1 column 9",
            ),
            ("missing field `realm` at line 1", "missing field `realm` at line 1"),
            ("unknown field `s3cret`, expected `pattern`", "unknown field …, expected `pattern`"),
            ("s3cret: unknown field `s3cret`, expected `a`", "unknown field …, expected `a`"),
            ("invalid type: integer `12`, expected a string", "invalid type: integer …, expected a string"),
            (r#"an open "end"#, "an open …"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_values(said), told);
        }
    }
}
