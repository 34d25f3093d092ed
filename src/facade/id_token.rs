//! The `id_token` of a login, for applications that want one (`id_token = true`). It is made here, signed
//! with the client's own secret as OpenID Connect has it for confidential clients (Core, 10.1: HS256), and
//! names the login, not the person: the platform's own is never looked at.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::clock::Timestamp;
use crate::gateway::settings::CallerRules;
use crate::http1::Headers;
use crate::pairing::LoginId;

use super::credentials::{self, sha256};

/// What an `id_token` says.
pub struct IdTokenClaims<'a> {
    pub client_id: &'a str,
    pub login: LoginId,
    /// As the application sent it to the authorize endpoint.
    pub nonce: Option<&'a str>,
    /// By the time of day.
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The key that the request's own client secret makes; the secret itself is kept nowhere.
pub fn signing_key(headers: &Headers, body: &[u8], rules: &CallerRules) -> Option<hmac::Key> {
    let in_form = form_urlencoded::parse(body).filter(|(name, _)| name == "client_secret");
    let in_form = in_form.map(|(_, secret)| secret.into_owned().into_bytes());
    let mut secrets = in_form.chain(credentials::basic_secrets(headers));
    let right = secrets.find(|secret| rules.facade_secret_is(&sha256(secret)))?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &right))
}

/// The signed text.
pub fn mint(key: &hmac::Key, rules: &CallerRules, claims: &IdTokenClaims<'_>) -> String {
    let seconds = |at: Timestamp| at.as_millis() / 1000;
    let mut body = json!({
        "iss": format!("{}{}", rules.url.origin, rules.url.path),
        "sub": hex::encode(&claims.login.to_bytes()[..16]),
        "aud": claims.client_id,
        "iat": seconds(claims.issued_at),
        "auth_time": seconds(claims.issued_at),
        "exp": seconds(claims.expires_at),
    });
    if let Some(nonce) = claims.nonce {
        body["nonce"] = json!(nonce);
    }
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&body));
    let signature = hmac::sign(key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
