//! What a test or a person does to a running sandbox: accounts, tokens, trouble, and a look at the record.
//! Methods about one account return false or None where there is no such account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::assets::Asset;
use super::options::TlsIdentity;
use super::orders::{self, Order};
use super::record::RecordedCall;
use super::saved::SavedState;
use super::state::{AppPairing, Practice};
use super::{AccountSpec, Behavior, Client, CreatedRx, Endpoint, FaultRule, Handle, Platform, Region};
use super::{HostRole, V1_PATH, V2_PATH};

/// Addresses.
impl Handle {
    pub fn oauth_base(&self, platform: Platform) -> String {
        self.context.origin(HostRole::Identity(platform))
    }

    /// With the V2 path on the platforms whose base URL carries it (migration notice, "Current URL").
    pub fn base_url(&self, platform: Platform) -> String {
        let origin = self.context.origin(HostRole::Base(platform));
        match platform {
            Platform::New => origin,
            Platform::Old | Platform::China => format!("{origin}{V2_PATH}"),
        }
    }

    /// The old platform's V1 base URL.
    pub fn v1_url(&self) -> String {
        format!("{}{V1_PATH}", self.context.origin(HostRole::OldV1))
    }

    pub fn login_page(&self, platform: Platform) -> String {
        self.context.login_page(platform)
    }

    /// Domain and Path of a region, as one URL.
    pub fn region_url(&self, region: Region) -> String {
        let behavior = self.behavior();
        let path = if region == Region::China { V2_PATH } else { &behavior.path };
        format!("{}{path}", self.context.origin(HostRole::Region(region)))
    }

    pub fn storage_url(&self) -> String {
        self.context.origin(HostRole::Storage)
    }

    /// None unless `SandboxOptions::control` was set.
    pub fn control_url(&self) -> Option<String> {
        self.context
            .addresses
            .contains_key(&HostRole::Control)
            .then(|| self.context.origin(HostRole::Control))
    }

    /// Scheme, host and port of any host.
    pub fn origin(&self, role: HostRole) -> String {
        self.context.origin(role)
    }

    /// Where a host listens, whatever its name is.
    pub fn address(&self, role: HostRole) -> Option<SocketAddr> {
        self.context.addresses.get(&role).copied()
    }

    /// The authority that signed the sandbox's certificate, when it answers over TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.context.identity.as_ref().map(|identity| identity.ca_pem.as_str())
    }

    pub(super) fn identity(&self) -> Option<&TlsIdentity> {
        self.context.identity.as_ref()
    }

    pub(super) fn ports(&self) -> Vec<(HostRole, u16)> {
        self.context.addresses.iter().map(|(role, address)| (*role, address.port())).collect()
    }
}

/// Between two runs.
impl Handle {
    /// Grows with whatever happens to accounts and tokens.
    pub(super) fn revision(&self) -> u64 {
        self.context.state().revision
    }

    pub(super) fn saved_state(&self) -> SavedState {
        self.context.state().save()
    }

    /// Goes on where an earlier run ended.
    pub fn restore(&self, saved: SavedState) {
        self.context.state().restore(saved);
    }
}

/// Accounts and applications.
impl Handle {
    pub fn add_account(&self, account: AccountSpec) {
        self.context.state().add_account(account);
    }

    /// Somebody who can log in and belongs to no account.
    pub fn add_user(&self, email: &str, password: &str) {
        self.context.state().add_user(email, password);
    }

    /// Adds `count` accounts of the new platform, clinics and labs over its three regions, and returns their
    /// ids. `user@sandbox.test` with password `sandbox` belongs to all of them.
    pub fn populate(&self, count: u64) -> Vec<u64> {
        const REGIONS: [Region; 3] = [Region::NorthAmerica, Region::Europe, Region::AsiaPacific];
        let ids: Vec<u64> = (1..=count).map(|number| 10_000 + number).collect();
        for id in &ids {
            let account = match id % 2 {
                0 => AccountSpec::lab(*id, &format!("Lab {id}")),
                _ => AccountSpec::clinic(*id, &format!("Clinic {id}")),
            };
            let account = account.in_region(REGIONS[(id % 3) as usize]);
            self.add_account(account.with_user("user@sandbox.test", "sandbox"));
        }
        ids
    }

    pub fn accounts(&self) -> Vec<AccountSpec> {
        self.context.state().accounts.values().map(|practice| practice.account.clone()).collect()
    }

    pub fn account(&self, account: u64) -> Option<AccountSpec> {
        self.look(account, |practice| practice.account.clone())
    }

    /// The platform's first application, the one of `SandboxOptions::clients`.
    pub fn client(&self, platform: Platform) -> Client {
        let mut state = self.context.state();
        let clients = state.clients_mut(platform);
        clients.first().cloned().unwrap_or_else(|| Client::new("", ""))
    }

    /// Another vendor's application on the same platform.
    pub fn add_client(&self, platform: Platform, client: Client) {
        self.context.state().clients_mut(platform).push(client);
    }

    /// White-lists a redirect URI for every application of the platform.
    pub fn allow_redirect(&self, platform: Platform, uri: &str) {
        for client in self.context.state().clients_mut(platform) {
            if !client.redirect_uris.iter().any(|known| known == uri) {
                client.redirect_uris.push(uri.to_owned());
            }
        }
    }

    /// From now on the old secret is bad credentials.
    pub fn set_client_secret(&self, platform: Platform, secret: &str) {
        if let Some(client) = self.context.state().clients_mut(platform).first_mut() {
            client.secret = secret.to_owned();
        }
    }
}

/// Tokens and where accounts stand.
impl Handle {
    /// Pairs without the dance and returns the pair refresh token: what an import file holds.
    pub fn grant(&self, account: u64) -> Option<String> {
        let client = self.client(self.account(account)?.platform);
        self.context.state().paired_refresh(account, &client.id, None, self.context.clock.now())
    }

    /// A pair access token, for calls that go to the sandbox directly.
    pub fn bearer(&self, account: u64) -> Option<String> {
        let client = self.client(self.account(account)?.platform);
        let behavior = self.behavior();
        let now = self.context.clock.now();
        let tokens = self.context.state().paired_tokens(account, &client.id, None, &behavior, now);
        tokens.map(|tokens| tokens.access)
    }

    /// The refresh tokens that are good for the account now.
    pub fn refresh_tokens(&self, account: u64) -> Vec<String> {
        self.context.state().refresh_tokens(account)
    }

    /// Every access token of the account dies; its refresh token lives.
    pub fn expire_access(&self, account: u64) -> bool {
        self.context.state().expire_access(account)
    }

    /// The account's refresh token is dead from now on; access tokens live to their end.
    pub fn forget_refresh(&self, account: u64) -> bool {
        self.context.state().forget_refresh(account)
    }

    /// Moves an account to another platform; all of its tokens and pairings die, unless
    /// [`Behavior::migration_keeps_tokens`].
    pub fn migrate(&self, account: u64, to: Platform) -> bool {
        let behavior = self.behavior();
        self.context.state().migrate(account, to, &behavior)
    }

    /// Moves an account to another region of its platform; its tokens live.
    pub fn move_region(&self, account: u64, to: Region) -> bool {
        self.context.state().move_region(account, to)
    }

    pub fn is_paired(&self, account: u64) -> bool {
        self.look(account, |practice| !practice.pairings.is_empty()).unwrap_or(false)
    }

    /// The account is paired with an application that nobody here knows: a lab then answers 409.
    pub fn pair_elsewhere(&self, account: u64) -> bool {
        self.change(account, |practice| {
            practice.pairings.insert("somebody-elses-application".to_owned(), AppPairing::default());
        })
    }

    /// Somebody ends the pairing by another way than the gateway.
    pub fn unpair(&self, account: u64) {
        let platform = self.account(account).map_or(Platform::New, |account| account.platform);
        let client = self.client(platform);
        self.context.state().unpair(account, &client.id);
    }

    pub fn callback_url(&self, account: u64) -> Option<String> {
        let find =
            |practice: &Practice| practice.pairings.values().find_map(|pairing| pairing.callback_url.clone());
        self.look(account, find).flatten()
    }

    /// A lasting 403 for every path of the account that holds `path`.
    pub fn deny(&self, account: u64, path: &str) -> bool {
        self.change(account, |practice| practice.denied.push(path.to_owned()))
    }

    /// Takes back every [`Handle::deny`] of the account.
    pub fn allow(&self, account: u64) -> bool {
        self.change(account, |practice| practice.denied.clear())
    }
}

/// Behavior and faults.
impl Handle {
    pub fn behavior(&self) -> Arc<Behavior> {
        self.context.behavior.load_full()
    }

    pub fn set_behavior(&self, change: impl Fn(&mut Behavior)) {
        self.context.behavior.rcu(|behavior| {
            let mut behavior = Behavior::clone(behavior);
            change(&mut behavior);
            behavior
        });
    }

    pub fn inject(&self, inject: FaultRule) {
        self.context.fault_rules.add(inject);
    }

    pub fn clear_fault_rules(&self) {
        self.context.fault_rules.clear();
    }

    /// What is still to come, oldest first.
    pub fn fault_rules(&self) -> Vec<FaultRule> {
        self.context.fault_rules.in_force()
    }
}

/// Orders and what callers did to them.
impl Handle {
    /// The order ids of an account, in the order of its list.
    pub fn order_ids(&self, account: u64) -> Vec<u64> {
        self.orders_of(account).into_iter().map(Order::order_id).collect()
    }

    pub fn rx_ids(&self, account: u64) -> Vec<u64> {
        self.orders_of(account).into_iter().map(Order::rx_id).collect()
    }

    fn orders_of(&self, account: u64) -> Vec<Order> {
        let count = self.look(account, |practice| practice.account.orders).unwrap_or(0);
        (0..count).map(|index| Order { account, index }).collect()
    }

    /// The bytes behind a download.
    pub fn asset(&self, order_id: u64, asset_type: &str) -> Option<Asset> {
        let order = Order::by_order_id(order_id)?;
        let find = |practice: &Practice| {
            let asset = order.asset(asset_type, practice.account.asset_bytes);
            asset.filter(|_| orders::exists(practice, order))
        };
        self.look(order.account, find).flatten()
    }

    pub fn set_asset_bytes(&self, account: u64, bytes: u64) -> bool {
        self.change(account, |practice| practice.account.asset_bytes = bytes)
    }

    /// New orders appear, behind those that are there.
    pub fn add_orders(&self, account: u64, count: u64) -> bool {
        self.change(account, |practice| practice.account.orders += count)
    }

    /// Whether the order has left its lab's list by being downloaded.
    pub fn is_downloaded(&self, order_id: u64) -> bool {
        let account = Order::by_order_id(order_id).map_or(0, |order| order.account);
        self.look(account, |practice| practice.downloaded.contains(&order_id)).unwrap_or(false)
    }

    pub fn is_returned(&self, order_id: u64) -> bool {
        let account = Order::by_order_id(order_id).map_or(0, |order| order.account);
        self.look(account, |practice| practice.returned.contains(&order_id)).unwrap_or(false)
    }

    /// RXs that callers created and did not delete.
    pub fn created(&self, account: u64) -> Vec<CreatedRx> {
        self.look(account, |practice| practice.created.values().cloned().collect()).unwrap_or_default()
    }

    /// How many RXs callers ever created, deleted ones included.
    pub fn creations(&self, account: u64) -> u64 {
        self.look(account, |practice| practice.creations).unwrap_or(0)
    }
}

/// The record.
impl Handle {
    /// The last `SandboxOptions::keep_calls` calls, oldest first.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.context.recorder.calls(|_| true)
    }

    pub fn calls_where(&self, wanted: impl Fn(&RecordedCall) -> bool) -> Vec<RecordedCall> {
        self.context.recorder.calls(wanted)
    }

    pub fn calls_to(&self, endpoint: Endpoint) -> Vec<RecordedCall> {
        self.context.recorder.calls(|call| call.endpoint == Some(endpoint))
    }

    pub fn refreshes(&self, account: u64) -> Vec<RecordedCall> {
        let wanted =
            |call: &RecordedCall| call.endpoint == Some(Endpoint::Refresh) && call.account == Some(account);
        self.context.recorder.calls(wanted)
    }

    pub fn discoveries(&self) -> Vec<RecordedCall> {
        self.calls_to(Endpoint::Discovery)
    }

    /// Returns once at least `count` calls fit; the record is looked at
    /// again with every arrival and every end.
    pub async fn until_calls(
        &self,
        count: usize,
        wanted: impl Fn(&RecordedCall) -> bool,
    ) -> Vec<RecordedCall> {
        self.context.recorder.until(count, wanted).await
    }

    /// All calls since the start, forgotten ones included.
    pub fn received(&self) -> u64 {
        self.context.recorder.received()
    }

    /// Requests whose head or framing was refused, with the reason. They never become calls.
    pub fn refused(&self) -> Vec<(HostRole, &'static str)> {
        self.context.recorder.refused()
    }

    pub fn clear_calls(&self) {
        self.context.recorder.clear();
    }

    /// One account number per refresh that began while another of that account was going on.
    pub fn overlapping_refreshes(&self) -> Vec<u64> {
        self.context.recorder.overlapping_refreshes()
    }

    /// The shortest time between two refreshes of the account. The
    /// vendor gives no number, so none is enforced.
    pub fn smallest_refresh_gap(&self, account: u64) -> Option<Duration> {
        self.context.recorder.smallest_refresh_gap(account)
    }

    fn look<T>(&self, account: u64, view: impl FnOnce(&Practice) -> T) -> Option<T> {
        self.context.state().accounts.get(&account).map(view)
    }

    fn change(&self, account: u64, change: impl FnOnce(&mut Practice)) -> bool {
        let mut state = self.context.state();
        state.revision += 1;
        state.accounts.get_mut(&account).map(change).is_some()
    }
}
