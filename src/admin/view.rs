//! What the admin API says, as values: the command line reads with the same types that the API writes with.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName, Remedy};
use crate::pairing::MigrationLine;

/// One account as `accounts list` and `accounts show` print it. Never holds a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountView {
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    #[serde(flatten)]
    pub state: AccountState,
    /// It exists to be tested with. Unknown where the store cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<bool>,
    /// Of an account that needs a login: what to try first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
    /// The version of the API that discovery is asked for, by the account itself or by its realm.
    #[serde(default)]
    pub version: Option<String>,
    /// Where it is being moved to: its next login belongs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<RealmName>,
    /// Domain + Path where calls go now.
    pub route: Option<String>,
    /// Named by discovery and not used, since it is not proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateView>,
    pub token_expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    pub generation: u64,
    pub grants: Vec<GrantView>,
    /// Callers that hold tokens of the gateway's own for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    pub signals: SignalsView,
    /// Calls that failed in a row, where the last one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingView>,
}

/// What callers got lately instead of successful responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingView {
    pub calls: u32,
    pub since: Timestamp,
    pub last_at: Timestamp,
    /// The platform's status, or the gateway's own code.
    pub last: String,
}

/// A route that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateView {
    pub route: String,
    pub since: Timestamp,
    pub why: String,
}

/// One caller as `callers list` prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallerView {
    pub name: String,
    pub signals: SignalsView,
    /// Downloads whose address the caller built by itself, since this gateway started.
    #[serde(default)]
    pub built_downloads: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantView {
    pub realm: RealmName,
    pub account_id: AccountId,
    pub current: bool,
    pub obtained_at: Timestamp,
    pub refreshed_at: Option<Timestamp>,
    /// Set while a refresh is under way, or where the process died in the middle of one.
    pub refresh_under_way_since: Option<Timestamp>,
}

/// What metrics may not say, since their labels are bounded (design, section 10).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SignalsView {
    pub last_call_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub last_refusal: Option<String>,
    pub last_refusal_at: Option<Timestamp>,
    pub last_list_at: Option<Timestamp>,
    pub last_list_links: Option<u64>,
    pub unfinished_download_at: Option<Timestamp>,
}

/// `explain ACCOUNT`: what is, why, and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    pub account: AccountView,
    /// Sentences in order of importance.
    pub findings: Vec<Finding>,
    pub journal: Vec<JournalView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// `ok`, `note` or `trouble`.
    pub level: String,
    pub what: String,
    /// What to type or whom to ask; empty where nothing needs doing.
    pub fix: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalView {
    pub at: Timestamp,
    pub account: AccountName,
    pub event: String,
    pub detail: String,
}

/// `POST /api/pairings`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// May be left out where one is configured.
    pub realm: Option<RealmName>,
    pub name: Option<AccountName>,
    pub account_id: Option<AccountId>,
    pub callback_url: Option<String>,
    /// The operator will paste the redirected URL: answer with the authorize URL too.
    #[serde(default)]
    pub paste: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PairStarted {
    /// The one-time start link for the browser.
    pub url: String,
    /// With `paste`: where to log in.
    pub authorize_url: Option<String>,
    /// Names this login: with `paste` when the redirected URL is handed in, else when asked how it stands.
    pub ticket: Option<String>,
    pub expires_at: Timestamp,
    pub warnings: Vec<String>,
}

/// `POST /api/pairings/finish`: the redirected URL, or the choice after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFinish {
    pub ticket: String,
    pub redirected_url: Option<String>,
    pub account_id: Option<AccountId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PairOutcome {
    Paired {
        account: AccountName,
        warnings: Vec<String>,
    },
    Choose {
        ticket: String,
        accounts: Vec<ChoiceView>,
    },
    Failed {
        code: String,
        title: String,
        detail: String,
        fix: String,
        /// Whether another address may be handed in with the same ticket.
        again: bool,
    },
}

/// `POST /api/pairings/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTicket {
    pub ticket: String,
}

/// How a login by link stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PairStatus {
    Waiting { expires_at: Timestamp, last_failure: Option<LoginFailure> },
    Paired { account: Option<AccountName> },
    Over { last_failure: Option<LoginFailure> },
}

/// Why the last one who tried came no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginFailure {
    pub code: String,
    pub title: String,
    pub detail: String,
    pub fix: String,
    /// Whether the same link can lead further.
    pub again: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChoiceView {
    pub account_id: AccountId,
    pub name: String,
    pub address: String,
    pub paired: bool,
}

/// `POST /api/invitations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvitationRequest {
    pub pattern: Option<String>,
    #[serde(default)]
    pub needs_login: bool,
    /// Where the accounts are to be paired; absent: each in its current realm.
    pub realm: Option<RealmName>,
    pub callback_url: Option<String>,
    pub days: Option<u32>,
}

/// One line of an import's report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportLineView {
    /// Counted from 1, in the order of the file.
    pub entry: usize,
    /// How many entries the file has.
    pub of: usize,
    /// Empty where the entry could not be read.
    pub name: String,
    /// `imported`, `kept`, `replaced` or `failed`.
    pub result: String,
    /// Whether it is anything else than `failed`.
    pub ok: bool,
    pub detail: String,
}

/// What an import with `replace` would do; nothing was done, since it was not confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportPreviewView {
    /// Accounts that have another token here.
    pub hits: Vec<ReplaceHitView>,
    pub new: usize,
    pub same: usize,
    pub failing: usize,
    /// Of the hits: those whose present token has worked, those that are ready, those with a living access
    /// token.
    pub proven: usize,
    pub ready: usize,
    pub living: usize,
    pub done: bool,
}

/// An account whose token would be replaced, if the platform takes the file's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceHitView {
    pub name: AccountName,
    pub realm: RealmName,
    #[serde(flatten)]
    pub state: AccountState,
    pub proven: bool,
    pub token_until: Option<Timestamp>,
}

/// `accounts pause|resume|renew|discover`: what came of it for one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActReport {
    pub name: AccountName,
    pub ok: bool,
    pub detail: String,
}

/// `GET /api/migration`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MigrationReport {
    pub realms: Vec<MigrationRealm>,
    pub accounts: Vec<MigrationLine>,
}

/// What Align knows a realm by. No secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MigrationRealm {
    pub name: RealmName,
    pub is_new: bool,
    pub client_id: String,
    pub oauth_base: String,
    pub base_url: String,
    pub redirect_uri: String,
    /// Name and version that discovery is asked for.
    pub discovery: String,
}

/// `POST /api/move`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveOrder {
    /// Names, perhaps with `*`; ids; or `realm:id`.
    pub accounts: Vec<String>,
    /// Only so many per cent of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Required unless `back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RealmName>,
    #[serde(default)]
    pub back: bool,
    /// Say what would be done and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// How long login links are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// `POST /api/accounts/{name}/call`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    pub method: String,
    /// Path and query below Domain + Path.
    pub path: String,
    pub content_type: Option<String>,
    pub body: Option<String>,
    /// Whether the response's body is wanted, and how much of it.
    #[serde(default)]
    pub with_body: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallResponse {
    pub status: u16,
    /// The gateway's own code where it refused.
    pub code: Option<String>,
    pub bytes: u64,
    pub links: u64,
    pub millis: u64,
    pub content_type: Option<String>,
    pub request_id: Option<String>,
    pub body: Option<String>,
}

/// `POST /api/accounts/{name}/compare`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompareReport {
    pub account: AccountName,
    pub first: ComparedRealm,
    pub second: ComparedRealm,
    /// How many reads were made on each side.
    pub calls: u64,
    /// None where both say the same.
    pub differences: Vec<DifferenceView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComparedRealm {
    pub realm: RealmName,
    /// Domain and Path that were read.
    pub route: String,
}

/// One kind of difference, however often it was met. Holds no value of a response: hashes with a key that is
/// made for each comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DifferenceView {
    /// `status`, `entry`, `field`, `renamed`, `value`, `link_host` or `no_json`.
    pub kind: String,
    /// Paths of the calls that it was met in.
    pub calls: Vec<String>,
    /// The field or list that it is about; empty where it is about a whole response.
    pub at: String,
    /// What the first side has; empty where it has nothing.
    pub first: String,
    pub second: String,
    pub times: u64,
}

/// Whom a destructive act would hit; `done` once it was confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestructiveReport {
    pub account: AccountName,
    pub account_id: AccountId,
    pub realm: RealmName,
    pub hits: Vec<String>,
    pub done: bool,
    pub detail: String,
}

/// What removing or renaming an account means; `done` once it was confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocalActReport {
    /// As it is called after it.
    pub account: AccountName,
    pub hits: Vec<String>,
    pub done: bool,
    pub detail: String,
}

/// The body of every error of the admin API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProblemDetails {
    /// The status in words.
    #[serde(default)]
    pub title: String,
    pub status: u16,
    pub code: String,
    pub detail: String,
    #[serde(default)]
    pub fix: String,
}
