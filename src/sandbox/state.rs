//! What the platforms know: accounts, their people, pairings, orders. State and its rules, no HTTP.
//! One lock holds all of it; nothing here waits for anything.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::behavior::Behavior;
use super::host_role::{Platform, Region};
use super::login_tickets::LoginTickets;
use super::options::{Client, Clients};
use super::tokens::{Grant, Holder, Issued, TokenStore};
use crate::clock::Timestamp;

/// What an account is; the two see different lists of orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    Clinic,
    Lab,
}

/// Somebody who can log in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub email: String,
    pub password: String,
}

/// An iTero account as a test or a person orders it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    pub id: u64,
    pub name: String,
    pub kind: AccountKind,
    #[serde(default = "new_platform")]
    pub platform: Platform,
    #[serde(default = "north_america")]
    pub region: Region,
    #[serde(default)]
    pub users: Vec<User>,
    /// Orders that exist from the start; at most 40,000.
    #[serde(default)]
    pub orders: u64,
    /// Size of each of their downloads.
    #[serde(default = "asset_bytes")]
    pub asset_bytes: u64,
    /// Align enabled it for the integration; others are not listed and cannot be paired.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Patients with doubled or missing chart numbers: pairing warns.
    #[serde(default)]
    pub chart_trouble: bool,
}

fn new_platform() -> Platform {
    Platform::New
}
fn north_america() -> Region {
    Region::NorthAmerica
}
fn asset_bytes() -> u64 {
    256 * 1024
}
fn yes() -> bool {
    true
}

impl AccountSpec {
    /// On the new platform in North America, with three orders and nobody who could log in.
    pub fn clinic(id: u64, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind: AccountKind::Clinic,
            platform: Platform::New,
            region: Region::NorthAmerica,
            users: Vec::new(),
            orders: 3,
            asset_bytes: asset_bytes(),
            enabled: true,
            chart_trouble: false,
        }
    }

    pub fn lab(id: u64, name: &str) -> Self {
        Self { kind: AccountKind::Lab, ..Self::clinic(id, name) }
    }

    /// China's accounts live in China's region and no others do.
    pub fn on_platform(self, platform: Platform) -> Self {
        Self { platform, region: fitting(platform, self.region), ..self }
    }

    pub fn in_region(self, region: Region) -> Self {
        Self { region: fitting(self.platform, region), ..self }
    }

    pub fn with_user(mut self, email: &str, password: &str) -> Self {
        self.users.push(User { email: email.to_owned(), password: password.to_owned() });
        self
    }

    pub fn with_orders(self, orders: u64) -> Self {
        Self { orders, ..self }
    }

    pub fn with_asset_bytes(self, asset_bytes: u64) -> Self {
        Self { asset_bytes, ..self }
    }
}

fn fitting(platform: Platform, region: Region) -> Region {
    match (platform, region) {
        (Platform::China, _) => Region::China,
        (_, Region::China) => Region::NorthAmerica,
        _ => region,
    }
}

/// What one application holds of one account.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct AppPairing {
    /// None after a revocation: still paired, and the next pair call makes a new one.
    pub refresh: Option<String>,
    pub callback_url: Option<String>,
}

/// A scan request that a caller created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedRx {
    pub rx_id: u64,
    pub at: Timestamp,
    /// The body it was created from, as far as it was kept.
    pub body: serde_json::Value,
}

/// An account and everything that happened to it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Practice {
    pub account: AccountSpec,
    pub pairings: HashMap<String, AppPairing>,
    /// Paths, or parts of them, that this account may not use.
    pub denied: Vec<String>,
    pub downloaded: HashSet<u64>,
    pub returned: HashSet<u64>,
    pub created: BTreeMap<u64, CreatedRx>,
    pub creations: u64,
    /// Changed fields by patient.
    pub patients: HashMap<String, serde_json::Map<String, serde_json::Value>>,
}

/// Accounts, tokens, logins and applications of all platforms.
pub struct SandboxState {
    pub accounts: BTreeMap<u64, Practice>,
    pub tokens: TokenStore,
    pub tickets: LoginTickets,
    clients: HashMap<Platform, Vec<Client>>,
    pub(super) passwords: HashMap<String, String>,
    /// Grows with whatever happens to accounts and tokens.
    pub revision: u64,
}

/// Why a pair call is refused (Authentication & Pairing V2, 4.3.1).
#[derive(Debug, PartialEq, Eq)]
pub enum PairError {
    WrongCompany,
    PairedElsewhere,
}

/// What a pair call returns.
pub struct Paired {
    pub tokens: Issued,
    pub warns: bool,
}

impl SandboxState {
    pub fn new(clients: &Clients) -> Self {
        let each = Platform::ALL.map(|platform| (platform, vec![clients.of(platform).clone()]));
        Self {
            accounts: BTreeMap::new(),
            tokens: TokenStore::default(),
            tickets: LoginTickets::default(),
            clients: HashMap::from(each),
            passwords: HashMap::new(),
            revision: 0,
        }
    }

    pub fn add_account(&mut self, account: AccountSpec) {
        self.revision += 1;
        for user in &account.users {
            self.passwords.insert(user.email.clone(), user.password.clone());
        }
        let practice = Practice {
            pairings: HashMap::new(),
            denied: Vec::new(),
            downloaded: HashSet::new(),
            returned: HashSet::new(),
            created: BTreeMap::new(),
            creations: 0,
            patients: HashMap::new(),
            account,
        };
        self.accounts.insert(practice.account.id, practice);
    }

    /// Somebody with a login and no account.
    pub fn add_user(&mut self, email: &str, password: &str) {
        self.revision += 1;
        self.passwords.insert(email.to_owned(), password.to_owned());
    }

    pub fn password_fits(&self, email: &str, password: &str) -> bool {
        self.passwords.get(email).is_some_and(|right| right == password)
    }

    pub fn clients_mut(&mut self, platform: Platform) -> &mut Vec<Client> {
        self.clients.entry(platform).or_default()
    }

    pub fn client(&self, platform: Platform, id: &str) -> Option<&Client> {
        self.clients.get(&platform)?.iter().find(|client| client.id == id)
    }

    /// "The user is related to these accounts" and "the account is enabled" (4.2.3).
    pub fn related(&self, platform: Platform, email: &str) -> Vec<&Practice> {
        let belongs = |practice: &&Practice| {
            let account = &practice.account;
            account.platform == platform
                && account.enabled
                && account.users.iter().any(|user| user.email == email)
        };
        self.accounts.values().filter(belongs).collect()
    }

    pub fn pair(
        &mut self,
        login: &Grant,
        account: u64,
        callback_url: Option<String>,
        behavior: &Behavior,
        now: Timestamp,
    ) -> Result<Paired, PairError> {
        let Holder::User(email) = &login.holder else { return Err(PairError::WrongCompany) };
        if !self.related(login.platform, email).iter().any(|practice| practice.account.id == account) {
            return Err(PairError::WrongCompany);
        }
        let practice = self.accounts.get_mut(&account).ok_or(PairError::WrongCompany)?;
        // The same integration has another client on each platform.
        let others =
            [Platform::New, Platform::Old, Platform::China].map(|platform| self.clients.get(&platform));
        let ours = |id: &String| {
            let first = others.iter().flatten().filter_map(|clients| clients.first());
            first.into_iter().any(|client| client.id == *id)
        };
        let is_first = ours(&login.client_id);
        let is_same = |client: &String| *client == login.client_id || (is_first && ours(client));
        let elsewhere = practice.pairings.keys().any(|client| !is_same(client));
        if practice.account.kind == AccountKind::Lab && elsewhere {
            return Err(PairError::PairedElsewhere);
        }
        let warns = practice.account.chart_trouble && practice.account.kind == AccountKind::Clinic;
        let tokens = self.paired_tokens(account, &login.client_id, callback_url, behavior, now);
        tokens.map(|tokens| Paired { tokens, warns }).ok_or(PairError::WrongCompany)
    }

    /// Pairs without asking anybody, and issues tokens.
    pub fn paired_tokens(
        &mut self,
        account: u64,
        client_id: &str,
        callback_url: Option<String>,
        behavior: &Behavior,
        now: Timestamp,
    ) -> Option<Issued> {
        let refresh = self.paired_refresh(account, client_id, callback_url, now)?;
        self.tokens.issue(&refresh, behavior, now)
    }

    /// "In case the user is already paired …, the same refresh token" (4.3).
    pub fn paired_refresh(
        &mut self,
        account: u64,
        client_id: &str,
        callback_url: Option<String>,
        now: Timestamp,
    ) -> Option<String> {
        self.revision += 1;
        let practice = self.accounts.get_mut(&account)?;
        let platform = practice.account.platform;
        let pairing = practice.pairings.entry(client_id.to_owned()).or_default();
        // Only unpairing changes a callback URL (4.4).
        pairing.callback_url = pairing.callback_url.take().or(callback_url);
        let alive =
            pairing.refresh.as_ref().filter(|text| self.tokens.refresh_grant(text, platform, now).is_some());
        let refresh = match alive {
            Some(text) => text.clone(),
            None => {
                let holder = Holder::Account(account);
                let grant = Grant { platform, client_id: client_id.to_owned(), holder };
                self.tokens.new_refresh(grant, now)
            }
        };
        pairing.refresh = Some(refresh.clone());
        Some(refresh)
    }

    /// The token endpoint's second grant type. None: the refresh token is worth nothing here.
    pub fn refresh(
        &mut self,
        text: &str,
        platform: Platform,
        client_id: &str,
        behavior: &Behavior,
        now: Timestamp,
    ) -> Option<Issued> {
        let grant = self.tokens.refresh_grant(text, platform, now)?.clone();
        if grant.client_id != client_id {
            return None;
        }
        self.revision += 1;
        let issued = self.tokens.renew(text, behavior, now)?;
        if let Some(pairing) = self.pairing_mut(&grant) {
            pairing.refresh = Some(issued.refresh.clone());
        }
        Some(issued)
    }

    /// False: no such token.
    pub fn revoke(&mut self, text: &str, platform: Platform, client_id: &str) -> bool {
        let Some((refresh, grant)) = self.tokens.family_of(text, platform) else { return false };
        if grant.client_id != client_id {
            return false;
        }
        self.revision += 1;
        self.tokens.end_family(&refresh);
        if let Some(pairing) = self.pairing_mut(&grant) {
            pairing.refresh = None;
        }
        true
    }

    /// "Un-pair will affect all paired users to this account … the callback URL will be deleted" (4.3.2).
    pub fn unpair(&mut self, account: u64, client_id: &str) -> bool {
        let Some(practice) = self.accounts.get_mut(&account) else { return false };
        let Some(pairing) = practice.pairings.remove(client_id) else { return false };
        self.revision += 1;
        if let Some(refresh) = pairing.refresh {
            self.tokens.end_family(&refresh);
        }
        let holder = Holder::Account(account);
        self.tokens.end_access_where(|grant| grant.holder == holder && grant.client_id == client_id);
        true
    }

    /// "Once users are migrated to the new platform, the existing token
    /// will expire" (migration notice, "Repair").
    pub fn migrate(&mut self, account: u64, to: Platform, behavior: &Behavior) -> bool {
        let Some(practice) = self.accounts.get_mut(&account) else { return false };
        practice.account = practice.account.clone().on_platform(to);
        if behavior.migration_keeps_tokens {
            self.revision += 1;
            return true;
        }
        for pairing in std::mem::take(&mut practice.pairings).into_values() {
            if let Some(refresh) = pairing.refresh {
                self.tokens.end_family(&refresh);
            }
        }
        self.expire_access(account)
    }

    pub fn expire_access(&mut self, account: u64) -> bool {
        self.revision += 1;
        self.tokens.end_access_where(|grant| grant.holder == Holder::Account(account));
        self.accounts.contains_key(&account)
    }

    /// The account stays paired, as after a revocation, and its access tokens live.
    pub fn forget_refresh(&mut self, account: u64) -> bool {
        self.revision += 1;
        let Some(practice) = self.accounts.get_mut(&account) else { return false };
        for pairing in practice.pairings.values_mut() {
            if let Some(refresh) = pairing.refresh.take() {
                self.tokens.forget_refresh(&refresh);
            }
        }
        true
    }

    pub fn move_region(&mut self, account: u64, to: Region) -> bool {
        self.revision += 1;
        let Some(practice) = self.accounts.get_mut(&account) else { return false };
        practice.account = practice.account.clone().in_region(to);
        true
    }

    /// The living refresh tokens of an account, one per application.
    pub fn refresh_tokens(&self, account: u64) -> Vec<String> {
        let pairings = self.accounts.get(&account).map(|practice| practice.pairings.values());
        pairings.into_iter().flatten().filter_map(|pairing| pairing.refresh.clone()).collect()
    }

    fn pairing_mut(&mut self, grant: &Grant) -> Option<&mut AppPairing> {
        self.accounts.get_mut(&grant.holder.account()?)?.pairings.get_mut(&grant.client_id)
    }
}
