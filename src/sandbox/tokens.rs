//! Codes, access tokens and refresh tokens, and when each of them dies.
//! A token belongs to one platform, one client and one holder, and is good for nothing else.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::behavior::{Behavior, LARGEST_TOKEN, SMALLEST_TOKEN};
use super::host_role::Platform;
use crate::clock::Timestamp;

/// "It will expire within a few minutes" (Authentication & Pairing V2, 4.1.2).
const CODE_LIFE: Duration = Duration::from_secs(5 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// "Refresh token can be used for up to one year" (migration notice, "Current").
const OLD_REFRESH_LIFE: Duration = DAY.saturating_mul(365);
/// "If unused for over 3 months, re-authentication and pairing will be required" (migration notice, "New").
const NEW_REFRESH_UNUSED: Duration = DAY.saturating_mul(90);
/// Random characters at the end of each access token, by which it is found.
const TAIL: usize = 32;
const DEAD_KEPT: usize = 100_000;

/// Whom a token speaks for: a person before pairing, an account after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    User(String),
    Account(u64),
}

impl Holder {
    pub fn account(&self) -> Option<u64> {
        match self {
            Holder::Account(id) => Some(*id),
            Holder::User(_) => None,
        }
    }
}

/// Who asked, of whom: what every token carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub platform: Platform,
    pub client_id: String,
    pub holder: Holder,
}

/// An access token that was issued.
#[derive(Clone, Serialize, Deserialize)]
pub struct IssuedAccess {
    text: Box<str>,
    /// Counts all access tokens of this sandbox, so that a record can name one without printing it.
    pub serial: u64,
    pub grant: Grant,
    #[serde(rename = "dies_at")]
    pub expires_at: Timestamp,
}

/// A refresh token with the access tokens that were issued under it.
#[derive(Clone, Serialize, Deserialize)]
struct RefreshFamily {
    grant: Grant,
    issued: Timestamp,
    used: Timestamp,
    /// The tails of access tokens issued under it, oldest first.
    #[serde(skip)]
    access: Vec<Tail>,
}

/// An authorization code that nobody has exchanged yet.
struct IssuedCode {
    grant: Grant,
    redirect_uri: String,
    expires_at: Timestamp,
}

type Tail = [u8; TAIL];

/// What a token response carries.
pub struct Issued {
    pub access: String,
    pub refresh: String,
    pub expires_in: u64,
}

/// Every token and code of all platforms.
#[derive(Default)]
pub struct TokenStore {
    access: HashMap<Tail, IssuedAccess>,
    refresh: HashMap<String, RefreshFamily>,
    codes: HashMap<String, IssuedCode>,
    issued: u64,
    /// Whose the refresh tokens were that are no more: a record wants to know who still comes with one.
    dead: HashMap<String, u64>,
}

/// Every token that is alive, and whose the dead ones were. Codes live for minutes and are left out.
#[derive(Serialize, Deserialize)]
pub struct SavedTokens {
    /// Each with the refresh token that it was issued under, as long as
    /// there is one, in the order of their issue.
    access: Vec<(Option<String>, IssuedAccess)>,
    refresh: HashMap<String, RefreshFamily>,
    issued: u64,
    dead: HashMap<String, u64>,
}

impl TokenStore {
    pub fn save(&self) -> SavedTokens {
        let mut access: HashMap<Tail, (Option<String>, IssuedAccess)> =
            self.access.iter().map(|(tail, access)| (*tail, (None, access.clone()))).collect();
        for (name, family) in &self.refresh {
            for tail in &family.access {
                if let Some((under, _)) = access.get_mut(tail) {
                    *under = Some(name.clone());
                }
            }
        }
        let mut access: Vec<_> = access.into_values().collect();
        access.sort_by_key(|(_, access)| access.serial);
        SavedTokens { access, refresh: self.refresh.clone(), issued: self.issued, dead: self.dead.clone() }
    }

    pub fn restore(saved: SavedTokens) -> Self {
        let mut tokens =
            Self { refresh: saved.refresh, issued: saved.issued, dead: saved.dead, ..Self::default() };
        for (under, access) in saved.access {
            let Some(tail) = tail_of(&access.text) else { continue };
            if let Some(family) = under.and_then(|name| tokens.refresh.get_mut(&name)) {
                family.access.push(tail);
            }
            tokens.access.insert(tail, access);
        }
        tokens
    }

    pub fn new_code(&mut self, grant: Grant, redirect_uri: String, now: Timestamp) -> String {
        self.codes.retain(|_, code| code.expires_at > now);
        let text = random_text(24);
        self.codes.insert(text.clone(), IssuedCode { grant, redirect_uri, expires_at: now + CODE_LIFE });
        text
    }

    /// Spends a code. Whatever is wrong with it, it is gone afterwards.
    pub fn take_code(
        &mut self,
        text: &str,
        platform: Platform,
        client_id: &str,
        redirect_uri: &str,
        now: Timestamp,
    ) -> Option<Grant> {
        let code = self.codes.remove(text)?;
        let fits = code.grant.platform == platform
            && code.grant.client_id == client_id
            && code.redirect_uri == redirect_uri
            && code.expires_at > now;
        fits.then_some(code.grant)
    }

    pub fn new_refresh(&mut self, grant: Grant, now: Timestamp) -> String {
        let text = random_uuid();
        self.refresh
            .insert(text.clone(), RefreshFamily { grant, issued: now, used: now, access: Vec::new() });
        text
    }

    /// The grant behind a refresh token that lives at `platform`.
    pub fn refresh_grant(&self, text: &str, platform: Platform, now: Timestamp) -> Option<&Grant> {
        let refresh = self.refresh.get(text)?;
        let alive = match refresh.grant.platform {
            Platform::New => now.since(refresh.used) <= NEW_REFRESH_UNUSED,
            Platform::Old | Platform::China => now.since(refresh.issued) <= OLD_REFRESH_LIFE,
        };
        (alive && refresh.grant.platform == platform).then_some(&refresh.grant)
    }

    /// Uses a living refresh token. The caller has checked it with [`TokenStore::refresh_grant`].
    pub fn renew(&mut self, text: &str, behavior: &Behavior, now: Timestamp) -> Option<Issued> {
        self.refresh.get_mut(text)?.used = now;
        if behavior.refresh_returns_living_access
            && let Some(living) = self.newest_living(text, now)
        {
            return Some(living);
        }
        if behavior.refresh_ends_older_access {
            self.end_access_of(text);
        }
        let mut refresh = text.to_owned();
        if behavior.rotate_refresh {
            let mut used = self.retire(text)?;
            used.issued = now;
            refresh = random_uuid();
            self.refresh.insert(refresh.clone(), used);
        }
        self.issue(&refresh, behavior, now)
    }

    /// A fresh access token under a refresh token.
    pub fn issue(&mut self, refresh: &str, behavior: &Behavior, now: Timestamp) -> Option<Issued> {
        self.issued += 1;
        let family = self.refresh.get_mut(refresh)?;
        // Dead ones go here and not by a timer: nobody can tell the difference, and memory stays bounded.
        family.access.retain(|tail| {
            let alive = self.access.get(tail).is_some_and(|access| access.expires_at > now);
            if !alive {
                self.access.remove(tail);
            }
            alive
        });
        let text = access_text(&family.grant, self.issued, behavior.token_size, now);
        let tail = tail_of(&text)?;
        family.access.push(tail);
        let access = IssuedAccess {
            text: text.clone().into_boxed_str(),
            serial: self.issued,
            grant: family.grant.clone(),
            expires_at: now + behavior.access_token_life,
        };
        self.access.insert(tail, access);
        Some(Issued {
            access: text,
            refresh: refresh.to_owned(),
            expires_in: behavior.access_token_life.as_secs(),
        })
    }

    /// A bearer that lives at `platform`.
    pub fn bearer(&self, text: &str, platform: Platform, now: Timestamp) -> Option<&IssuedAccess> {
        let access = self.known(text)?;
        (access.expires_at > now && access.grant.platform == platform).then_some(access)
    }

    /// A bearer that was ever issued here and not ended, living or not: for the record.
    pub fn known(&self, text: &str) -> Option<&IssuedAccess> {
        let access = self.access.get(&tail_of(text)?)?;
        (*access.text == *text).then_some(access)
    }

    /// The refresh token behind a token that is to be revoked, whichever of the two kinds it is.
    pub fn family_of(&self, text: &str, platform: Platform) -> Option<(String, Grant)> {
        let name = match self.refresh.get(text) {
            Some(_) => text.to_owned(),
            None => {
                self.known(text)?;
                let tail = tail_of(text)?;
                self.refresh.iter().find(|(_, family)| family.access.contains(&tail))?.0.clone()
            }
        };
        let grant = self.refresh.get(&name)?.grant.clone();
        (grant.platform == platform).then_some((name, grant))
    }

    /// Ends a refresh token and every access token under it.
    pub fn end_family(&mut self, refresh: &str) {
        self.end_access_of(refresh);
        self.retire(refresh);
    }

    /// Ends a refresh token; access tokens live on to their end.
    pub fn forget_refresh(&mut self, refresh: &str) {
        self.retire(refresh);
    }

    /// Whose refresh token this is or was.
    pub fn owner_of(&self, refresh: &str) -> Option<u64> {
        match self.refresh.get(refresh) {
            Some(living) => living.grant.holder.account(),
            None => self.dead.get(refresh).copied(),
        }
    }

    fn retire(&mut self, refresh: &str) -> Option<RefreshFamily> {
        let buried = self.refresh.remove(refresh)?;
        if let Some(account) = buried.grant.holder.account() {
            // Rotation under load would grow this for ever.
            if self.dead.len() >= DEAD_KEPT {
                self.dead.clear();
            }
            self.dead.insert(refresh.to_owned(), account);
        }
        Some(buried)
    }

    /// Also finds those whose refresh token is no more.
    pub fn end_access_where(&mut self, doomed: impl Fn(&Grant) -> bool) {
        self.access.retain(|_, access| !doomed(&access.grant));
    }

    fn end_access_of(&mut self, refresh: &str) {
        if let Some(family) = self.refresh.get_mut(refresh) {
            for tail in family.access.drain(..) {
                self.access.remove(&tail);
            }
        }
    }

    fn newest_living(&self, refresh: &str, now: Timestamp) -> Option<Issued> {
        let tail = self.refresh.get(refresh)?.access.last()?;
        let access = self.access.get(tail).filter(|access| access.expires_at > now)?;
        Some(Issued {
            access: access.text.to_string(),
            refresh: refresh.to_owned(),
            expires_in: access.expires_at.since(now).as_secs(),
        })
    }
}

/// Random bytes as text without padding; `bytes` of them.
pub fn random_text(bytes: usize) -> String {
    let mut raw = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut raw).expect("the system's random source answers, or nothing here is safe");
    URL_SAFE_NO_PAD.encode(raw)
}

/// 36 characters, within the "up to 40" of Authentication & Pairing V2, 4.1.2.
fn random_uuid() -> String {
    let mut raw = [0; 16];
    aws_lc_rs::rand::fill(&mut raw).expect("the system's random source answers, or nothing here is safe");
    let hex = hex::encode(raw);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `header.payload.signature` of exactly `size` characters, or plain random text where that does not fit.
fn access_text(grant: &Grant, serial: u64, size: usize, now: Timestamp) -> String {
    let size = size.clamp(SMALLEST_TOKEN, LARGEST_TOKEN);
    let payload = serde_json::json!({
        "iss": "sandbox", "jti": serial, "iat": now.as_secs(), "aud": grant.client_id,
        "sub": match &grant.holder { Holder::User(email) => email.clone(), Holder::Account(id) => id.to_string() },
    });
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let mut text = format!("{head}.{}.", URL_SAFE_NO_PAD.encode(payload.to_string()));
    if text.len() + TAIL > size {
        text.clear();
    }
    let filler = size - TAIL - text.len();
    // A signature's look over any length, without asking the random source for 8 KiB per token.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..filler {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(ALPHABET[(state >> 58) as usize]));
    }
    text.push_str(&random_text(TAIL / 4 * 3));
    text
}

fn tail_of(text: &str) -> Option<Tail> {
    text.as_bytes().last_chunk::<TAIL>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn grant(platform: Platform) -> Grant {
        Grant { platform, client_id: "c".to_owned(), holder: Holder::Account(7) }
    }

    #[test]
    fn an_access_token_has_exactly_the_size_asked_for_and_looks_like_a_jwt_where_it_can() {
        for size in [48, 100, 1536, 8192] {
            let text = access_text(&grant(Platform::New), 1, size, START);
            assert_eq!(text.len(), size);
        }
        assert_eq!(access_text(&grant(Platform::New), 1, 1536, START).split('.').count(), 3);
    }

    #[test]
    fn an_unused_refresh_token_dies_after_three_months_on_the_new_platform_and_a_used_one_does_not() {
        let mut tokens = TokenStore::default();
        let text = tokens.new_refresh(grant(Platform::New), START);
        let later = START + DAY * 80;
        assert!(tokens.refresh_grant(&text, Platform::New, later).is_some());
        tokens.renew(&text, &Behavior::default(), later).unwrap();
        assert!(tokens.refresh_grant(&text, Platform::New, START + DAY * 160).is_some());
        assert!(tokens.refresh_grant(&text, Platform::New, START + DAY * 171).is_none());
    }

    #[test]
    fn an_old_refresh_token_dies_a_year_after_it_was_issued_used_or_not() {
        let mut tokens = TokenStore::default();
        let text = tokens.new_refresh(grant(Platform::Old), START);
        tokens.renew(&text, &Behavior::default(), START + DAY * 364).unwrap();
        assert!(tokens.refresh_grant(&text, Platform::Old, START + DAY * 365).is_some());
        assert!(tokens.refresh_grant(&text, Platform::Old, START + DAY * 366).is_none());
    }

    #[test]
    fn tokens_outlive_a_restart_and_so_does_what_they_hang_on() {
        let mut tokens = TokenStore::default();
        let first = tokens.new_refresh(grant(Platform::New), START);
        let access = tokens.issue(&first, &Behavior::default(), START).unwrap().access;
        let rotating = Behavior { rotate_refresh: true, ..Behavior::default() };
        let next = tokens.renew(&first, &rotating, START).unwrap();
        let text = serde_json::to_string(&tokens.save()).unwrap();
        let mut again = TokenStore::restore(serde_json::from_str(&text).unwrap());
        for bearer in [&access, &next.access] {
            assert!(again.bearer(bearer, Platform::New, START).is_some());
            assert_eq!(again.family_of(bearer, Platform::New).unwrap().0, next.refresh);
        }
        assert!(again.refresh_grant(&first, Platform::New, START).is_none());
        assert_eq!(again.owner_of(&first), Some(7));
        let renewed = again.renew(&next.refresh, &rotating, START).unwrap();
        assert!(again.bearer(&renewed.access, Platform::New, START).unwrap().serial > 2);
    }

    #[test]
    fn a_rotated_refresh_token_is_dead_and_its_access_token_lives() {
        let mut tokens = TokenStore::default();
        let behavior = Behavior { rotate_refresh: true, ..Behavior::default() };
        let first = tokens.new_refresh(grant(Platform::New), START);
        let access = tokens.issue(&first, &behavior, START).unwrap().access;
        let next = tokens.renew(&first, &behavior, START).unwrap();
        assert_ne!(next.refresh, first);
        assert!(tokens.refresh_grant(&first, Platform::New, START).is_none());
        assert!(tokens.refresh_grant(&next.refresh, Platform::New, START).is_some());
        assert!(tokens.bearer(&access, Platform::New, START).is_some());
    }

    #[test]
    fn a_token_is_worth_nothing_on_another_platform_or_with_one_character_changed() {
        let mut tokens = TokenStore::default();
        let refresh = tokens.new_refresh(grant(Platform::China), START);
        let access = tokens.issue(&refresh, &Behavior::default(), START).unwrap().access;
        assert!(tokens.refresh_grant(&refresh, Platform::New, START).is_none());
        assert!(tokens.bearer(&access, Platform::New, START).is_none());
        let forged = format!("x{}", &access[1..]);
        assert!(tokens.bearer(&forged, Platform::China, START).is_none());
        assert!(tokens.bearer(&access, Platform::China, START).is_some());
    }
}
