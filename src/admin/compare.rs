//! `accounts compare`: the same reads as one account on two of its platforms, and where they differ.
//!
//! The rule guarded here: nothing but GET goes out, no download, and a lab's order list only where it was
//! asked for, since what takes an order off that list is not known.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::access::grant_proof::ReadAccess;
use crate::access::registry::Account;
use crate::journal::catalogue::AuditAct;
use crate::model::account::{AccountName, RealmName};
use crate::store::AccountRecord;

use super::error::ApiError;
use super::extract::{ApiPath, ApiQuery};
use super::json_differences::{Comparison, Difference, Differences, Evidence, World, rx_ids};
use super::view::{CompareReport, ComparedRealm, DifferenceView};
use super::{Actor, Admin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareQuery {
    first: Option<RealmName>,
    second: Option<RealmName>,
    /// Also a lab's order list.
    #[serde(default)]
    lists: bool,
    /// Also an account that is no test account.
    #[serde(default)]
    force: bool,
}

/// Read of every account, with the name under which it is reported.
const READS: [&str; 2] = ["/practice-configuration", "/orders/practice"];
const LAB_LIST: &str = "/orders/lab";
const ORDER: &str = "/orders/{rxId}";
/// Orders that are also read one by one.
const MOST_ORDERS: usize = 20;

pub async fn compare(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(query): ApiQuery<CompareQuery>,
) -> Result<Json<CompareReport>, ApiError> {
    let entry = admin.entry(&account)?;
    let record = admin.record(entry.name.as_str()).await?;
    if !record.is_test && !query.force {
        let what =
            format!("{} is no test account, and comparing reads its patients' orders twice.", entry.name);
        return Err(ApiError::new(http::StatusCode::CONFLICT, "not_done", what)
            .fix("Mark one that is meant for tests with `accounts test`, or add `--force` (`force=true`)."));
    }
    let (first, second) = two_realms(&record, &query)?;
    let compared = compare_realms(&admin, &entry, (first, second), query.lists);
    admin.audited(&actor, AuditAct::Compare, Some(entry.name.as_str()), compared).await.map(Json)
}

/// The current realm and the only other one, unless they are named.
fn two_realms(record: &AccountRecord, query: &CompareQuery) -> Result<(RealmName, RealmName), ApiError> {
    let held: Vec<&RealmName> = record.grants.iter().map(|grant| &grant.realm).collect();
    let first = query.first.clone().unwrap_or_else(|| record.current.clone());
    let others: Vec<&&RealmName> = held.iter().filter(|realm| ***realm != first).collect();
    let second = match (&query.second, &others[..]) {
        (Some(named), _) => named.clone(),
        (None, [only]) => (**only).clone(),
        (None, []) => {
            let what = format!("{} holds a grant in realm {first} alone.", record.name);
            return Err(ApiError::bad_request(what).fix("Pair or import it in the other realm first."));
        }
        (None, _) => {
            let what = format!("{} holds grants in several realms.", record.name);
            return Err(ApiError::bad_request(what).fix("Name the two that are to be compared."));
        }
    };
    let missing = [&first, &second].into_iter().find(|realm| !held.contains(realm));
    match missing {
        Some(realm) => {
            let what = format!("{} holds no grant in realm {realm}.", record.name);
            Err(ApiError::bad_request(what).fix("`accounts show` lists its grants."))
        }
        None if first == second => {
            Err(ApiError::bad_request("Both realms are the same.").fix("Name two of them."))
        }
        None => Ok((first, second)),
    }
}

async fn compare_realms(
    admin: &Admin,
    entry: &Arc<Account>,
    (first, second): (RealmName, RealmName),
    lists: bool,
) -> Result<CompareReport, ApiError> {
    let access = async |realm: &RealmName| {
        let found = admin.renewals.read_access(entry, realm).await;
        found.map_err(|error| not_read(&entry.name, realm, &error.to_string()))
    };
    let (one, other) = (access(&first).await?, access(&second).await?);
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
    let key =
        key.map_err(|_| not_read(&entry.name, &first, "no random numbers can be had from the system"))?;
    let (domain_of_one, domain_of_other) = (host_of(&one), host_of(&other));
    let mut comparison = Comparison {
        first: World { host: &domain_of_one, path: one.route().path() },
        second: World { host: &domain_of_other, path: other.route().path() },
        key: &key,
        differences: Differences::default(),
    };
    let reader = Reader { name: &entry.name, first: (&first, &one), second: (&second, &other) };
    let (mut calls, mut orders) = (0, Vec::new());
    for path in READS.into_iter().chain(lists.then_some(LAB_LIST)) {
        let (here, there) = reader.both(path).await?;
        comparison.responses(path, (here.0, &here.1), (there.0, &there.1));
        calls += 1;
        if (here.0, there.0) == (200, 200) {
            orders.extend(rx_ids(&here.1).intersection(&rx_ids(&there.1)).cloned());
        }
    }
    for id in orders.into_iter().take(MOST_ORDERS) {
        let (here, there) = reader.both(&format!("/orders/{id}")).await?;
        comparison.responses(ORDER, (here.0, &here.1), (there.0, &there.1));
        calls += 1;
    }
    let differences = comparison.differences.into_inner().into_iter().map(|(what, how)| view(what, how));
    let differences = differences.collect();
    Ok(CompareReport {
        account: entry.name.clone(),
        first: ComparedRealm { realm: first, route: one.route().to_string() },
        second: ComparedRealm { realm: second, route: other.route().to_string() },
        calls,
        differences,
    })
}

/// Status and body.
type Response = (u16, Vec<u8>);

/// Asks both worlds the same.
struct Reader<'a> {
    name: &'a AccountName,
    first: (&'a RealmName, &'a ReadAccess),
    second: (&'a RealmName, &'a ReadAccess),
}

impl Reader<'_> {
    async fn both(&self, path: &str) -> Result<(Response, Response), ApiError> {
        let read = async |(realm, access): (&RealmName, &ReadAccess)| {
            let response = access.get(path).await;
            response.map_err(|error| not_read(self.name, realm, &format!("GET {path}: {error}")))
        };
        Ok((read(self.first).await?, read(self.second).await?))
    }
}

fn host_of(access: &ReadAccess) -> String {
    let domain = access.route().domain();
    domain.split_once("://").map_or(domain.as_str(), |(_, host)| host).to_owned()
}

fn not_read(name: &AccountName, realm: &RealmName, why: &str) -> ApiError {
    let what = format!("{name} cannot be read in realm {realm}: {why}.");
    ApiError::new(http::StatusCode::CONFLICT, "not_done", what)
        .fix("Nothing was changed. `explain` says how the account is; try again later.")
}

fn view(what: Difference, how: Evidence) -> DifferenceView {
    let side =
        |in_first: bool, text: String| if in_first { (text, String::new()) } else { (String::new(), text) };
    let (kind, at, (first, second)) = match what {
        Difference::Status { first, second } => {
            ("status", String::new(), (first.to_string(), second.to_string()))
        }
        Difference::Entry { list, id, in_first } => ("entry", list, side(in_first, id)),
        Difference::Field { field, in_first } => ("field", field.clone(), side(in_first, field)),
        Difference::Renamed { first, second } => ("renamed", first.clone(), (first, second)),
        Difference::Value { field } => ("value", field, how.example.clone().unwrap_or_default()),
        Difference::LinkHost { first, second } => ("link_host", String::new(), (first, second)),
        Difference::NoJson { in_first } => ("no_json", String::new(), side(in_first, "no JSON".to_owned())),
    };
    let calls = how.calls.into_iter().map(str::to_owned).collect();
    DifferenceView { kind: kind.to_owned(), calls, at, first, second, times: how.times }
}
