//! Chooses the account of a call. A caller learns nothing about accounts that it may not use: those get 403
//! whether or not the account exists.

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::registry::{Account, AccountLookup, AccountRegistry};
use crate::config::AccountPattern;
use crate::http1::{DuplicateHeader, Headers, KnownHeader, ascii_str};
use crate::model::account::{AccountId, RealmName};

use super::caller::AuthenticatedCaller;
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::CallerRules;

/// How many names `account_not_chosen` lists at most.
const MAX_CHOICES: usize = 100;

/// First match wins: path prefix, X-Gateway-Account, the gateway token's account, the caller's only account.
/// A gateway token is bound to its account, whatever the request names.
pub fn choose(
    registry: &AccountRegistry,
    caller: &AuthenticatedCaller,
    prefix: Option<&str>,
    headers: &Headers,
) -> Result<Arc<Account>, Refusal> {
    let named = match prefix {
        Some(text) => Some(text),
        None => named_by_header(headers)?,
    };
    let account = match (named, &caller.token_account) {
        (Some(text), _) => find(registry, &caller.rules, &parse_ref(text)?)?,
        (None, Some(bound)) => {
            find(registry, &caller.rules, &AccountRef::KnownHeader(Cow::Borrowed(bound.as_str())))?
        }
        (None, None) => find(registry, &caller.rules, &only_choice(registry, &caller.rules)?)?,
    };
    match &caller.token_account {
        Some(bound) if *bound != account.name => Err(Refusal::AccountNotAllowed),
        _ => Ok(account),
    }
}

enum AccountRef<'a> {
    /// Not yet known to be the name of anything.
    KnownHeader(Cow<'a, str>),
    Id(Option<RealmName>, AccountId),
}

/// `smile-berlin`, `4711` or `global:4711`.
fn parse_ref(text: &str) -> Result<AccountRef<'_>, Refusal> {
    let (realm, rest) = match text.split_once(':') {
        Some((realm, rest)) => (
            Some(realm.to_ascii_lowercase().parse::<RealmName>().map_err(|_| Refusal::AccountNotAllowed)?),
            rest,
        ),
        None => (None, text),
    };
    // A look before the attempt: most calls are for a name, and a failed attempt writes down why.
    if rest.starts_with(|first: char| first.is_ascii_digit())
        && let Ok(id) = rest.parse::<AccountId>()
    {
        return Ok(AccountRef::Id(realm, id));
    }
    match realm {
        // Names are lower case; some programs and people write the first letter large.
        None if rest.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Ok(AccountRef::KnownHeader(Cow::Owned(rest.to_ascii_lowercase())))
        }
        None => Ok(AccountRef::KnownHeader(Cow::Borrowed(rest))),
        // No account can have such a name, so no caller can be allowed it.
        Some(_) => Err(Refusal::AccountNotAllowed),
    }
}

fn named_by_header(headers: &Headers) -> Result<Option<&str>, Refusal> {
    let named = headers.get_unique(KnownHeader::XGatewayAccount);
    let named = named.map_err(|DuplicateHeader| Refusal::BadRequest("more than one X-Gateway-Account"))?;
    let as_text = |value| ascii_str(value).map(str::trim).ok_or(Refusal::BadRequest("odd X-Gateway-Account"));
    named.map(as_text).transpose()
}

fn only_choice<'r>(registry: &AccountRegistry, rules: &'r CallerRules) -> Result<AccountRef<'r>, Refusal> {
    match rules.single_account() {
        Some(AccountPattern::Name(name)) => Ok(AccountRef::KnownHeader(Cow::Borrowed(name))),
        Some(AccountPattern::Id { realm, id }) => Ok(AccountRef::Id(realm.clone(), *id)),
        None => Err(Refusal::AccountNotChosen(choices(registry, rules))),
    }
}

fn choices(registry: &AccountRegistry, rules: &CallerRules) -> Vec<String> {
    let mine = |account: &Arc<Account>| allows(rules, account);
    registry
        .all()
        .into_iter()
        .filter(mine)
        .take(MAX_CHOICES)
        .map(|account| account.name.to_string())
        .collect()
}

fn allows(rules: &CallerRules, account: &Account) -> bool {
    rules.may_use(&account.name, || account.identity())
}

fn find(
    registry: &AccountRegistry,
    rules: &CallerRules,
    wanted: &AccountRef<'_>,
) -> Result<Arc<Account>, Refusal> {
    let found = match wanted {
        AccountRef::KnownHeader(name) => registry.by_name(name),
        AccountRef::Id(realm, id) => by_id(registry, rules, realm.as_ref(), *id)?,
    };
    match found {
        Some(account) if allows(rules, &account) => Ok(account),
        // Behind a wall that would tell which of the others exist.
        None if !rules.is_walled() && covers(rules, wanted) => Err(Refusal::AccountUnknown),
        _ => Err(Refusal::AccountNotAllowed),
    }
}

fn covers(rules: &CallerRules, wanted: &AccountRef<'_>) -> bool {
    match wanted {
        // What no account can be called, no caller can be allowed.
        AccountRef::KnownHeader(name) => name.parse().is_ok_and(|name| rules.may_cover_name(&name)),
        AccountRef::Id(realm, id) => rules.may_cover_id(realm.as_ref(), *id),
    }
}

/// An id that exists in several realms means the one which this caller may use, if that is one.
fn by_id(
    registry: &AccountRegistry,
    rules: &CallerRules,
    realm: Option<&RealmName>,
    id: AccountId,
) -> Result<Option<Arc<Account>>, Refusal> {
    let realms = match registry.by_id(realm, id) {
        AccountLookup::One(account) => return Ok(Some(account)),
        AccountLookup::Nobody => return Ok(None),
        AccountLookup::Ambiguous(realms) => realms,
    };
    let mut mine = Vec::new();
    for realm in realms {
        if let AccountLookup::One(account) = registry.by_id(Some(&realm), id)
            && allows(rules, &account)
        {
            mine.push((realm, account));
        }
    }
    match mine.len() {
        0 => Err(Refusal::AccountNotAllowed),
        1 => Ok(mine.pop().map(|(_, account)| account)),
        _ => Err(Refusal::AccountNotChosen(mine.iter().map(|(realm, _)| format!("{realm}:{id}")).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RealmConfig};
    use crate::gateway::settings::GatewaySettings;
    use crate::gateway::testing;

    fn chosen(patterns: &[&str], prefix: Option<&str>, header: Option<&str>, bound: Option<&str>) -> String {
        let mut config = testing::config();
        config.callers = vec![testing::caller("c").accounts(patterns).build()];
        chosen_by(&config, prefix, header, bound)
    }

    /// The same, where realm `china` is of a group of its own.
    fn chosen_behind_walls(group: Option<&str>, patterns: &[&str], prefix: Option<&str>) -> String {
        let mut config = testing::config();
        let global = config.realms.values().next().unwrap().clone();
        let china = RealmConfig { name: "china".parse().unwrap(), group: "china".parse().ok(), ..global };
        config.realms.insert(china.name.clone(), china);
        let caller = testing::caller("c").accounts(patterns);
        config.callers = vec![group.map_or(caller.clone(), |group| caller.group(group)).build()];
        chosen_by(&config, prefix, None, None)
    }

    fn chosen_by(config: &Config, prefix: Option<&str>, header: Option<&str>, bound: Option<&str>) -> String {
        let rules = GatewaySettings::compile(config).callers[0].clone();
        let caller = AuthenticatedCaller { rules, token_account: bound.map(|name| name.parse().unwrap()) };
        let headers = Headers::from_pairs(header.map(|value| ("x-gateway-account", value))).unwrap();
        let registry = testing::registry(&[
            ("smile-a", "global", 1),
            ("smile-b", "global", 2),
            ("other", "china", 1),
            ("solo", "global", 9),
        ]);
        match choose(&registry, &caller, prefix, &headers) {
            Ok(account) => account.name.to_string(),
            Err(Refusal::AccountNotChosen(choices)) => format!("choose {}", choices.join(" ")),
            Err(refusal) => refusal.code().as_str().to_owned(),
        }
    }

    #[test]
    fn the_first_way_of_naming_an_account_wins() {
        assert_eq!(chosen(&["*"], Some("smile-a"), Some("smile-b"), None), "smile-a");
        assert_eq!(chosen(&["*"], None, Some("smile-b"), None), "smile-b");
        assert_eq!(chosen(&["*"], None, None, Some("smile-a")), "smile-a");
        assert_eq!(chosen(&["solo"], None, None, None), "solo");
        assert_eq!(chosen(&["9"], None, None, None), "solo");
        assert_eq!(chosen(&["smile-*"], None, None, None), "choose smile-a smile-b");
        assert_eq!(chosen(&["smile-a", "solo"], None, None, None), "choose smile-a solo");
    }

    #[test]
    fn a_gateway_token_is_worth_nothing_for_another_account() {
        assert_eq!(chosen(&["*"], Some("smile-b"), None, Some("smile-a")), "account_not_allowed");
        assert_eq!(chosen(&["*"], Some("smile-a"), None, Some("smile-a")), "smile-a");
    }

    #[test]
    fn an_id_names_an_account_and_a_realm_tells_two_apart() {
        assert_eq!(chosen(&["*"], Some("2"), None, None), "smile-b");
        assert_eq!(chosen(&["*"], Some("china:1"), None, None), "other");
        assert_eq!(chosen(&["*"], Some("1"), None, None), "choose china:1 global:1");
        assert_eq!(chosen(&["smile-*"], Some("1"), None, None), "smile-a");
        assert_eq!(chosen(&["china:1"], None, None, None), "other");
    }

    #[test]
    fn an_account_of_another_group_is_as_good_as_none() {
        let all = ["*"].as_slice();
        for (group, own, foreign) in [(None, "solo", "other"), (Some("china"), "other", "solo")] {
            assert_eq!(chosen_behind_walls(group, all, Some(own)), own);
            for wanted in [foreign, "nobody", "77", "china:77", "global:77", "nowhere:1"] {
                assert_eq!(chosen_behind_walls(group, all, Some(wanted)), "account_not_allowed", "{wanted}");
            }
        }
        assert_eq!(chosen_behind_walls(None, all, Some("1")), "smile-a", "the one of its group");
        assert_eq!(chosen_behind_walls(Some("china"), all, Some("1")), "other");
        assert_eq!(chosen_behind_walls(Some("china"), all, Some("9")), "account_not_allowed");
        assert_eq!(chosen_behind_walls(None, all, Some("china:1")), "account_not_allowed");
        assert_eq!(chosen_behind_walls(None, all, None), "choose smile-a smile-b solo");
        assert_eq!(chosen_behind_walls(Some("china"), all, None), "choose other");
        assert_eq!(chosen_behind_walls(None, &["other"], None), "account_not_allowed");
    }

    #[test]
    fn a_caller_learns_nothing_about_accounts_it_may_not_use() {
        for wanted in ["solo", "no-such", "9", "77", "nowhere:9", "Odd Name", "solo/..", ""] {
            assert_eq!(chosen(&["smile-*"], Some(wanted), None, None), "account_not_allowed", "{wanted}");
        }
        assert_eq!(chosen(&["smile-*"], Some("smile-zzz"), None, None), "account_unknown");
        assert_eq!(chosen(&["*"], Some("77"), None, None), "account_unknown");
        assert_eq!(chosen(&["gone"], None, None, None), "account_unknown");
    }
}
