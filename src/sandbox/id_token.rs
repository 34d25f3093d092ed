//! The `id_token` of a code exchange, in the form that OpenID Connect prescribes where the scope is `openid`
//! (Core 1.0, 2 and 3.1.3.3): stock libraries read its claims as soon as it is there.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::behavior::Behavior;
use super::tokens::random_text;
use crate::clock::Timestamp;

/// Bytes of an RS256 signature by a 2048-bit key.
const SIGNATURE: usize = 256;

/// Says who has logged in where, for which application. Its signature is random: the vendor's documents name
/// no place where the keys to check it would be, and after a code exchange nobody has to (Core 1.0, 3.1.3.7).
pub fn id_token(issuer: &str, client_id: &str, email: &str, behavior: &Behavior, now: Timestamp) -> String {
    let subject = super::hex(&digest::digest(&digest::SHA256, email.as_bytes()).as_ref()[..16]);
    let claims = json!({
        "iss": issuer,
        "sub": subject,
        "aud": client_id,
        "iat": now.as_secs(),
        "exp": now.as_secs() + behavior.access_token_life.as_secs(),
        // "Cached user profile" (Authentication & Pairing V2, 4.1.2).
        "email": email,
    });
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    format!("{head}.{}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()), random_text(SIGNATURE))
}
