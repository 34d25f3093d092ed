//! Gateway tokens: what an application that refreshes by itself gets instead of Align's bearer. Stateless,
//! bound to one caller and one account, and worth nothing at the platform.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::access::application_grants::{ApplicationGrants, GrantStamp};
use crate::clock::Timestamp;
use crate::config::defaults::FACADE_TOKEN_LIFE;
use crate::model::account::AccountName;

/// Tells our tokens from callers' keys and from Align's bearers before anything is computed.
pub const PREFIX: &str = "gwt_";
/// The same for the token of an application's login, which is for no account yet.
pub const LOGIN_PREFIX: &str = "gwlt_";

/// Bound to a caller and an account.
const PLAIN: u8 = 1;
/// Bound to an application grant too, and padded.
const GRANTED: u8 = 2;
/// Bound to a caller and a login of its own.
const LOGIN: u8 = 3;
const MAC: usize = 32;
/// No token lives longer than the default, which is the vendor's hour.
const LIFETIME: Duration = FACADE_TOKEN_LIFE;
/// What gateways that share a key may disagree about the time.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Version, expiry and two lengths.
const FIXED: usize = 1 + 8 + 2;
/// The grant's mark.
const STAMP: usize = 8;

/// The key that signs gateway tokens; replicas share it, and it outlives a restart. Older ones are read with,
/// so that a change of keys ends nobody's token.
pub struct TokenKey {
    signing: hmac::Key,
    older: Vec<hmac::Key>,
    /// A token that came of one of these ends with it.
    grants: Arc<ApplicationGrants>,
    /// When this process began: older tokens may come from one whose clock was wrong.
    process_start: Timestamp,
}

/// What a valid gateway token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    pub caller: String,
    pub account: AccountName,
    pub expires_at: Timestamp,
    /// The application grant that it came of, if it did.
    pub grant: Option<GrantStamp>,
}

/// What the valid token of an application's login says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClaims {
    pub caller: String,
    /// Names the login; no secret.
    pub login: [u8; 32],
}

/// What a login's token is minted for.
#[derive(Debug, Clone, Copy)]
pub struct NewLoginToken<'a> {
    pub caller: &'a str,
    pub login: [u8; 32],
    pub expires_at: Timestamp,
    /// As [`NewToken::size`].
    pub size: usize,
}

/// What an access token is minted for.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    pub caller: &'a str,
    pub account: &'a AccountName,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub grant: Option<GrantStamp>,
    /// How many bytes it has at least, as far as base64 has a text of that length.
    pub size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GatewayTokenError {
    #[error("not a gateway token of this gateway")]
    Forged,
    #[error("the gateway token has expired: refresh it at /oauth2/token")]
    Expired,
    /// The application grant that it came of was revoked or replaced.
    #[error("the gateway token's grant was revoked")]
    Revoked,
}

impl TokenKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        let grants = Arc::default();
        Self { signing: key(secret), older: Vec::new(), grants, process_start: Timestamp::default() }
    }

    /// Takes no token whose application grant is none of these.
    #[must_use]
    pub fn with_application_grants(mut self, grants: Arc<ApplicationGrants>) -> Self {
        self.grants = grants;
        self
    }

    /// For a process that began at this moment.
    #[must_use]
    pub fn with_process_start(mut self, at: Timestamp) -> Self {
        self.process_start = at;
        self
    }

    /// Takes tokens too that were signed under another key.
    #[must_use]
    pub fn with_older_key(mut self, secret: &[u8; 32]) -> Self {
        self.older.push(key(secret));
        self
    }

    /// `None` where a name is too long for the format (255 bytes).
    pub fn mint(&self, new_token: NewToken<'_>) -> Option<String> {
        let (caller, account) = (new_token.caller, new_token.account.as_str());
        let padded = padded(new_token.size, PREFIX);
        let mut bytes =
            Vec::with_capacity((FIXED + caller.len() + account.len() + STAMP + 8).max(padded) + MAC);
        let version = if new_token.grant.is_some() || new_token.size > 0 { GRANTED } else { PLAIN };
        bytes.push(version);
        bytes.extend_from_slice(&new_token.expires_at.as_millis().to_be_bytes());
        push_text(&mut bytes, caller)?;
        push_text(&mut bytes, account)?;
        if version == GRANTED {
            bytes.extend_from_slice(&new_token.grant.map_or([0; STAMP], GrantStamp::to_bytes));
            bytes.extend_from_slice(&new_token.issued_at.as_millis().to_be_bytes());
            bytes.resize(bytes.len().max(padded), 0);
        }
        Some(self.seal(PREFIX, bytes))
    }

    /// The token of an application's login; `None` as above.
    pub fn mint_login(&self, new_token: NewLoginToken<'_>) -> Option<String> {
        let padded = padded(new_token.size, LOGIN_PREFIX);
        let mut bytes = vec![LOGIN];
        bytes.extend_from_slice(&new_token.expires_at.as_millis().to_be_bytes());
        push_text(&mut bytes, new_token.caller)?;
        bytes.extend_from_slice(&new_token.login);
        bytes.resize(bytes.len().max(padded), 0);
        Some(self.seal(LOGIN_PREFIX, bytes))
    }

    fn seal(&self, prefix: &str, mut bytes: Vec<u8>) -> String {
        let mac = hmac::sign(&self.signing, &bytes);
        bytes.extend_from_slice(mac.as_ref());
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Compares in constant time before anything inside is looked at. A token that ends later than any that
    /// could be handed out now was made by a clock that was wrong, before this process began: it ends within
    /// a life of that.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<TokenClaims, GatewayTokenError> {
        let (claims, issued_at) = self.read_with_age(token, now)?;
        let is_granted = claims.grant.is_none_or(|grant| {
            self.grants.is_valid(grant, &claims.caller, &claims.account)
                || self.grants.may_be_unpropagated(issued_at, now)
        });
        if is_granted { Ok(claims) } else { Err(GatewayTokenError::Revoked) }
    }

    /// What a token says, whether or not its application grant still stands.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<TokenClaims, GatewayTokenError> {
        self.read_with_age(token, now).map(|(claims, _)| claims)
    }

    fn read_with_age(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<(TokenClaims, Timestamp), GatewayTokenError> {
        let read = self.decode(token).ok_or(GatewayTokenError::Forged)?;
        if self.is_over(read.0.expires_at, now) { Err(GatewayTokenError::Expired) } else { Ok(read) }
    }

    /// The same for a login's token. Whether the login counts still is for the store to say.
    pub fn verify_login(&self, token: &str, now: Timestamp) -> Result<LoginClaims, GatewayTokenError> {
        let (claims, expires_at) = self.decode_login(token).ok_or(GatewayTokenError::Forged)?;
        if self.is_over(expires_at, now) { Err(GatewayTokenError::Expired) } else { Ok(claims) }
    }

    fn is_over(&self, expires_at: Timestamp, now: Timestamp) -> bool {
        let is_believable = expires_at <= now + LIFETIME + CLOCK_SKEW || now < self.process_start + LIFETIME;
        expires_at <= now || !is_believable
    }

    /// What is signed of a token.
    fn open(&self, prefix: &str, token: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(prefix)?).ok()?;
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
        let keys = std::iter::once(&self.signing).chain(&self.older);
        keys.map(|key| hmac::verify(key, body, mac)).find(Result::is_ok)?.ok()?;
        bytes.truncate(bytes.len() - MAC);
        Some(bytes)
    }

    fn decode_login(&self, token: &str) -> Option<(LoginClaims, Timestamp)> {
        let body = self.open(LOGIN_PREFIX, token)?;
        let (version, rest) = body.split_first()?;
        let (expiry, rest) = rest.split_first_chunk::<8>()?;
        let (caller, rest) = text(rest)?;
        // The padding behind it is covered by the signature, so it says what we wrote: nothing.
        let login = *rest.first_chunk::<32>()?;
        let claims = LoginClaims { caller: caller.to_owned(), login };
        let expires_at = Timestamp::from_millis(u64::from_be_bytes(*expiry));
        (*version == LOGIN).then_some((claims, expires_at))
    }

    /// What it says, and when it was issued where it says that.
    fn decode(&self, token: &str) -> Option<(TokenClaims, Timestamp)> {
        let body = self.open(PREFIX, token)?;
        let (version, rest) = body.split_first()?;
        let (expiry, rest) = rest.split_first_chunk::<8>()?;
        let (caller, rest) = text(rest)?;
        let (account, rest) = text(rest)?;
        let (grant, issued_at) = match *version {
            PLAIN if rest.is_empty() => (None, 0),
            // The padding behind them is covered by the signature, so it says what we wrote: nothing.
            GRANTED => {
                let (stamp, rest) = rest.split_first_chunk::<STAMP>()?;
                (GrantStamp::from_bytes(*stamp), u64::from_be_bytes(*rest.first_chunk::<8>()?))
            }
            _ => return None,
        };
        let claims = TokenClaims {
            caller: caller.to_owned(),
            account: account.parse().ok()?,
            expires_at: Timestamp::from_millis(u64::from_be_bytes(*expiry)),
            grant,
        };
        Some((claims, Timestamp::from_millis(issued_at)))
    }
}

fn key(secret: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

/// How long the signed part is at least for a token of a size.
fn padded(size: usize, prefix: &str) -> usize {
    (size.saturating_sub(prefix.len()) * 3 / 4).saturating_sub(MAC)
}

/// `None` where it is longer than the format has room for.
fn push_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.push(u8::try_from(text.len()).ok()?);
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::application_grants;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn new_token() -> NewToken<'static> {
        static ACCOUNT: std::sync::LazyLock<AccountName> =
            std::sync::LazyLock::new(|| "smile".parse().unwrap());
        NewToken {
            caller: "lab-sync",
            account: &ACCOUNT,
            issued_at: NOW,
            expires_at: NOW,
            grant: None,
            size: 0,
        }
    }

    fn minted(key: &TokenKey) -> String {
        let expires_at = NOW + Duration::from_secs(60);
        key.mint(NewToken { expires_at, ..new_token() }).unwrap()
    }

    #[test]
    fn a_token_says_who_and_which_account_until_it_expires() {
        let key = TokenKey::new(&[7; 32]);
        let token = minted(&key);
        let claims = key.verify(&token, NOW).unwrap();
        assert_eq!((claims.caller.as_str(), claims.account.as_str()), ("lab-sync", "smile"));
        assert_eq!(key.verify(&token, claims.expires_at), Err(GatewayTokenError::Expired));
    }

    #[test]
    fn a_token_that_a_clock_two_days_ahead_made_ends_within_a_life_of_the_restart() {
        let key = TokenKey::new(&[7; 32]).with_process_start(NOW);
        let far = NOW + Duration::from_secs(2 * 86_400) + LIFETIME;
        let token = key.mint(NewToken { expires_at: far, ..new_token() }).unwrap();
        assert!(key.verify(&token, NOW + LIFETIME - Duration::from_secs(1)).is_ok(), "it may be minutes old");
        assert_eq!(key.verify(&token, NOW + LIFETIME), Err(GatewayTokenError::Expired));
    }

    #[test]
    fn a_token_has_the_size_that_was_asked_for_as_far_as_base64_goes() {
        let key = TokenKey::new(&[7; 32]);
        let expires_at = NOW + Duration::from_secs(60);
        for size in [1, 64, 200, 1199, 1200, 1201, 1202, 8192] {
            let token = key.mint(NewToken { expires_at, size, ..new_token() }).unwrap();
            assert!(token.len() <= size.max(130) && token.len() + 1 >= size, "{size}: {}", token.len());
            let claims = key.verify(&token, NOW).unwrap();
            assert_eq!((claims.account.as_str(), claims.grant), ("smile", None));
        }
    }

    #[test]
    fn a_logins_token_opens_no_account_and_an_accounts_token_no_login() {
        let key = TokenKey::new(&[7; 32]);
        let expires_at = NOW + Duration::from_secs(60);
        for size in [0, 1200, 8192] {
            let new_token = NewLoginToken { caller: "oldpms", login: [9; 32], expires_at, size };
            let token = key.mint_login(new_token).unwrap();
            assert!(token.len() + 1 >= size, "{size}: {}", token.len());
            let claims = key.verify_login(&token, NOW).unwrap();
            assert_eq!((claims.caller.as_str(), claims.login), ("oldpms", [9; 32]));
            assert_eq!(key.verify_login(&token, expires_at), Err(GatewayTokenError::Expired));
            let renamed = token.replacen(LOGIN_PREFIX, PREFIX, 1);
            assert_eq!(key.verify(&renamed, NOW), Err(GatewayTokenError::Forged));
        }
        let renamed = minted(&key).replacen(PREFIX, LOGIN_PREFIX, 1);
        assert_eq!(key.verify_login(&renamed, NOW), Err(GatewayTokenError::Forged));
    }

    #[test]
    fn a_token_ends_with_the_application_grant_that_it_came_of() {
        let grant = crate::store::ApplicationGrant {
            caller: "lab-sync".to_owned(),
            account: "smile".parse().unwrap(),
            refresh: application_grants::fresh_token(),
            callback_url: None,
        };
        let stamp = GrantStamp::of(&grant.refresh);
        let grants = Arc::new(ApplicationGrants::load([grant]));
        let key = TokenKey::new(&[7; 32]).with_application_grants(grants.clone());
        let new_token =
            NewToken { expires_at: NOW + Duration::from_secs(60), grant: Some(stamp), ..new_token() };
        let token = key.mint(new_token).unwrap();
        assert_eq!(key.verify(&token, NOW).unwrap().grant, Some(stamp));
        let crossed = key.mint(NewToken { caller: "oldpms", ..new_token }).unwrap();
        assert_eq!(key.verify(&crossed, NOW), Err(GatewayTokenError::Revoked), "another caller's grant");
        grants.remove("lab-sync", new_token.account);
        assert_eq!(key.verify(&token, NOW), Err(GatewayTokenError::Revoked));
    }

    #[test]
    fn a_token_of_an_older_key_is_read_and_none_is_signed_with_it() {
        let (old, new) = (TokenKey::new(&[7; 32]), TokenKey::new(&[8; 32]));
        let both = TokenKey::new(&[8; 32]).with_older_key(&[7; 32]);
        assert_eq!(both.verify(&minted(&old), NOW).unwrap().caller, "lab-sync");
        assert!(new.verify(&minted(&both), NOW).is_ok());
        assert_eq!(old.verify(&minted(&both), NOW), Err(GatewayTokenError::Forged));
        assert_eq!(both.verify(&minted(&TokenKey::new(&[9; 32])), NOW), Err(GatewayTokenError::Forged));
    }

    #[test]
    fn a_changed_cut_or_foreign_token_is_forged() {
        let key = TokenKey::new(&[7; 32]);
        let token = minted(&key);
        let foreign = minted(&TokenKey::new(&[8; 32]));
        for at in PREFIX.len()..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key.verify(&changed, NOW), Err(GatewayTokenError::Forged), "{at}");
            assert_eq!(key.verify(&token[..at], NOW), Err(GatewayTokenError::Forged), "{at}");
        }
        assert_eq!(key.verify(&foreign, NOW), Err(GatewayTokenError::Forged));
        assert_eq!(key.verify("eyJhbGciOi", NOW), Err(GatewayTokenError::Forged));
    }
}
