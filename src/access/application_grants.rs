//! What applications hold that refresh with the gateway instead of the platform: one grant for each caller
//! and account, with a refresh token of the gateway's own. The rule: such a token opens its own
//! account for its own caller, and nothing at the platform (threats, row 33).

use std::time::Duration;

use aws_lc_rs::{constant_time, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;

use crate::clock::Timestamp;
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::{ApplicationGrant, token_hash};

/// Tells our refresh tokens from the platform's.
const PREFIX: &str = "gwr_";
/// 216 bits; with the prefix 40 characters, which is the size that the vendor documents and old tables have
/// (Authentication and Pairing V2, 4.1.2).
const RANDOM_BYTES: usize = 27;

/// How long it may take until another gateway's grant is known here: ten times the half second after which
/// the store is polled for changes.
const PROPAGATION: Duration = Duration::from_secs(5);

/// The grants that stand, by their marks.
#[derive(Default)]
pub struct ApplicationGrants {
    by_stamp: DashMap<GrantStamp, ApplicationGrant>,
    /// Whether other gateways give grants out on the same store.
    is_shared: bool,
}

/// Marks a grant in the access tokens that came of it: the beginning of its refresh token's hash, so that a
/// new refresh token ends them. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantStamp(u64);

impl GrantStamp {
    pub fn of(token: &RefreshToken) -> Self {
        let hash = token_hash(token);
        let (beginning, _) = hash.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
        Self(u64::from_be_bytes(*beginning).max(1))
    }

    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// `None` for the zero that marks no grant.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let stamp = u64::from_be_bytes(bytes);
        (stamp != 0).then_some(Self(stamp))
    }
}

/// Whether a refresh token has the form of ours.
pub fn is_ours(token: &RefreshToken) -> bool {
    token.expose().starts_with(PREFIX)
}

/// A refresh token of the gateway's own that nobody can guess.
pub fn fresh_token() -> RefreshToken {
    let mut bytes = [0; RANDOM_BYTES];
    rand::fill(&mut bytes).expect("aws-lc ends the process rather than run without randomness");
    RefreshToken::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

impl ApplicationGrants {
    pub fn load(grants: impl IntoIterator<Item = ApplicationGrant>) -> Self {
        let by_stamp = grants.into_iter().map(|grant| (GrantStamp::of(&grant.refresh), grant)).collect();
        Self { by_stamp, is_shared: false }
    }

    /// For a store on which other gateways work too.
    #[must_use]
    pub fn shared(mut self, is_shared: bool) -> Self {
        self.is_shared = is_shared;
        self
    }

    /// Takes over what the store holds for an account, and nothing else for it.
    pub fn replace_of(&self, account: &AccountName, grants: impl IntoIterator<Item = ApplicationGrant>) {
        let grants: Vec<_> = grants.into_iter().filter(|grant| grant.account == *account).collect();
        let stamps: Vec<_> = grants.iter().map(|grant| GrantStamp::of(&grant.refresh)).collect();
        // Those that stay are never missing in between: a call may be looking.
        self.by_stamp.retain(|stamp, grant| grant.account != *account || stamps.contains(stamp));
        for (stamp, grant) in stamps.into_iter().zip(grants) {
            self.by_stamp.insert(stamp, grant);
        }
    }

    pub fn learn(&self, grant: ApplicationGrant) {
        let stamp = GrantStamp::of(&grant.refresh);
        let (caller, account) = (grant.caller.clone(), grant.account.clone());
        self.by_stamp.insert(stamp, grant);
        self.by_stamp
            .retain(|other, known| *other == stamp || (&known.caller, &known.account) != (&caller, &account));
    }

    /// Adds what other gateways have issued. What they have revoked arrives account by account, with the
    /// store's changes.
    pub fn extend(&self, grants: impl IntoIterator<Item = ApplicationGrant>) {
        for grant in grants {
            self.by_stamp.insert(GrantStamp::of(&grant.refresh), grant);
        }
    }

    pub fn remove(&self, caller: &str, account: &AccountName) {
        self.by_stamp.retain(|_, known| (known.caller.as_str(), &known.account) != (caller, account));
    }

    /// The account is gone.
    pub fn forget(&self, account: &AccountName) {
        self.by_stamp.retain(|_, known| known.account != *account);
    }

    pub fn rename(&self, from: &AccountName, to: &AccountName) {
        self.by_stamp
            .iter_mut()
            .filter(|known| known.account == *from)
            .for_each(|mut known| known.account = to.clone());
    }

    /// Whether the grant with this mark exists, for this caller and account: an access token that came of it
    /// is good.
    pub fn is_valid(&self, stamp: GrantStamp, caller: &str, account: &AccountName) -> bool {
        self.by_stamp.get(&stamp).is_some_and(|grant| grant.caller == caller && grant.account == *account)
    }

    /// Whether an access token of this age may come of a grant that another gateway has just issued and that
    /// is not known here yet. A signed token that is seconds old is accepted then, so that no application is
    /// refused over a balancer's choice.
    pub fn may_be_unpropagated(&self, issued_at: Timestamp, now: Timestamp) -> bool {
        self.is_shared && now < issued_at + PROPAGATION && issued_at < now + PROPAGATION
    }

    /// The callers that hold a grant for an account, by name.
    pub fn callers_of(&self, account: &AccountName) -> Vec<String> {
        let held = self.by_stamp.iter().filter(|grant| grant.account == *account);
        let mut callers: Vec<String> = held.map(|grant| grant.caller.clone()).collect();
        callers.sort();
        callers
    }

    /// The refresh token of a caller's grant for an account.
    pub fn refresh_token_of(&self, caller: &str, account: &AccountName) -> Option<RefreshToken> {
        let is_it = |grant: &ApplicationGrant| grant.caller == caller && grant.account == *account;
        self.by_stamp.iter().find(|grant| is_it(grant)).map(|grant| grant.refresh.clone())
    }

    /// The account that a refresh token of ours opens for this caller. Another caller's opens nothing.
    pub fn account_of(&self, token: &RefreshToken, caller: &str) -> Option<AccountName> {
        let found = self.by_stamp.get(&GrantStamp::of(token))?;
        let same = constant_time::verify_slices_are_equal(
            found.refresh.expose().as_bytes(),
            token.expose().as_bytes(),
        );
        (same.is_ok() && found.caller == caller).then(|| found.account.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(caller: &str, account: &str) -> ApplicationGrant {
        ApplicationGrant {
            caller: caller.to_owned(),
            account: account.parse().unwrap(),
            refresh: fresh_token(),
            callback_url: None,
        }
    }

    #[test]
    fn a_refresh_token_of_ours_fits_into_forty_characters_and_opens_its_own_account_for_its_own_caller() {
        let (mine, other) = (grant("oldpms", "smile"), grant("labsync", "smile"));
        assert_eq!(mine.refresh.expose().len(), 40);
        let grants = ApplicationGrants::load([mine.clone(), other.clone()]);
        assert_eq!(grants.account_of(&mine.refresh, "oldpms"), Some(mine.account.clone()));
        assert_eq!(grants.account_of(&mine.refresh, "labsync"), None);
        assert_eq!(grants.account_of(&fresh_token(), "oldpms"), None);
        let stamp = GrantStamp::of(&mine.refresh);
        assert!(grants.is_valid(stamp, "oldpms", &mine.account));
        assert!(!grants.is_valid(stamp, "labsync", &mine.account));
        grants.remove("oldpms", &mine.account);
        assert!(!grants.is_valid(stamp, "oldpms", &mine.account));
        assert!(
            grants.is_valid(GrantStamp::of(&other.refresh), "labsync", &mine.account),
            "the other's stays"
        );
    }

    #[test]
    fn where_other_gateways_give_grants_out_a_token_of_seconds_is_believed() {
        let now = Timestamp::from_millis(1_000_000);
        let seconds = Duration::from_secs;
        let alone = ApplicationGrants::default();
        assert!(!alone.may_be_unpropagated(now, now), "here every grant is known at once");
        let shared = ApplicationGrants::default().shared(true);
        for (issued_at, expected) in [
            (now, true),
            (now - seconds(4), true),
            (now - seconds(5), false),
            (now + seconds(4), true),
            (now + seconds(3600), false),
        ] {
            assert_eq!(shared.may_be_unpropagated(issued_at, now), expected, "{issued_at}");
        }
    }

    #[test]
    fn a_new_grant_replaces_the_one_before_and_what_the_store_holds_replaces_all() {
        let (first, second, foreign) = (grant("a", "smile"), grant("a", "smile"), grant("a", "lab"));
        let grants = ApplicationGrants::load([first.clone(), foreign.clone()]);
        grants.learn(second.clone());
        assert_eq!(grants.account_of(&first.refresh, "a"), None);
        assert_eq!(grants.account_of(&second.refresh, "a"), Some(second.account.clone()));
        grants.replace_of(&first.account, [first.clone(), foreign.clone()]);
        assert_eq!(grants.account_of(&second.refresh, "a"), None);
        assert!(grants.account_of(&first.refresh, "a").is_some());
        assert!(grants.account_of(&foreign.refresh, "a").is_some());
        grants.rename(&first.account, &"grin".parse().unwrap());
        assert_eq!(grants.account_of(&first.refresh, "a"), Some("grin".parse().unwrap()));
        grants.forget(&foreign.account);
        assert_eq!(grants.account_of(&foreign.refresh, "a"), None);
    }
}
