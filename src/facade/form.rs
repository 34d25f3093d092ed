//! The form of a request for or about a token: a form and nothing else, each field once (gen-api, section 2:
//! no JSON).

use crate::http1::{Headers, KnownHeader, ascii_str};

use super::credentials::sha256;

/// Far above any form that the documents describe (a refresh token has 40 characters).
pub const MAX_FORM: usize = 16 * 1024;

/// The fields of a request for or about a token; absent ones are empty.
#[derive(Default)]
pub struct TokenForm {
    pub grant_type: String,
    pub refresh_token: String,
    /// The token to revoke.
    pub token: String,
    /// The code of a login, and what has to come with it.
    pub code: String,
    pub redirect_uri: Option<String>,
    pub code_verifier: Option<String>,
    pub client_id: String,
    /// SHA-256 of it, where the form has one.
    pub client_secret: Option<[u8; 32]>,
}

impl TokenForm {
    /// The error is a sentence for `error_description`.
    pub fn read(headers: &Headers, body: &[u8]) -> Result<Self, &'static str> {
        let kind = headers.get(KnownHeader::ContentType).and_then(ascii_str).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err("the body must be application/x-www-form-urlencoded");
        }
        let mut form = Self::default();
        let mut seen = Vec::new();
        for (field, value) in form_urlencoded::parse(body) {
            if seen.contains(&field) {
                return Err("a parameter stands twice in the form");
            }
            seen.push(field.clone());
            if value.is_empty() {
                // RFC 6749, 3.1: as if it had been left out.
                continue;
            }
            match field.as_ref() {
                "grant_type" => form.grant_type = value.into_owned(),
                "refresh_token" => form.refresh_token = value.into_owned(),
                "token" => form.token = value.into_owned(),
                "code" => form.code = value.into_owned(),
                "redirect_uri" => form.redirect_uri = Some(value.into_owned()),
                "code_verifier" => form.code_verifier = Some(value.into_owned()),
                "client_id" => form.client_id = value.into_owned(),
                "client_secret" => form.client_secret = Some(sha256(value.as_bytes())),
                _ => {}
            }
        }
        Ok(form)
    }

    /// The same for a token request, which says what it is for.
    pub fn read_token_request(headers: &Headers, body: &[u8]) -> Result<Self, &'static str> {
        let form = Self::read(headers, body)?;
        if form.grant_type.is_empty() { Err("grant_type is missing") } else { Ok(form) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<TokenForm, &'static str> {
        let headers = Headers::from_pairs([("content-type", kind)]).unwrap();
        TokenForm::read_token_request(&headers, body.as_bytes())
    }

    #[test]
    fn a_form_is_read_and_nothing_else() {
        let form = read(
            "application/x-www-form-urlencoded; charset=utf-8",
            "grant_type=refresh_token&refresh_token=a%2Bb",
        )
        .unwrap();
        assert_eq!((form.grant_type.as_str(), form.refresh_token.as_str()), ("refresh_token", "a+b"));
        assert!(read("application/json", r#"{"grant_type":"refresh_token"}"#).is_err());
        assert!(read("application/x-www-form-urlencoded", "").is_err());
    }

    #[test]
    fn a_doubled_parameter_is_refused() {
        let body = "grant_type=refresh_token&refresh_token=a&refresh_token=b";
        assert!(read("application/x-www-form-urlencoded", body).is_err());
    }
}
