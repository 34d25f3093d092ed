//! Pairs the chosen account and keeps its tokens. The rule: what the platform has handed out is written down before anything else is
//! done with it, and where the store does not take it, the gateway tries until it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::code::Code;
use super::naming;
use super::outcome::{Connected, Outcome, Stage, Stop};
use super::pending::{Held, Order, Start};
use super::repeat::{Pace, Tried};
use super::{CallbackResult, Pairing, PairingRealm};
use crate::model::account::{AccountName, AccountState};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::{self, RelatedAccount};
use crate::store::{AccountRecord, LoadedAccounts, NewGrant, StoreError, StoredAccess, StoredRoute};

/// A login that may pair: the first token set and where it counts.
pub(super) struct Login {
    pub order: Order,
    pub start: Option<Code>,
    pub realm: PairingRealm,
    pub access: AccessToken,
    pub route: Route,
}

/// Pair tokens in hand, not yet written.
struct Harvest {
    order: Order,
    start: Option<Code>,
    realm: PairingRealm,
    route: Route,
    account: RelatedAccount,
    access: StoredAccess,
    refresh: RefreshToken,
    warnings: Vec<String>,
    /// What was odd about the answer, for the journal.
    odd: Option<String>,
}

/// Tries that the browser waits for; after them the saving goes on in the background.
const PATIENT_SAVES: u32 = 3;
const FIRST_SAVE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_SAVE_PAUSE: Duration = Duration::from_secs(30);

impl<T> Tried<T> {
    pub(super) fn or_stop(self, stage: Stage) -> Result<T, Stop> {
        let doubtful = self.doubtful;
        self.result.map_err(|trouble| {
            tracing::warn!(call = trouble.call, status = trouble.status, %trouble, "a login call failed");
            Stop::of_trouble(stage, &trouble, doubtful)
        })
    }
}

impl Pairing {
    pub(super) async fn connect(self: &Arc<Self>, login: Login, account: RelatedAccount) -> Outcome {
        let start = login.start.clone();
        match self.harvest(login, account).await {
            Ok(harvest) => Outcome::Connected(self.keep(harvest).await),
            Err(stop) => CallbackResult::stopped(stop, start).outcome,
        }
    }

    /// The pairing itself. Whatever can be refused without the platform is refused before it.
    async fn harvest(&self, login: Login, account: RelatedAccount) -> Result<Harvest, Stop> {
        let Login { order, start, realm, access, route } = login;
        let records = self.records().await.map_err(|problem| Stop::of_store(&problem))?;
        naming::decide(&records, &order, account.id, &account.name)?;
        if let Some(code) = &start
            && let Ok(Held::Used { by }) = self.desk.peek::<Start>(code).await
        {
            return Err(Stop::AlreadyUsed { by });
        }
        // Checked when the link was made.
        let callback = order.callback_url.as_deref().and_then(|text| Url::parse(text).ok());
        let pace = Pace::of_pairing(&self.clock, &self.retry());
        let tried = pace.repeat(|| realm.calls.pair(&route, &access, account.id, callback.as_ref())).await;
        let paired = |tokens| platform::PairResponse { tokens, company_id: None, warnings: Vec::new() };
        let tried = tried.or_refreshed(&pace, &*realm.calls, paired).await;
        let platform::PairResponse { tokens, warnings, .. } = tried.or_stop(Stage::Pair)?;
        let odd = tokens.oddity_line();
        let detail = || "pair: the answer has no refresh token".to_owned();
        let refresh = tokens.refresh.ok_or_else(|| Stop::PlatformMisbehaved { detail: detail() })?;
        let expires_at = self.clock.now() + tokens.expires_in;
        let access = StoredAccess { token: tokens.access, expires_at };
        Ok(Harvest { order, start, realm, route, account, access, refresh, warnings, odd })
    }

    /// Writes the grant; the browser waits a few tries long, the gateway as long as it takes.
    async fn keep(self: &Arc<Self>, harvest: Harvest) -> Connected {
        let mut pause = FIRST_SAVE_PAUSE;
        for _ in 1..PATIENT_SAVES {
            match self.save(&harvest).await {
                Ok(saved) => return self.settle(harvest, saved).await,
                Err(problem) => self.alarm(&harvest, &problem),
            }
            self.clock.sleep(pause).await;
            pause *= 2;
        }
        match self.save(&harvest).await {
            Ok(saved) => self.settle(harvest, saved).await,
            Err(problem) => {
                self.alarm(&harvest, &problem);
                let unsaved = harvest.connected_unsaved();
                self.unsaved.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(self.clone().keep_saving(harvest, pause));
                unsaved
            }
        }
    }

    async fn keep_saving(self: Arc<Self>, harvest: Harvest, mut pause: Duration) {
        let saved = loop {
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_SAVE_PAUSE);
            match self.save(&harvest).await {
                Ok(saved) => break saved,
                Err(problem) => self.alarm(&harvest, &problem),
            }
        };
        self.unsaved.fetch_sub(1, Ordering::Relaxed);
        self.settle(harvest, saved).await;
    }

    /// One try. The name is decided again under the lock: another login may have taken it since.
    async fn save(&self, harvest: &Harvest) -> Result<Saved, StoreError> {
        let _saving = self.saving.lock().await;
        let LoadedAccounts { accounts, broken } = self.store.accounts().await?;
        let Harvest { order, account, .. } = harvest;
        let name = naming::decide(&accounts, order, account.id, &account.name)
            .unwrap_or_else(|_| naming::fallback(&accounts, &order.realm, account.id, &account.name));
        let name = match order.name != Some(name.clone()) && broken.iter().any(|(broken, _)| *broken == name)
        {
            // Whose account a broken record was is not known to us; only a wanted name may mend it.
            true => naming::apart(&name, account.id),
            false => name,
        };
        match self.put(harvest, name, &accounts).await {
            // A broken record holds this account: the new grant mends it.
            Err(StoreError::GrantTaken { held_by, .. }) => self.put(harvest, held_by, &accounts).await,
            done => done,
        }
    }

    async fn put(
        &self,
        harvest: &Harvest,
        name: AccountName,
        accounts: &[AccountRecord],
    ) -> Result<Saved, StoreError> {
        let known = accounts.iter().find(|record| record.name == name);
        // An operator's hold stays; a login that was needed has happened.
        let state = match known.map(|record| &record.state) {
            Some(AccountState::Paused) => None,
            None | Some(AccountState::Ready | AccountState::NeedsLogin { .. }) => Some(AccountState::Ready),
        };
        let at = self.clock.now();
        let grant = NewGrant {
            name: name.clone(),
            realm: harvest.order.realm.clone(),
            account_id: harvest.account.id,
            refresh: harvest.refresh.clone(),
            access: Some(harvest.access.clone()),
            route: Some(stored(&harvest.route, at)),
            at,
            make_current: true,
            state,
            trial: None,
        };
        let renewed = known.is_some();
        match self.store.put_grant(grant).await {
            Ok(record) => Ok(Saved { name, record: Some(record), renewed }),
            // The grant is in place; another one of the account is broken.
            Err(problem @ StoreError::Unsealable { .. }) => {
                tracing::error!(%problem, account = %name, "a paired account cannot be read back");
                Ok(Saved { name, record: None, renewed })
            }
            Err(problem) => Err(problem),
        }
    }

    /// After the commit: publish, ask discovery again with the pair token (Authentication and Pairing V2, 4.2.1.2), close the link.
    async fn settle(&self, harvest: Harvest, saved: Saved) -> Connected {
        let Saved { name, mut record, renewed } = saved;
        let Harvest { order, start, realm, route, account, access, mut warnings, odd, .. } = harvest;
        if let Some(record) = &record {
            self.hooks.publish(record);
        }
        journal_pairing(self, &name, &order, account.id.to_string(), &warnings);
        if let Some(odd) = odd {
            self.hooks.note(&name, "token_answer_odd", odd);
        }
        if let Some(code) = &start
            && let Err(problem) = self.desk.close_start(code, &name).await
        {
            tracing::warn!(%problem, account = %name, "a used start link could not be closed");
        }
        if let Some(wanted) = order.name.as_ref().filter(|wanted| **wanted != name) {
            warnings.push(format!("The name {wanted} was taken meanwhile; the account is kept as {name}."));
        }
        match self.second_discovery(&name, &order, &realm, &route, &access.token).await {
            Ok(Some(newer)) => {
                self.hooks.publish(&newer);
                record = Some(newer);
            }
            Ok(None) => {}
            Err(detail) => warnings.push(format!(
                "Discovery with the account's own token failed ({detail}); the address of the first discovery is used until the \
                 next renewal."
            )),
        }
        tracing::info!(account = %name, realm = %order.realm, account_id = account.id.as_u64(), "account paired");
        Connected {
            name,
            realm: order.realm,
            account_id: account.id,
            shown: account.name,
            renewed,
            paused: record.is_some_and(|record| record.state == AccountState::Paused),
            saved: true,
            warnings: presentable(warnings),
        }
    }

    /// The account's record where discovery led somewhere else than the login's did.
    async fn second_discovery(
        &self,
        name: &AccountName,
        order: &Order,
        realm: &PairingRealm,
        first: &Route,
        access: &AccessToken,
    ) -> Result<Option<AccountRecord>, String> {
        let pace = Pace::of_login(&self.clock, &self.retry());
        let found = pace.repeat(|| realm.calls.discover(Some(first), access)).await.result;
        let route = found.map_err(|trouble| trouble.to_string())?;
        if route == *first {
            return Ok(None);
        }
        // The first one has carried the pairing out, so it is proven; the next renewal asks about the other one again.
        let says = realm.calls.prove(&route, access).await;
        if says.as_ref() != Ok(&route) {
            let why = says.map_or_else(|trouble| trouble.to_string(), |other| format!("it names {other}"));
            self.hooks.note(name, "route_not_proven", format!("{route}: {why}; {first} stays in use"));
            return Ok(None);
        }
        let stored = stored(&route, self.clock.now());
        let written = self.store.set_route(name, &order.realm, &stored).await;
        written.map_err(|problem| problem.to_string())?;
        self.hooks.note(name, "route_changed", format!("{first} to {route}"));
        self.store.account(name).await.map_err(|problem| problem.to_string())
    }

    fn alarm(&self, harvest: &Harvest, problem: &StoreError) {
        tracing::error!(
            realm = %harvest.order.realm, account_id = harvest.account.id.as_u64(), %problem,
            "the tokens of a paired account cannot be stored; they are held in memory and storing is tried again"
        );
    }
}

struct Saved {
    name: AccountName,
    /// Absent where it cannot be read back.
    record: Option<AccountRecord>,
    renewed: bool,
}

impl Harvest {
    fn connected_unsaved(&self) -> Connected {
        let fallback = naming::fallback(&[], &self.order.realm, self.account.id, &self.account.name);
        Connected {
            name: self.order.name.clone().unwrap_or(fallback),
            realm: self.order.realm.clone(),
            account_id: self.account.id,
            shown: self.account.name.clone(),
            renewed: false,
            paused: false,
            saved: false,
            warnings: presentable(self.warnings.clone()),
        }
    }
}

fn stored(route: &Route, discovered_at: crate::clock::Timestamp) -> StoredRoute {
    StoredRoute { domain: route.domain(), path: route.path().to_owned(), discovered_at }
}

/// A chart number is a patient's: in the journal the platform's warnings stand without digits (threats, row 19).
fn journal_pairing(pairing: &Pairing, name: &AccountName, order: &Order, id: String, warnings: &[String]) {
    let callback = if order.callback_url.is_some() { "with" } else { "without" };
    let mut detail = format!("account {id} of realm {} paired, {callback} a callback URL", order.realm);
    for warning in warnings.iter().take(MOST_WARNINGS) {
        detail.push_str("; iTero warns: ");
        detail.extend(clipped(warning).chars().map(|c| if c.is_numeric() { '#' } else { c }));
    }
    pairing.hooks.note(name, "paired", detail);
}

const MOST_WARNINGS: usize = 10;
const LONGEST_WARNING: usize = 300;

fn presentable(warnings: Vec<String>) -> Vec<String> {
    warnings.iter().take(MOST_WARNINGS).map(|warning| clipped(warning)).collect()
}

fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_WARNING).collect()
}
