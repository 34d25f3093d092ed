//! Pairs the chosen account and keeps its tokens. The rule: what the platform has
//! handed out is written down before anything else is done with it, and where the
//! store does not take it, the gateway tries until it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::code::Code;
use super::naming;
use super::outcome::{Connected, LoginError, LoginOutcome, LoginStep};
use super::pending::{CodeStatus, PairingRequest, PendingStart};
use super::retry::{Retried, RetryPolicy};
use super::{CallbackResult, Pairing, PairingRealm};
use crate::access::save_retry::SaveRetry;
use crate::journal::JournalEvent;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::{self, RelatedAccount};
use crate::store::{AccountRecord, LoadedAccounts, NewGrant, StoreError, StoredAccess, StoredRoute};

/// A login that may pair: the first token set and where it counts.
pub(super) struct Login {
    pub request: PairingRequest,
    pub start: Option<Code>,
    pub realm: PairingRealm,
    pub access: AccessToken,
    pub route: Route,
}

/// Pair tokens in hand, not yet written.
pub(super) struct PairedTokens {
    request: PairingRequest,
    start: Option<Code>,
    realm: PairingRealm,
    route: Route,
    account: RelatedAccount,
    access: StoredAccess,
    refresh: RefreshToken,
    warnings: Vec<String>,
    /// What was odd about the response, for the journal.
    odd: Option<String>,
}

/// Tries that the browser waits for; after them the saving goes on in the background.
const FOREGROUND_SAVES: u32 = 3;
const LONGEST_SAVE_PAUSE: Duration = Duration::from_secs(30);

impl<T> Retried<T> {
    pub(super) fn or_login_error(self, stage: LoginStep) -> Result<T, LoginError> {
        let may_have_acted = self.may_have_acted;
        self.result.map_err(|trouble| {
            tracing::warn!(call = trouble.call, status = trouble.status, %trouble, "a login call failed");
            LoginError::of_platform_error(stage, &trouble, may_have_acted)
        })
    }
}

impl Pairing {
    pub(super) async fn connect(self: &Arc<Self>, login: Login, account: RelatedAccount) -> LoginOutcome {
        let start = login.start.clone();
        match self.pair(login, account).await {
            Ok(paired) => LoginOutcome::Connected(self.save_with_retries(paired).await),
            Err(error) => CallbackResult::failed(error, start).outcome,
        }
    }

    /// The pairing itself. Whatever can be refused without the platform is refused before it.
    pub(super) async fn pair(
        &self,
        login: Login,
        account: RelatedAccount,
    ) -> Result<PairedTokens, LoginError> {
        let Login { request, start, realm, access, route } = login;
        let records = self.records().await.map_err(|problem| LoginError::of_store(&problem))?;
        naming::decide(&records, &self.walls(), &request, account.id, &account.name)?;
        if let Some(code) = &start
            && let Ok(CodeStatus::Used { by }) = self.pending.peek::<PendingStart>(code).await
        {
            return Err(LoginError::AlreadyUsed { by });
        }
        // Checked when the link was made.
        let callback = request.callback_url.as_deref().and_then(|text| Url::parse(text).ok());
        let policy = RetryPolicy::of_pairing(&self.clock, &self.retry());
        let retried = policy.retry(|| realm.calls.pair(&route, &access, account.id, callback.as_ref())).await;
        let paired = |tokens| platform::PairResponse { tokens, company_id: None, warnings: Vec::new() };
        let retried = retried.or_refreshed(&policy, &*realm.calls, paired).await;
        let platform::PairResponse { tokens, warnings, .. } = retried.or_login_error(LoginStep::Pair)?;
        let odd = tokens.oddity_line();
        let detail = || "pair: the answer has no refresh token".to_owned();
        let refresh = tokens.refresh.ok_or_else(|| LoginError::PlatformMisbehaved { detail: detail() })?;
        let expires_at = self.clock.now() + tokens.expires_in;
        let access = StoredAccess { token: tokens.access, expires_at };
        Ok(PairedTokens { request, start, realm, route, account, access, refresh, warnings, odd })
    }

    /// Writes the grant; the browser waits a few tries long, the gateway as long as it takes.
    pub(super) async fn save_with_retries(self: &Arc<Self>, paired: PairedTokens) -> Connected {
        let mut retry = SaveRetry::new(&self.clock, LONGEST_SAVE_PAUSE);
        for attempt in 1.. {
            match self.save(&paired).await {
                Ok(saved) => return self.finish_pairing(paired, saved).await,
                Err(problem) => self.log_unsaved(&paired, &problem),
            }
            if attempt == FOREGROUND_SAVES {
                break;
            }
            retry.pause().await;
        }
        let unsaved = paired.connected_unsaved();
        self.unsaved.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(self.clone().save_in_background(paired, retry));
        unsaved
    }

    async fn save_in_background(self: Arc<Self>, paired: PairedTokens, mut retry: SaveRetry) {
        retry.pause().await;
        let save = |_| async {
            let saved = self.save(&paired).await;
            saved.inspect_err(|problem| self.log_unsaved(&paired, problem)).ok()
        };
        let saved = retry.until_saved(save).await;
        self.unsaved.fetch_sub(1, Ordering::Relaxed);
        self.finish_pairing(paired, saved).await;
    }

    /// One try. The name is decided again under the lock: another login may have taken it since.
    async fn save(&self, paired: &PairedTokens) -> Result<SavedGrant, StoreError> {
        let _saving = self.saving.lock().await;
        let LoadedAccounts { accounts, broken } = self.store.accounts().await?;
        let PairedTokens { request, account, .. } = paired;
        let name = naming::decide(&accounts, &self.walls(), request, account.id, &account.name)
            .unwrap_or_else(|_| naming::fallback(&accounts, &request.realm, account.id, &account.name));
        let of_a_broken_record = broken.iter().any(|(broken, _)| *broken == name);
        let name = if of_a_broken_record && request.name != Some(name.clone()) {
            // We cannot tell whose account a broken record was, so only an explicitly requested name may
            // replace it.
            naming::apart(&name, account.id)
        } else {
            name
        };
        match self.put(paired, name, &accounts).await {
            // A broken record holds this account: the new grant mends it.
            Err(StoreError::GrantTaken { held_by, .. }) => self.put(paired, held_by, &accounts).await,
            done => done,
        }
    }

    async fn put(
        &self,
        paired: &PairedTokens,
        name: AccountName,
        accounts: &[AccountRecord],
    ) -> Result<SavedGrant, StoreError> {
        let known = accounts.iter().find(|record| record.name == name);
        // An operator's hold stays; a login that was needed has happened.
        let state = match known.map(|record| &record.state) {
            Some(AccountState::Paused) => None,
            None | Some(AccountState::Ready | AccountState::NeedsLogin { .. }) => Some(AccountState::Ready),
        };
        let at = self.clock.now();
        let grant = NewGrant {
            name: name.clone(),
            realm: paired.request.realm.clone(),
            account_id: paired.account.id,
            refresh: paired.refresh.clone(),
            access: Some(paired.access.clone()),
            route: Some(stored(&paired.route, at)),
            at,
            make_current: true,
            state,
            trial: None,
        };
        let renewed = known.is_some();
        let moved_from =
            known.map(|record| record.current.clone()).filter(|from| *from != paired.request.realm);
        match self.store.put_grant(grant).await {
            Ok(record) => Ok(SavedGrant { name, record: Some(record), renewed, moved_from }),
            // The grant is in place; another one of the account is broken.
            Err(problem @ StoreError::Unsealable { .. }) => {
                tracing::error!(%problem, account = %name, "a paired account cannot be read back");
                Ok(SavedGrant { name, record: None, renewed, moved_from })
            }
            Err(problem) => Err(problem),
        }
    }

    /// After the commit: publish, ask discovery again with the pair token (Authentication and Pairing V2,
    /// 4.2.1.2), close the link.
    async fn finish_pairing(&self, paired: PairedTokens, saved: SavedGrant) -> Connected {
        let SavedGrant { name, mut record, renewed, moved_from } = saved;
        let PairedTokens { request, start, realm, route, account, access, mut warnings, odd, .. } = paired;
        let platform_warnings = presentable(&warnings);
        if let Some(record) = &record {
            self.publish(record);
        }
        journal_pairing(self, &name, &request, account.id.to_string(), &warnings);
        if let Some(from) = moved_from {
            let detail =
                format!("from realm {from} to {}, by this login; the grant in {from} is kept", request.realm);
            self.journal.record(&name, JournalEvent::Moved, detail);
        }
        if let Some(odd) = odd {
            self.journal.record(&name, JournalEvent::TokenAnswerOdd, odd);
        }
        if let Some(code) = &start
            && let Err(problem) = self.pending.close_start(code, &name).await
        {
            tracing::warn!(%problem, account = %name, "a used start link could not be closed");
        }
        if let Some(wanted) = request.name.as_ref().filter(|wanted| **wanted != name) {
            warnings.push(format!("The name {wanted} was taken meanwhile; the account is kept as {name}."));
        }
        match self.second_discovery(&name, &request, &realm, &route, &access.token).await {
            Ok(Some(newer)) => {
                self.publish(&newer);
                record = Some(newer);
            }
            Ok(None) => {}
            Err(detail) => warnings.push(format!(
                "Discovery with the account's own token failed ({detail}); the address of the first discovery is used until the \
                 next renewal."
            )),
        }
        tracing::info!(account = %name, realm = %request.realm, account_id = account.id.as_u64(), "account paired");
        Connected {
            name,
            realm: request.realm,
            account_id: account.id,
            shown: account.name,
            renewed,
            test: record.as_ref().is_some_and(|record| record.is_test),
            paused: record.is_some_and(|record| record.state == AccountState::Paused),
            saved: true,
            warnings: presentable(&warnings),
            platform_warnings,
        }
    }

    /// The account's record where discovery led somewhere else than the login's did.
    async fn second_discovery(
        &self,
        name: &AccountName,
        request: &PairingRequest,
        realm: &PairingRealm,
        first: &Route,
        access: &AccessToken,
    ) -> Result<Option<AccountRecord>, String> {
        let policy = RetryPolicy::of_login(&self.clock, &self.retry());
        // An account that was known before keeps its version; its record has just been written.
        let known = self.store.account(name).await.map_err(|problem| problem.to_string())?;
        let version = known.and_then(|record| record.version);
        let found = policy.retry(|| realm.calls.discover(Some(first), version, access)).await.result;
        let route = found.map_err(|trouble| trouble.to_string())?;
        if route == *first {
            return Ok(None);
        }
        // The first one has carried the pairing out, so it is proven; the
        // next renewal asks about the other one again.
        let says = realm.calls.prove(&route, version, access).await;
        if says.as_ref() != Ok(&route) {
            let why = says.map_or_else(|trouble| trouble.to_string(), |other| format!("it names {other}"));
            self.journal.record(
                name,
                JournalEvent::RouteNotProven,
                format!("{route}: {why}; {first} stays in use"),
            );
            return Ok(None);
        }
        let stored = stored(&route, self.clock.now());
        let written = self.store.set_route(name, &request.realm, &stored).await;
        written.map_err(|problem| problem.to_string())?;
        self.journal.record(name, JournalEvent::RouteChanged, format!("{first} to {route}"));
        self.store.account(name).await.map_err(|problem| problem.to_string())
    }

    fn log_unsaved(&self, paired: &PairedTokens, problem: &StoreError) {
        tracing::error!(
            realm = %paired.request.realm, account_id = paired.account.id.as_u64(), %problem,
            "the tokens of a paired account cannot be stored; they are held in memory and storing is tried again"
        );
    }
}

/// A grant that the store has taken.
struct SavedGrant {
    name: AccountName,
    /// Absent where it cannot be read back.
    record: Option<AccountRecord>,
    renewed: bool,
    /// The realm that was in use before the login.
    moved_from: Option<RealmName>,
}

impl PairedTokens {
    fn connected_unsaved(&self) -> Connected {
        let fallback = naming::fallback(&[], &self.request.realm, self.account.id, &self.account.name);
        Connected {
            name: self.request.name.clone().unwrap_or(fallback),
            realm: self.request.realm.clone(),
            account_id: self.account.id,
            shown: self.account.name.clone(),
            renewed: false,
            paused: false,
            test: false,
            saved: false,
            warnings: presentable(&self.warnings),
            platform_warnings: presentable(&self.warnings),
        }
    }
}

fn stored(route: &Route, discovered_at: crate::clock::Timestamp) -> StoredRoute {
    StoredRoute { domain: route.domain(), path: route.path().to_owned(), discovered_at }
}

/// A chart number is a patient's: in the journal the platform's
/// warnings stand without digits (threats, row 19).
fn journal_pairing(
    pairing: &Pairing,
    name: &AccountName,
    request: &PairingRequest,
    id: String,
    warnings: &[String],
) {
    let callback = if request.callback_url.is_some() { "with" } else { "without" };
    let mut detail = format!("account {id} of realm {} paired, {callback} a callback URL", request.realm);
    for warning in warnings.iter().take(MOST_WARNINGS) {
        detail.push_str("; iTero warns: ");
        detail.extend(clipped(warning).chars().map(|c| if c.is_numeric() { '#' } else { c }));
    }
    pairing.journal.record(name, JournalEvent::Paired, detail);
}

const MOST_WARNINGS: usize = 10;
const LONGEST_WARNING: usize = 300;

fn presentable(warnings: &[String]) -> Vec<String> {
    warnings.iter().take(MOST_WARNINGS).map(|warning| clipped(warning)).collect()
}

fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_WARNING).collect()
}
