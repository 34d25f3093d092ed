//! The API hosts: who may ask, and the response to each endpoint of the vendor's table.
//! A token is looked at before anything else is said, and an account is shown nothing of another's.

use serde_json::{Value, json};

use super::behavior::{Behavior, DomainForm, NewPlatformDiffers, StatusForm};
use super::compression::compressed;
use super::context::VirtualHost;
use super::endpoint::{Endpoint, LocatedCall, RequiredToken};
use super::host_role::{FIRST_PATH, HostRole, Platform, Region, V2_PATH};
use super::orders::{self, LinkPrinter, Order};
use super::reply::Reply;
use super::request::SandboxRequest;
use super::state::{AccountKind, CreatedRx, PairError, Practice, SandboxState};
use super::tokens::{Grant, Holder};
use super::{downloads, oauth, patients, procedures, storage};

/// The sentence of Authentication & Pairing V2, 4.3.1.
const CHART_WARNING: &str =
    "Empty or duplicate patient identifiers (chart#) exists in iTero patient database";

/// Answers any call that has an API prefix.
pub fn response(host: &VirtualHost, request: &SandboxRequest, found: &LocatedCall) -> Reply {
    let behavior = host.behavior();
    let mut state = host.context.state();
    let reply = match authorize_call(host, &state, request, found, &behavior) {
        Ok(grant) => {
            let call = ApiCall { host, request, found, behavior: &behavior };
            call.response(&mut state, grant)
        }
        Err(refused) => refused,
    };
    drop(state);
    // Fields that only arrive when a proxy lets cookies, unknown names and their letter case pass.
    let node = host.role.host_name();
    let reply = reply
        .with("Set-Cookie", format!("node={node}; Path=/; HttpOnly"))
        .with("Set-Cookie", "visit=1; Path=/")
        .with("X-iTero-Node", node);
    compressed(reply, request, &behavior)
}

/// `{"APIs":[…]}` with one entry (4.2.2).
pub fn discovery_json(version: &str, domain: &str, path: &str) -> Value {
    json!({"APIs": [{"Name": "third-party", "Version": version, "Path": path, "Domain": domain}]})
}

/// None: a call that needs no bearer here.
fn authorize_call(
    host: &VirtualHost,
    state: &SandboxState,
    request: &SandboxRequest,
    found: &LocatedCall,
    behavior: &Behavior,
) -> Result<Option<Grant>, Reply> {
    let required_token = match found.endpoint {
        Endpoint::Download if behavior.download_wants_bearer => RequiredToken::Pair,
        endpoint => endpoint.required_token(),
    };
    if required_token == RequiredToken::Nothing {
        return Ok(None);
    }
    let is_data = found.endpoint.is_data();
    // 4.1 and 4.2.1.2: an expired token shows as 401 here and as 403 there; the control calls print 401.
    let worthless = if is_data { behavior.expiry_status } else { 401 };
    let platform = host.role.platform();
    let access = platform.zip(request.bearer());
    let access = access.and_then(|(platform, text)| state.tokens.bearer(text, platform, host.now()));
    let Some(access) = access else {
        return Err(Reply::error(worthless, "wrong, missing or expired token"));
    };
    let grant = access.grant.clone();
    match (&grant.holder, required_token) {
        (Holder::Account(_), RequiredToken::Login) => {
            Err(Reply::error(401, "the first access token is wanted here"))
        }
        (Holder::User(_), RequiredToken::Pair) if is_data => Err(Reply::error(403, "the user is not paired")),
        (Holder::User(_), RequiredToken::Pair) => {
            Err(Reply::error(401, "the pair access token is wanted here"))
        }
        (Holder::User(_), _) => Ok(Some(grant)),
        (Holder::Account(account), _) => {
            let practice = state.accounts.get(account);
            let practice = practice.ok_or_else(|| Reply::error(worthless, "no such account"))?;
            reachable(host, practice, request, is_data, behavior)?;
            Ok(Some(grant))
        }
    }
}

/// What an account is refused although its token is good.
fn reachable(
    host: &VirtualHost,
    practice: &Practice,
    request: &SandboxRequest,
    is_data: bool,
    behavior: &Behavior,
) -> Result<(), Reply> {
    if practice.denied.iter().any(|path| request.path().contains(path.as_str())) {
        return Err(Reply::error(403, "the account may not do this"));
    }
    let elsewhere = host.region().is_some_and(|region| region != practice.account.region);
    if is_data && elsewhere {
        return Err(Reply::error(behavior.wrong_region_status, "the account belongs to another region"));
    }
    Ok(())
}

/// One call to an API host, with all that its response depends on.
struct ApiCall<'a> {
    host: &'a VirtualHost,
    request: &'a SandboxRequest,
    found: &'a LocatedCall,
    behavior: &'a Behavior,
}

impl ApiCall<'_> {
    fn response(&self, state: &mut SandboxState, grant: Option<Grant>) -> Reply {
        if self.found.endpoint == Endpoint::Download {
            return self.download(state, grant.and_then(|grant| grant.holder.account()));
        }
        let Some(grant) = grant else { return Reply::error(401, "wrong or missing token") };
        match self.found.endpoint {
            Endpoint::Discovery => self.discovery(state, &grant),
            Endpoint::RelatedAccounts => self.related_accounts(state, &grant),
            Endpoint::Pair => self.pair(state, &grant),
            Endpoint::Unpair => self.unpair(state, &grant),
            endpoint => {
                let account = grant.holder.account().and_then(|account| state.accounts.get_mut(&account));
                match account {
                    Some(practice) => self.data(endpoint, practice),
                    None => Reply::error(404, "no such account"),
                }
            }
        }
    }

    fn data(&self, endpoint: Endpoint, practice: &mut Practice) -> Reply {
        match endpoint {
            Endpoint::PracticeConfiguration => self.good(&configuration_json(practice, self.found.is_v2())),
            Endpoint::ScanRequest => self.scan_request(practice),
            Endpoint::DeleteScanRequest => self.delete_scan_request(practice),
            Endpoint::OrdersPractice => self.order_list(practice, AccountKind::Clinic),
            Endpoint::OrdersLab => self.order_list(practice, AccountKind::Lab),
            Endpoint::Order => self.order(practice),
            Endpoint::Return => self.return_order(practice),
            Endpoint::PatientSearch => self.patient_search(practice),
            Endpoint::Patients => self.patient_update(practice, "PatientGuid"),
            Endpoint::PatientByChartNumber => self.patient_update(practice, "ChartNumber"),
            // Served by `response`, or by another host than the API's.
            Endpoint::Discovery
            | Endpoint::RelatedAccounts
            | Endpoint::Pair
            | Endpoint::Unpair
            | Endpoint::Download
            | Endpoint::Authorize
            | Endpoint::LoginPage
            | Endpoint::Exchange
            | Endpoint::Refresh
            | Endpoint::Revoke
            | Endpoint::Storage => Reply::error(404, "no such resource"),
        }
    }

    fn good(&self, data: &Value) -> Reply {
        Reply::json_text(200, orders::response_json(&data.to_string(), self.behavior))
    }

    fn status(&self) -> Value {
        match self.behavior.status_form {
            StatusForm::Number => json!(1),
            StatusForm::Text => json!("Success"),
        }
    }

    fn discovery(&self, state: &SandboxState, grant: &Grant) -> Reply {
        let at_domain = !self.request.path().contains(FIRST_PATH);
        if at_domain && !self.behavior.discovery_at_domain {
            return Reply::error(404, "no such resource");
        }
        let asked = (self.request.parameter("discoveryName"), self.request.parameter("version"));
        let (Some(name), Some(version)) = asked else {
            return Reply::error(400, "discoveryName and version are mandatory");
        };
        let path = match (version.as_str(), grant.platform) {
            ("2", Platform::New) => Some(self.behavior.path.as_str()),
            ("2", _) => Some(V2_PATH),
            ("3", Platform::New) => self.behavior.v3_path.as_deref(),
            _ => None,
        };
        // 4.2.2, "False OK": not enabled, or wrong values.
        let path = path.filter(|_| self.behavior.discovery_enabled && name == "third-party");
        let Some(path) = path else { return Reply::json(200, &json!({"APIs": []})) };
        let region = match &grant.holder {
            Holder::Account(account) => state.accounts.get(account).map(|practice| practice.account.region),
            Holder::User(email) => {
                state.related(grant.platform, email).first().map(|practice| practice.account.region)
            }
        };
        let home = HostRole::home(grant.platform, region.unwrap_or(default_region(grant.platform)));
        let domain = match self.behavior.domain_form {
            DomainForm::WithScheme => self.host.context.origin(home),
            DomainForm::TrailingSlash => format!("{}/", self.host.context.origin(home)),
            DomainForm::Bare => self.host.context.authority(home),
        };
        Reply::json(200, &discovery_json(&version, &domain, path))
    }

    fn related_accounts(&self, state: &SandboxState, grant: &Grant) -> Reply {
        let Holder::User(email) = &grant.holder else { return Reply::error(401, "wrong token") };
        let blank = if self.behavior.trailing_blanks { " " } else { "" };
        let entry = |practice: &&Practice| {
            let account = &practice.account;
            let id = if self.behavior.account_id_as_string {
                json!(account.id.to_string())
            } else {
                json!(account.id)
            };
            json!({
                format!("AccountId{blank}"): id,
                format!("AccountName{blank}"): account.name,
                format!("AccountAddress{blank}"): format!("{} Molar Street, Sandbox", account.id % 100 + 1),
                "IsPaired": practice.pairings.contains_key(&grant.client_id),
            })
        };
        let data: Vec<Value> = state.related(grant.platform, email).iter().map(entry).collect();
        Reply::json(200, &json!({"Data": data, "Status": self.status(), "Errors": []}))
    }

    fn pair(&self, state: &mut SandboxState, grant: &Grant) -> Reply {
        let Some(account) = self.account_in_body() else {
            return Reply::error(400, "wrong company id");
        };
        let callback = self.request.json().and_then(|body| body["CallbackUrl"].as_str().map(str::to_owned));
        match state.pair(grant, account, callback, self.behavior, self.host.now()) {
            Ok(paired) => {
                let mut data =
                    json!({"OAuthResponse": oauth::tokens_json(&paired.tokens), "CompanyId": account});
                if paired.warns {
                    data["Warnings"] = json!([CHART_WARNING]);
                }
                Reply::json(200, &json!({"Data": data, "Status": self.status()}))
            }
            Err(PairError::WrongCompany) => Reply::error(400, "wrong company id"),
            Err(PairError::PairedElsewhere) => {
                Reply::error(409, "the account is paired with a different application")
            }
        }
    }

    fn unpair(&self, state: &mut SandboxState, grant: &Grant) -> Reply {
        match self.account_in_body() {
            Some(account) if Some(account) == grant.holder.account() => {
                state.unpair(account, &grant.client_id);
                Reply::json(200, &json!({"Data": true, "Status": self.status(), "Errors": []}))
            }
            _ => Reply::error(400, "wrong company id"),
        }
    }

    /// Pair and unpair: "Format is raw/Json".
    fn account_in_body(&self) -> Option<u64> {
        let kind = self.request.header("content-type").unwrap_or_default();
        if !kind.starts_with("application/json") {
            return None;
        }
        let id = self.request.json()?.get("AccountId")?.clone();
        id.as_u64().or_else(|| id.as_str()?.parse().ok())
    }

    fn order_list(&self, practice: &Practice, kind: AccountKind) -> Reply {
        if practice.account.kind != kind {
            return Reply::error(403, "this list is for the other kind of account");
        }
        let lacking = self.lacks_rx();
        self.with_links(|links| orders::list_json(practice, links, self.found.is_v2(), lacking))
    }

    fn order(&self, practice: &Practice) -> Reply {
        let Some(rx_id) = self.segment().parse().ok() else { return Reply::error(400, "bad RX id") };
        if let Some(rx) = practice.created.get(&rx_id) {
            let text = orders::response_json(&orders::created_json(practice, rx), self.behavior);
            return Reply::json_text(200, text);
        }
        let is_there = |order: &Order| orders::exists(practice, *order) && self.lacks_rx() != Some(rx_id);
        match Order::by_rx_id(rx_id).filter(is_there) {
            Some(order) => self.with_links(|links| {
                let text = orders::order_json(practice, order, links, self.found.is_v2());
                orders::response_json(&text, self.behavior)
            }),
            None => Reply::error(404, "no such RX"),
        }
    }

    fn with_links(&self, print: impl FnOnce(&LinkPrinter<'_>) -> String) -> Reply {
        let context = &self.host.context;
        let (origin, now) = (context.origin(self.host.role), self.host.now());
        let sign = |path: &str| storage::sign(context, path, now + self.behavior.link_life);
        let links =
            LinkPrinter { origin: &origin, prefix: &self.found.prefix, behavior: self.behavior, sign: &sign };
        Reply::json_text(200, self.as_the_platform_writes(print(&links), &origin))
    }

    fn is_new_platform(&self) -> bool {
        self.host.role.platform() == Some(Platform::New)
    }

    fn lacks_rx(&self) -> Option<u64> {
        self.behavior.new_platform_differs.lacks_rx.filter(|_| self.is_new_platform())
    }

    fn as_the_platform_writes(&self, mut text: String, origin: &str) -> String {
        if !self.is_new_platform() {
            return text;
        }
        let NewPlatformDiffers { renames, link_host, .. } = &self.behavior.new_platform_differs;
        if let Some((old, new)) = renames {
            text = text.replace(&format!("\"{old}\":"), &format!("\"{new}\":"));
        }
        if let Some(host) = link_host {
            text = text.replace(origin, &format!("https://{host}"));
        }
        text
    }

    fn download(&self, state: &SandboxState, account: Option<u64>) -> Reply {
        let asset_type = self.found.segments.get(1).map_or("", String::as_str);
        let order = self.segment().parse().ok().and_then(Order::by_order_id);
        let order = order.filter(|order| account.is_none_or(|account| account == order.account));
        let has_ticket = |order: &Order| {
            !self.behavior.download_ticket || self.request.parameter("ticket") == Some(order.ticket())
        };
        let order = order.filter(has_ticket);
        match order {
            Some(order) => downloads::asset_response(state, order, asset_type, self.request),
            None => Reply::error(404, "no such order"),
        }
    }

    fn return_order(&self, practice: &mut Practice) -> Reply {
        let order = self.segment().parse().ok().and_then(Order::by_order_id);
        match order.filter(|order| orders::exists(practice, *order)) {
            Some(order) => {
                practice.returned.insert(order.order_id());
                self.good(&json!({"OrderId": order.order_id(), "Returned": true}))
            }
            None => Reply::error(404, "no such order"),
        }
    }

    fn scan_request(&self, practice: &mut Practice) -> Reply {
        let body = match self.request.json() {
            Some(body) if body.is_object() => body,
            // Longer than what the sandbox keeps of a body: taken as it is.
            _ if !self.request.body_is_complete() => Value::Null,
            _ => return Reply::error(400, "a JSON object is wanted"),
        };
        if !procedures::is_named(&body, self.found.is_v2(), self.behavior) {
            return Reply::error(400, "no known procedure is named");
        }
        let rx_id = orders::next_rx_id(practice);
        practice.creations += 1;
        practice.created.insert(rx_id, CreatedRx { rx_id, at: self.host.now(), body });
        self.good(&json!({"RxId": rx_id}))
    }

    fn delete_scan_request(&self, practice: &mut Practice) -> Reply {
        let removed = self.segment().parse().ok().and_then(|rx_id: u64| practice.created.remove(&rx_id));
        match removed {
            Some(rx) => self.good(&json!({"RxId": rx.rx_id, "Deleted": true})),
            None => Reply::error(404, "no such RX"),
        }
    }

    fn patient_search(&self, practice: &Practice) -> Reply {
        let mut wanted: Vec<String> = form_urlencoded::parse(self.request.query().as_bytes())
            .map(|(_, value)| value.into_owned())
            .collect();
        if let Some(Value::Object(fields)) = self.request.json() {
            wanted.extend(fields.values().filter_map(|value| value.as_str().map(str::to_owned)));
        }
        wanted.retain(|text| !text.is_empty());
        self.good(&json!(patients::search(practice, &wanted)))
    }

    fn patient_update(&self, practice: &mut Practice, key: &str) -> Reply {
        let Some(Value::Object(changes)) = self.request.json() else {
            return Reply::error(400, "a JSON object is wanted");
        };
        match patients::update(practice, key, &changes) {
            Some(patient) => self.good(&patient),
            None => Reply::error(404, "no such patient"),
        }
    }

    fn segment(&self) -> &str {
        self.found.segments.first().map_or("", String::as_str)
    }
}

fn default_region(platform: Platform) -> Region {
    if platform == Platform::China { Region::China } else { Region::NorthAmerica }
}

/// "V2 does not list case types as iTero use Procedures" (migration notice, comparison).
fn configuration_json(practice: &Practice, v2: bool) -> Value {
    let mut configuration = json!({
        "CompanyId": practice.account.id,
        "CompanyName": practice.account.name,
        "Doctors": [{"Id": practice.account.id * 10 + 1, "Name": "Dr. Sandra Sandbox"}],
        "Labs": [{"Id": 9001, "Name": "Sandbox Lab"}],
        "Procedures": procedures::list_json(),
    });
    if !v2 {
        configuration["CaseTypes"] =
            json!([{"Id": 1, "Name": "Restorative"}, {"Id": 2, "Name": "Orthodontic"}]);
    }
    configuration
}
