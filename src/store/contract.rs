//! What every kind of store owes, as one suite: `store_contract!(make)` runs each claim against a fresh store
//! that `make` opens.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::ReplicaId;
use super::last_seen::{self, LastSeen, LastSeenRecord};
use super::{
    AccountRecord, ApplicationGrant, GrantRecord, JOURNAL_LINES, JournalEntry, NewGrant, NewTokens,
    PendingKind, PendingLogin, Store, StoreError, StoredAccess, StoredRoute, TrialRefresh, token_hash,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountId, AccountName, AccountState, ApiVersion, RealmName};
use crate::model::token::{AccessToken, RefreshToken};

/// An empty store, its clock, and the folder that has to outlive it.
pub struct TestStore {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub folder: Option<tempfile::TempDir>,
}

/// One test per claim; `$make` is an `async fn(Clock) -> TestStore`.
macro_rules! store_contract {
    ($make:path) => {
        $crate::store::contract::store_contract! { $make:
            a_new_account_is_ready_with_its_grant_current,
            a_grant_comes_back_as_it_was_put,
            the_version_of_an_account_outlives_new_grants_and_a_new_name,
            accounts_come_by_name_with_all_their_grants,
            accounts_are_handed_over_one_by_one_as_they_are_read_together,
            one_account_has_grants_in_two_realms_and_one_is_current,
            a_move_is_marked_until_the_grant_that_it_waits_for_is_in_use,
            an_account_id_is_known_once_per_realm,
            a_new_grant_replaces_the_old_one_and_keeps_its_last_refresh_and_route,
            a_grant_of_another_account_id_inherits_nothing,
            new_tokens_end_the_intent_and_keep_the_refresh_token_where_none_came,
            a_response_without_tokens_ends_its_own_intent_only,
            a_commit_against_another_generation_is_fenced_and_changes_nothing,
            of_many_commits_on_one_generation_one_wins,
            a_refresh_token_kept_beside_a_grants_own_is_used_once_and_forgotten_by_the_next_tokens,
            of_refresh_tokens_kept_beside_a_grants_own_the_first_and_the_newest_stay,
            refresh_tokens_kept_beside_a_grants_own_follow_a_new_name_and_go_with_the_account,
            generations_never_go_back_over_new_grants_and_removals,
            a_token_that_was_taken_over_is_known_until_its_account_goes,
            a_grant_that_was_tried_before_keeps_the_time_and_both_tokens_are_known,
            of_two_that_make_an_applications_grant_at_once_both_get_the_first,
            an_applications_callback_url_comes_with_its_grant_and_is_set_anew_while_that_stands,
            an_applications_grant_ends_alone_follows_a_new_name_and_goes_with_the_account,
            every_state_comes_back,
            a_test_account_is_one_under_every_name_and_through_new_grants,
            the_last_grant_takes_its_account_along_and_frees_the_id,
            without_its_current_grant_an_account_uses_the_one_obtained_last,
            an_account_is_removed_with_all_its_grants_and_its_timeline_stays,
            an_account_gets_another_name_with_everything_but_its_timeline,
            a_name_that_is_taken_is_given_to_nobody_else,
            what_does_not_exist_is_named,
            a_login_is_taken_once,
            a_login_of_every_kind_is_kept,
            a_login_is_found_by_its_kind_and_before_its_end_only,
            expired_logins_are_swept_out,
            the_journal_is_newest_first_by_account_or_over_all,
            the_journal_keeps_the_newest_lines_of_each_account,
            of_what_was_last_seen_the_newest_stays,
            what_was_seen_of_an_account_goes_with_it,
            a_store_that_works_says_so,
            a_closed_store_takes_nothing_any_more
        }
    };
    ($make:path: $($claim:ident),+) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let clock = $crate::clock::Clock::manual($crate::clock::Timestamp::from_millis(1_000_000));
                $crate::store::contract::$claim($make(clock).await).await;
            }
        )+
    };
}
pub(crate) use store_contract;

pub fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

pub fn realm(text: &str) -> RealmName {
    text.parse().unwrap()
}

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub fn access(text: &str, expires_at: u64) -> StoredAccess {
    StoredAccess { token: AccessToken::new(text), expires_at: at(expires_at) }
}

pub fn route(domain: &str) -> StoredRoute {
    StoredRoute { domain: domain.into(), path: "/itero-gen-api/v2".into(), discovered_at: at(55) }
}

/// A grant with a refresh token and nothing else, as an import brings it.
pub fn grant(account: &str, in_realm: &str, id: u64) -> NewGrant {
    NewGrant {
        name: name(account),
        realm: realm(in_realm),
        account_id: AccountId::new(id),
        refresh: RefreshToken::new(format!("refresh-{account}-{in_realm}")),
        access: None,
        route: None,
        at: at(10),
        make_current: false,
        state: None,
        trial: None,
    }
}

pub fn tokens(access_token: &str, refresh: Option<&str>, refreshed_at: u64) -> NewTokens {
    NewTokens {
        access: access(access_token, refreshed_at + 3_600_000),
        refresh: refresh.map(RefreshToken::new),
        refreshed_at: at(refreshed_at),
    }
}

fn login(id: u8, kind: PendingKind, expires_at: u64) -> PendingLogin {
    PendingLogin { id: [id; 32], kind, expires_at: at(expires_at), payload: format!("{{\"login\":{id}}}") }
}

pub fn application_grant(caller: &str, account: &str, token: &str) -> ApplicationGrant {
    ApplicationGrant {
        caller: caller.into(),
        account: name(account),
        refresh: RefreshToken::new(token),
        callback_url: None,
    }
}

fn line(account: &str, number: u64) -> JournalEntry {
    JournalEntry {
        at: at(number),
        account: name(account),
        event: "refreshed".into(),
        detail: format!("line {number}"),
    }
}

async fn grant_of(store: &dyn Store, account: &str, in_realm: &str) -> GrantRecord {
    let account = store.account(&name(account)).await.unwrap().unwrap();
    account.grants.into_iter().find(|grant| grant.realm == realm(in_realm)).unwrap()
}

pub async fn a_new_account_is_ready_with_its_grant_current(TestStore { store, .. }: TestStore) {
    assert_eq!(store.account(&name("smile")).await.unwrap(), None);
    let made = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!((made.state.clone(), made.current.clone()), (AccountState::Ready, realm("global")));
    assert_eq!(store.account(&name("smile")).await.unwrap(), Some(made));
}

pub async fn a_grant_comes_back_as_it_was_put(TestStore { store, .. }: TestStore) {
    let big = "a".repeat(16 * 1024);
    let state = AccountState::NeedsLogin { since: at(7), why: "the grant is dead: \"400\"".into() };
    let put = NewGrant {
        access: Some(access(&big, 99)),
        route: Some(route("https://eu.example.com")),
        state: Some(state.clone()),
        ..grant("smile", "global", u64::MAX)
    };
    let expected = AccountRecord {
        name: name("smile"),
        current: realm("global"),
        state,
        is_test: false,
        version: None,
        moving_to: None,
        grants: vec![GrantRecord {
            realm: realm("global"),
            account_id: AccountId::new(u64::MAX),
            refresh: RefreshToken::new("refresh-smile-global"),
            access: Some(access(&big, 99)),
            generation: 1,
            refreshed_at: None,
            obtained_at: at(10),
            route: Some(route("https://eu.example.com")),
            intent: None,
        }],
    };
    assert_eq!(store.put_grant(put).await.unwrap(), expected);
    assert_eq!(store.accounts().await.unwrap().accounts, [expected]);
}

pub async fn the_version_of_an_account_outlives_new_grants_and_a_new_name(
    TestStore { store, .. }: TestStore,
) {
    let version = |of: Option<AccountRecord>| of.unwrap().version.map(ApiVersion::number);
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.set_version(&name("smile"), ApiVersion::new(3)).await.unwrap();
    assert_eq!(version(store.account(&name("smile")).await.unwrap()), Some(3));
    let again = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!(version(Some(again)), Some(3));
    let renamed = store.rename_account(&name("smile"), &name("grin")).await.unwrap();
    assert_eq!(version(Some(renamed)), Some(3));
    assert_eq!(version(store.accounts().await.unwrap().accounts.pop()), Some(3));
    store.set_version(&name("grin"), None).await.unwrap();
    assert_eq!(version(store.account(&name("grin")).await.unwrap()), None);
    let unknown = store.set_version(&name("smile"), None).await;
    assert!(matches!(unknown, Err(StoreError::UnknownAccount(_))), "{unknown:?}");
}

pub async fn accounts_come_by_name_with_all_their_grants(TestStore { store, .. }: TestStore) {
    assert_eq!(store.accounts().await.unwrap(), Default::default());
    for (account, in_realm, id) in
        [("c", "global", 3), ("a", "old", 1), ("b", "china", 1), ("a", "global", 9)]
    {
        store.put_grant(grant(account, in_realm, id)).await.unwrap();
    }
    let loaded = store.accounts().await.unwrap();
    let seen: Vec<(&str, Vec<&str>)> = loaded
        .accounts
        .iter()
        .map(|account| {
            (account.name.as_str(), account.grants.iter().map(|grant| grant.realm.as_str()).collect())
        })
        .collect();
    assert_eq!(seen, [("a", vec!["global", "old"]), ("b", vec!["china"]), ("c", vec!["global"])]);
    assert_eq!(loaded.broken, []);
}

pub async fn accounts_are_handed_over_one_by_one_as_they_are_read_together(
    TestStore { store, .. }: TestStore,
) {
    for number in 0..600 {
        store.put_grant(grant(&format!("a{number:03}"), "global", number)).await.unwrap();
    }
    store.put_grant(grant("a007", "old", 7)).await.unwrap();
    let mut handed = Vec::new();
    let broken = store.each_account(&mut |account| handed.push(account)).await.unwrap();
    let together = store.accounts().await.unwrap();
    assert_eq!((handed.len(), broken.len()), (600, 0));
    assert_eq!(handed, together.accounts);
}

pub async fn one_account_has_grants_in_two_realms_and_one_is_current(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    let both = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!((both.current, both.grants.len()), (realm("old"), 2));

    let moved =
        store.put_grant(NewGrant { make_current: true, ..grant("smile", "global", 1) }).await.unwrap();
    assert_eq!((&moved.current, moved.grants.len()), (&realm("global"), 2));
    assert_eq!(moved.current_grant().unwrap().refresh.expose(), "refresh-smile-global");

    store.set_current(&name("smile"), &realm("old")).await.unwrap();
    let back = store.account(&name("smile")).await.unwrap().unwrap();
    assert_eq!(back.current_grant().unwrap().refresh.expose(), "refresh-smile-old");
    assert_eq!(back.grants, moved.grants);
}

pub async fn a_move_is_marked_until_the_grant_that_it_waits_for_is_in_use(
    TestStore { store, .. }: TestStore,
) {
    let smile = name("smile");
    let mark = async || store.account(&smile).await.unwrap().unwrap().moving_to;
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    assert_eq!(mark().await, None);
    store.set_moving(&smile, Some(&realm("global"))).await.unwrap();
    assert_eq!(mark().await, Some(realm("global")));
    // A grant that waits beside the one in use ends nothing.
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!(mark().await, Some(realm("global")));
    store.put_grant(NewGrant { make_current: true, ..grant("smile", "global", 1) }).await.unwrap();
    assert_eq!(mark().await, None);
    store.set_current(&smile, &realm("old")).await.unwrap();
    assert_eq!(mark().await, None, "the way back is no move");

    store.set_moving(&smile, Some(&realm("global"))).await.unwrap();
    store.set_current(&smile, &realm("global")).await.unwrap();
    store.set_current(&smile, &realm("old")).await.unwrap();
    assert_eq!(mark().await, None);
    store.set_moving(&smile, Some(&realm("china"))).await.unwrap();
    let renamed = store.rename_account(&smile, &name("grin")).await.unwrap();
    assert_eq!(renamed.moving_to, Some(realm("china")));
    store.set_moving(&name("grin"), None).await.unwrap();
    assert_eq!(store.account(&name("grin")).await.unwrap().unwrap().moving_to, None);
    let nobody = store.set_moving(&smile, None).await;
    assert!(matches!(nobody, Err(StoreError::UnknownAccount(_))), "{nobody:?}");
}

pub async fn an_account_id_is_known_once_per_realm(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let refusal = store.put_grant(grant("other", "global", 1)).await.unwrap_err();
    let StoreError::GrantTaken { realm: in_realm, id, held_by } = refusal else { panic!("{refusal}") };
    assert_eq!((in_realm, id, held_by), (realm("global"), AccountId::new(1), name("smile")));
    assert_eq!(store.account(&name("other")).await.unwrap(), None, "nothing of it stays");
    store.put_grant(grant("other", "old", 1)).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
}

pub async fn a_new_grant_replaces_the_old_one_and_keeps_its_last_refresh_and_route(
    TestStore { store, .. }: TestStore,
) {
    let (smile, global) = (name("smile"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.set_route(&smile, &global, &route("https://eu.example.com")).await.unwrap();
    store.commit_tokens(&smile, &global, 1, &tokens("access", None, 20)).await.unwrap();
    store.set_state(&smile, &AccountState::Paused).await.unwrap();
    store.note_intent(&smile, &global, at(30)).await.unwrap();

    let again = NewGrant { refresh: RefreshToken::new("second"), at: at(40), ..grant("smile", "global", 1) };
    let account = store.put_grant(again).await.unwrap();
    assert_eq!(account.state, AccountState::Paused, "no state given, none changed");
    let expected = GrantRecord {
        realm: global.clone(),
        account_id: AccountId::new(1),
        refresh: RefreshToken::new("second"),
        access: None,
        generation: 3,
        refreshed_at: Some(at(20)),
        obtained_at: at(40),
        route: Some(route("https://eu.example.com")),
        intent: None,
    };
    assert_eq!(account.grants, [expected]);

    let moved = NewGrant {
        route: Some(route("https://ap.example.com")),
        state: Some(AccountState::Ready),
        ..grant("smile", "global", 1)
    };
    let account = store.put_grant(moved).await.unwrap();
    assert_eq!(account.grants[0].route, Some(route("https://ap.example.com")));
    assert_eq!(account.state, AccountState::Ready);
}

pub async fn a_grant_of_another_account_id_inherits_nothing(TestStore { store, .. }: TestStore) {
    let (smile, global) = (name("smile"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.set_route(&smile, &global, &route("https://eu.example.com")).await.unwrap();
    store.commit_tokens(&smile, &global, 1, &tokens("access", None, 20)).await.unwrap();
    let account = store.put_grant(grant("smile", "global", 2)).await.unwrap();
    let [grant_now] = &account.grants[..] else { panic!("{account:?}") };
    assert_eq!((grant_now.refreshed_at, &grant_now.route, grant_now.generation), (None, &None, 3));
    store.put_grant(grant("other", "global", 1)).await.unwrap();
}

pub async fn new_tokens_end_the_intent_and_keep_the_refresh_token_where_none_came(
    TestStore { store, .. }: TestStore,
) {
    let (smile, global) = (name("smile"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    let untouched = grant_of(&*store, "smile", "old").await;
    store.note_intent(&smile, &global, at(30)).await.unwrap();
    assert_eq!(grant_of(&*store, "smile", "global").await.intent, Some(at(30)));

    let first = tokens("access-1", None, 40);
    assert_eq!(store.commit_tokens(&smile, &global, 1, &first).await.unwrap(), 2);
    let now = grant_of(&*store, "smile", "global").await;
    assert_eq!((now.generation, now.refreshed_at, now.intent), (2, Some(at(40)), None));
    assert_eq!((now.refresh.expose(), now.access), ("refresh-smile-global", Some(first.access)));

    let second = tokens("access-2", Some("rotated"), 50);
    assert_eq!(store.commit_tokens(&smile, &global, 2, &second).await.unwrap(), 3);
    let now = grant_of(&*store, "smile", "global").await;
    assert_eq!((now.refresh.expose(), now.access), ("rotated", Some(second.access)));
    assert_eq!(grant_of(&*store, "smile", "old").await, untouched);
}

pub async fn a_response_without_tokens_ends_its_own_intent_only(TestStore { store, .. }: TestStore) {
    let (smile, global, owner) = (name("smile"), realm("global"), ReplicaId::new("a").unwrap());
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    let before = grant_of(&*store, "smile", "global").await;
    store.note_intent(&smile, &global, at(30)).await.unwrap();
    store.note_intent(&smile, &realm("old"), at(30)).await.unwrap();
    for (account, in_realm, expected, noted_at) in [
        ("smile", "global", 2, 30),
        ("smile", "global", 1, 29),
        ("smile", "china", 1, 30),
        ("nobody", "global", 1, 30),
    ] {
        let (account, in_realm) = (name(account), realm(in_realm));
        assert!(!store.clear_intent(&account, &in_realm, &owner, expected, at(noted_at)).await.unwrap());
        assert_eq!(grant_of(&*store, "smile", "global").await.intent, Some(at(30)));
    }
    assert!(store.clear_intent(&smile, &global, &owner, 1, at(30)).await.unwrap());
    assert_eq!(grant_of(&*store, "smile", "global").await, before, "nothing else is touched");
    assert_eq!(grant_of(&*store, "smile", "old").await.intent, Some(at(30)), "the other realm's is its own");
    assert!(!store.clear_intent(&smile, &global, &owner, 1, at(30)).await.unwrap(), "there is none any more");
}

pub async fn a_commit_against_another_generation_is_fenced_and_changes_nothing(
    TestStore { store, .. }: TestStore,
) {
    let (smile, global) = (name("smile"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.commit_tokens(&smile, &global, 1, &tokens("access-1", Some("one"), 20)).await.unwrap();
    let before = store.accounts().await.unwrap();
    for other in [0, 1, 3, u64::MAX] {
        let refusal = store.commit_tokens(&smile, &global, other, &tokens("x", Some("x"), 30)).await;
        assert!(matches!(refusal, Err(StoreError::Fenced(2))), "{other}: {refusal:?}");
    }
    assert_eq!(store.accounts().await.unwrap(), before);
}

pub async fn a_refresh_token_kept_beside_a_grants_own_is_used_once_and_forgotten_by_the_next_tokens(
    TestStore { store, .. }: TestStore,
) {
    let (smile, global) = (name("smile"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let kept = |token| tokens("", Some(token), 20);
    assert!(
        !store.keep_fallback_token(&smile, &global, 1, &kept("refresh-smile-global")).await.unwrap(),
        "no news"
    );
    assert_eq!(store.adopt_fallback_token(&smile, &global, 1).await.unwrap(), None);

    assert!(store.keep_fallback_token(&smile, &global, 1, &kept("older")).await.unwrap());
    assert!(store.keep_fallback_token(&smile, &global, 1, &kept("newer")).await.unwrap());
    let stale = store.adopt_fallback_token(&smile, &global, 7).await.unwrap_err();
    assert!(matches!(stale, StoreError::Fenced(1)), "{stale}");
    assert_eq!(store.adopt_fallback_token(&smile, &global, 1).await.unwrap(), Some(2));
    let adopted = store.account(&smile).await.unwrap().unwrap().grants.remove(0);
    assert_eq!((adopted.refresh.expose(), adopted.generation, adopted.access), ("newer", 2, None));
    assert_eq!(
        store.adopt_fallback_token(&smile, &global, 2).await.unwrap(),
        Some(3),
        "the older one is still there"
    );

    assert!(store.keep_fallback_token(&smile, &global, 3, &kept("kept")).await.unwrap());
    store.commit_tokens(&smile, &global, 3, &tokens("access", None, 30)).await.unwrap();
    assert_eq!(store.adopt_fallback_token(&smile, &global, 4).await.unwrap(), None, "proven by new tokens");
    assert!(store.keep_fallback_token(&smile, &global, 4, &kept("kept")).await.unwrap());
    let again = store.put_grant(grant("smile", "global", 1)).await.unwrap().grants.remove(0);
    assert_eq!(
        store.adopt_fallback_token(&smile, &global, again.generation).await.unwrap(),
        None,
        "a new pairing"
    );
}

/// Adopts until nothing is kept any more.
async fn kept_tokens(store: &Arc<dyn Store>, account: &str, generation: u64) -> Vec<String> {
    let (mut kept, mut generation) = (Vec::new(), generation);
    while let Some(next) =
        store.adopt_fallback_token(&name(account), &realm("global"), generation).await.unwrap()
    {
        generation = next;
        kept.push(grant_of(&**store, account, "global").await.refresh.expose().to_owned());
    }
    kept
}

pub async fn of_refresh_tokens_kept_beside_a_grants_own_the_first_and_the_newest_stay(
    TestStore { store, .. }: TestStore,
) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    for number in 0..40 {
        let kept = tokens("", Some(&format!("kept-{number}")), 20);
        assert!(store.keep_fallback_token(&name("smile"), &realm("global"), 1, &kept).await.unwrap());
    }
    let mut expected: Vec<String> = (33..40).rev().map(|number| format!("kept-{number}")).collect();
    expected.push("kept-0".to_owned());
    assert_eq!(kept_tokens(&store, "smile", 1).await, expected);
}

pub async fn refresh_tokens_kept_beside_a_grants_own_follow_a_new_name_and_go_with_the_account(
    TestStore { store, .. }: TestStore,
) {
    let (smile, grin, global) = (name("smile"), name("grin"), realm("global"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    for token in ["older", "newer"] {
        assert!(store.keep_fallback_token(&smile, &global, 1, &tokens("", Some(token), 20)).await.unwrap());
    }
    store.rename_account(&smile, &grin).await.unwrap();
    let again = store.put_grant(grant("smile", "global", 2)).await.unwrap().grants.remove(0);
    assert_eq!(store.adopt_fallback_token(&smile, &global, again.generation).await.unwrap(), None);
    assert_eq!(kept_tokens(&store, "grin", 1).await, ["newer", "older"]);

    let kept = tokens("", Some("kept"), 20);
    let generation = grant_of(&*store, "grin", "global").await.generation;
    assert!(store.keep_fallback_token(&grin, &global, generation, &kept).await.unwrap());
    store.remove_account(&grin).await.unwrap();
    let anew = store.put_grant(grant("grin", "global", 1)).await.unwrap().grants.remove(0);
    assert_eq!(store.adopt_fallback_token(&grin, &global, anew.generation).await.unwrap(), None);
}

pub async fn of_many_commits_on_one_generation_one_wins(TestStore { store, folder, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let flights: Vec<_> = (0..16)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let brought = tokens("access", Some(&format!("refresh-{number}")), 20);
                let outcome = store.commit_tokens(&name("smile"), &realm("global"), 1, &brought).await;
                (number, outcome)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for flight in flights {
        match flight.await.unwrap() {
            (number, Ok(2)) => winners.push(number),
            (_, Err(StoreError::Fenced(2))) => {}
            (number, other) => panic!("{number}: {other:?}"),
        }
    }
    let [winner] = winners[..] else { panic!("{winners:?}") };
    assert_eq!(grant_of(&*store, "smile", "global").await.refresh.expose(), format!("refresh-{winner}"));
    drop(folder);
}

pub async fn generations_never_go_back_over_new_grants_and_removals(TestStore { store, .. }: TestStore) {
    let (smile, global, old) = (name("smile"), realm("global"), realm("old"));
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    for seen in 1..5 {
        store.commit_tokens(&smile, &global, seen, &tokens("access", None, 20)).await.unwrap();
    }
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    assert_eq!(grant_of(&*store, "smile", "old").await.generation, 6, "above the other realm's");
    store.remove_grant(&smile, &old).await.unwrap();
    store.remove_grant(&smile, &global).await.unwrap();
    assert_eq!(store.account(&smile).await.unwrap(), None);
    let again = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!(again.grants[0].generation, 7, "above what was removed");
    let again = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!(again.grants[0].generation, 8);
}

pub async fn a_token_that_was_taken_over_is_known_until_its_account_goes(TestStore { store, .. }: TestStore) {
    let (smile, global) = (name("smile"), realm("global"));
    let first = store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let taken_over = token_hash(&first.grants[0].refresh);
    store.put_grant(grant("other", "global", 2)).await.unwrap();
    let rotated = tokens("access", Some("rotated"), 20);
    store.commit_tokens(&smile, &global, first.grants[0].generation, &rotated).await.unwrap();
    let known = store.known_tokens().await.unwrap();
    assert!(
        known.contains(&(taken_over, smile.clone())),
        "the platform's rotation does not change what the application holds"
    );
    store.remove_grant(&smile, &global).await.unwrap();
    let known = store.known_tokens().await.unwrap();
    assert!(known.iter().all(|(_, account)| *account != smile) && known.len() == 1, "{known:?}");
}

pub async fn a_grant_that_was_tried_before_keeps_the_time_and_both_tokens_are_known(
    TestStore { store, .. }: TestStore,
) {
    let proof = |token: &str, refreshed_at| {
        Some(TrialRefresh { handed_in: RefreshToken::new(token), refreshed_at: at(refreshed_at) })
    };
    let put = |token: &str, trial| NewGrant {
        refresh: RefreshToken::new(token),
        access: Some(access("access", 99)),
        trial,
        ..grant("smile", "global", 1)
    };
    store.put_grant(put("b", proof("a", 20))).await.unwrap();
    assert_eq!(grant_of(&*store, "smile", "global").await.refreshed_at, Some(at(20)));
    let replaced = store.put_grant(put("d", proof("c", 30))).await.unwrap();
    assert_eq!((replaced.grants[0].refreshed_at, replaced.grants[0].generation), (Some(at(30)), 2));
    let known = store.known_tokens().await.unwrap();
    for token in ["a", "b", "c", "d"] {
        assert!(known.contains(&(token_hash(&RefreshToken::new(token)), name("smile"))), "{token}");
    }
}

pub async fn of_two_that_make_an_applications_grant_at_once_both_get_the_first(
    TestStore { store, folder, .. }: TestStore,
) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let offers: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let offered = application_grant("oldpms", "smile", &format!("offer-{number}"));
                store.put_application_grant(&offered).await.unwrap()
            })
        })
        .collect();
    let standing = store.put_application_grant(&application_grant("oldpms", "smile", "last")).await.unwrap();
    for offer in offers {
        assert_eq!(offer.await.unwrap(), standing);
    }
    assert_eq!(store.application_grants(None).await.unwrap(), [standing]);
    let nobodys = store.put_application_grant(&application_grant("oldpms", "nobody", "t")).await;
    assert!(matches!(nobodys, Err(StoreError::UnknownAccount(_))), "{nobodys:?}");
    drop(folder);
}

pub async fn an_applications_callback_url_comes_with_its_grant_and_is_set_anew_while_that_stands(
    TestStore { store, .. }: TestStore,
) {
    let smile = name("smile");
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert!(!store.set_callback_url("oldpms", &smile, Some("https://pms/a")).await.unwrap(), "no grant yet");
    let with_url = |token: &str, url: Option<&str>| ApplicationGrant {
        callback_url: url.map(str::to_owned),
        ..application_grant("oldpms", "smile", token)
    };
    let first = with_url("first", Some("https://pms/a"));
    store.put_application_grant(&first).await.unwrap();
    let again = store.put_application_grant(&with_url("second", Some("https://pms/b"))).await.unwrap();
    assert_eq!(again, first, "what stands keeps its own");
    for url in [Some("https://pms/c"), Some("https://pms/c"), None, Some("https://pms/d")] {
        assert!(store.set_callback_url("oldpms", &smile, url).await.unwrap());
        assert_eq!(store.application_grants(None).await.unwrap(), [with_url("first", url)]);
    }
    assert!(!store.set_callback_url("labsync", &smile, None).await.unwrap(), "another caller's");
    assert!(store.remove_application_grant("oldpms", &smile).await.unwrap());
    assert!(!store.set_callback_url("oldpms", &smile, Some("https://pms/e")).await.unwrap(), "revoked");
    let next = application_grant("oldpms", "smile", "third");
    assert_eq!(store.put_application_grant(&next).await.unwrap(), next);
    assert_eq!(store.application_grants(None).await.unwrap(), [next], "nothing of the revoked one is left");
}

pub async fn an_applications_grant_ends_alone_follows_a_new_name_and_goes_with_the_account(
    TestStore { store, .. }: TestStore,
) {
    let (smile, grin) = (name("smile"), name("grin"));
    for account in ["smile", "lab"] {
        store.put_grant(grant(account, "global", account.len() as u64)).await.unwrap();
        for caller in ["labsync", "oldpms"] {
            let offered = application_grant(caller, account, &format!("{caller}-{account}"));
            store.put_application_grant(&offered).await.unwrap();
        }
    }
    assert!(store.remove_application_grant("oldpms", &smile).await.unwrap());
    assert!(!store.remove_application_grant("oldpms", &smile).await.unwrap(), "it is gone");
    let url = "https://lab.example.test/hook";
    assert!(!store.set_callback_url("oldpms", &smile, Some(url)).await.unwrap());
    assert!(store.set_callback_url("labsync", &smile, Some(url)).await.unwrap());
    let with_url = |account: &str| ApplicationGrant {
        callback_url: Some(url.into()),
        ..application_grant("labsync", account, "labsync-smile")
    };
    let remaining = [with_url("smile")];
    assert_eq!(store.application_grants(Some(&smile)).await.unwrap(), remaining);
    store.rename_account(&smile, &grin).await.unwrap();
    let renamed = [with_url("grin")];
    assert_eq!(store.application_grants(Some(&grin)).await.unwrap(), renamed);
    assert_eq!(store.application_grants(Some(&smile)).await.unwrap(), []);
    store.remove_account(&grin).await.unwrap();
    store.remove_grant(&name("lab"), &realm("global")).await.unwrap();
    assert_eq!(store.application_grants(None).await.unwrap(), []);
}

pub async fn every_state_comes_back(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    for state in [
        AccountState::Paused,
        AccountState::NeedsLogin { since: at(5), why: "the token endpoint said 401".into() },
        AccountState::Ready,
    ] {
        store.set_state(&name("smile"), &state).await.unwrap();
        assert_eq!(store.account(&name("smile")).await.unwrap().unwrap().state, state);
    }
}

pub async fn the_last_grant_takes_its_account_along_and_frees_the_id(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.put_grant(grant("lab", "global", 2)).await.unwrap();
    store.remove_grant(&name("smile"), &realm("global")).await.unwrap();
    let remaining: Vec<_> =
        store.accounts().await.unwrap().accounts.into_iter().map(|account| account.name).collect();
    assert_eq!(remaining, [name("lab")]);
    store.put_grant(grant("other", "global", 1)).await.unwrap();
}

pub async fn without_its_current_grant_an_account_uses_the_one_obtained_last(
    TestStore { store, .. }: TestStore,
) {
    for (in_realm, obtained) in [("china", 20), ("global", 10), ("old", 15)] {
        store.put_grant(NewGrant { at: at(obtained), ..grant("smile", in_realm, 1) }).await.unwrap();
    }
    for (removed, current) in [("old", "china"), ("china", "global")] {
        store.remove_grant(&name("smile"), &realm(removed)).await.unwrap();
        assert_eq!(store.account(&name("smile")).await.unwrap().unwrap().current, realm(current));
    }
}

pub async fn an_account_is_removed_with_all_its_grants_and_its_timeline_stays(
    TestStore { store, .. }: TestStore,
) {
    for in_realm in ["global", "old"] {
        store.put_grant(grant("smile", in_realm, 1)).await.unwrap();
    }
    store.append_journal(line("smile", 1)).await.unwrap();
    store.remove_account(&name("smile")).await.unwrap();
    assert_eq!(store.account(&name("smile")).await.unwrap(), None);
    assert_eq!(store.known_tokens().await.unwrap(), []);
    assert_eq!(store.journal(Some(&name("smile")), 9).await.unwrap(), [line("smile", 1)]);
    let late = store.commit_tokens(&name("smile"), &realm("global"), 1, &tokens("late", None, 20)).await;
    assert!(matches!(late, Err(StoreError::UnknownAccount(_))), "a refresh under way brings nothing back");
    assert!(matches!(store.remove_account(&name("smile")).await, Err(StoreError::UnknownAccount(_))));
    let again = store.put_grant(grant("grin", "global", 1)).await.unwrap();
    assert_eq!(again.grants.len(), 1, "the id is free");
    let again = store.put_grant(grant("smile", "old", 1)).await.unwrap();
    assert_eq!(again.grants[0].generation, 3, "generations never go back");
}

pub async fn a_test_account_is_one_under_every_name_and_through_new_grants(
    TestStore { store, .. }: TestStore,
) {
    let (smile, grin) = (name("smile"), name("grin"));
    assert!(matches!(store.set_test(&smile, true).await, Err(StoreError::UnknownAccount(_))));
    assert!(!store.put_grant(grant("smile", "global", 1)).await.unwrap().is_test);
    store.put_grant(grant("lab", "global", 2)).await.unwrap();
    store.set_test(&smile, true).await.unwrap();
    assert!(store.put_grant(grant("smile", "old", 1)).await.unwrap().is_test);
    store.set_state(&smile, &AccountState::Paused).await.unwrap();
    assert!(store.rename_account(&smile, &grin).await.unwrap().is_test);
    let marked = store.accounts().await.unwrap().accounts;
    let marked: Vec<_> = marked.iter().map(|account| (account.name.as_str(), account.is_test)).collect();
    assert_eq!(marked, [("grin", true), ("lab", false)]);
    store.set_test(&grin, false).await.unwrap();
    assert!(!store.account(&grin).await.unwrap().unwrap().is_test);
    store.set_test(&grin, true).await.unwrap();
    store.remove_account(&grin).await.unwrap();
    assert!(!store.put_grant(grant("grin", "global", 1)).await.unwrap().is_test, "another account");
}

pub async fn an_account_gets_another_name_with_everything_but_its_timeline(
    TestStore { store, .. }: TestStore,
) {
    let (smile, grin) = (name("smile"), name("grin"));
    // The new name had an account before.
    store.put_grant(grant("grin", "global", 9)).await.unwrap();
    store.remove_account(&grin).await.unwrap();
    let put = NewGrant { route: Some(route("https://eu.example.com")), ..grant("smile", "global", 1) };
    store.put_grant(put).await.unwrap();
    store.put_grant(NewGrant { make_current: true, ..grant("smile", "old", 1) }).await.unwrap();
    let dead = AccountState::NeedsLogin { since: at(7), why: "dead".into() };
    store.set_state(&smile, &dead).await.unwrap();
    store.note_intent(&smile, &realm("old"), at(30)).await.unwrap();
    store.append_journal(line("smile", 1)).await.unwrap();
    let moments = LastSeen { last_call_at: Some(at(5)), ..LastSeen::default() };
    let seen = LastSeenRecord { subject: last_seen::Subject::Account(smile.clone()), moments };
    store.merge_last_seen(&[seen]).await.unwrap();
    let before = store.account(&smile).await.unwrap().unwrap();

    let renamed = store.rename_account(&smile, &grin).await.unwrap();
    assert_eq!(store.account(&grin).await.unwrap().as_ref(), Some(&renamed));
    assert_eq!(store.account(&smile).await.unwrap(), None);
    let mut expected = AccountRecord { name: grin.clone(), ..before };
    expected.grants[0].generation = 2;
    assert_eq!(renamed, expected, "above the generations of the name's earlier account");
    let known: Vec<_> = store.known_tokens().await.unwrap().into_iter().map(|(_, name)| name).collect();
    assert_eq!(known, [grin.clone(), grin.clone()]);
    assert_eq!(store.journal(Some(&smile), 9).await.unwrap(), [line("smile", 1)]);
    assert_eq!(all_seen(&store).await[0].subject, last_seen::Subject::Account(grin.clone()));
    let late = store.commit_tokens(&smile, &realm("global"), 1, &tokens("late", None, 20)).await;
    assert!(matches!(late, Err(StoreError::UnknownAccount(_))));
    let committed =
        store.commit_tokens(&grin, &realm("global"), 2, &tokens("access", Some("next"), 20)).await;
    assert_eq!(committed.unwrap(), 3);
}

pub async fn a_name_that_is_taken_is_given_to_nobody_else(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.put_grant(grant("grin", "global", 2)).await.unwrap();
    let before = store.accounts().await.unwrap();
    let taken = store.rename_account(&name("smile"), &name("grin")).await;
    assert!(matches!(taken, Err(StoreError::NameTaken(_))), "{taken:?}");
    let nobody = store.rename_account(&name("nobody"), &name("free")).await;
    assert!(matches!(nobody, Err(StoreError::UnknownAccount(_))), "{nobody:?}");
    assert_eq!(store.accounts().await.unwrap(), before);
    store.remove_account(&name("smile")).await.unwrap();
}

pub async fn what_does_not_exist_is_named(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let before = store.accounts().await.unwrap();
    let (brought, there) = (tokens("access", None, 20), route("https://eu.example.com"));
    for (account, in_realm) in [("smile", "china"), ("nobody", "global")] {
        let (account, in_realm) = (name(account), realm(in_realm));
        for refusal in [
            store.set_current(&account, &in_realm).await.unwrap_err(),
            store.note_intent(&account, &in_realm, at(1)).await.unwrap_err(),
            store.commit_tokens(&account, &in_realm, 1, &brought).await.unwrap_err(),
            store.set_route(&account, &in_realm, &there).await.unwrap_err(),
            store.remove_grant(&account, &in_realm).await.unwrap_err(),
        ] {
            match &refusal {
                StoreError::UnknownGrant { account: smile, realm: china } => {
                    assert_eq!((smile, china), (&name("smile"), &realm("china")));
                }
                StoreError::UnknownAccount(nobody) => assert_eq!(nobody, &name("nobody")),
                other => panic!("{other:?}"),
            }
        }
    }
    let refusal = store.set_state(&name("nobody"), &AccountState::Ready).await.unwrap_err();
    assert!(matches!(refusal, StoreError::UnknownAccount(_)), "{refusal:?}");
    assert_eq!(store.accounts().await.unwrap(), before);
}

pub async fn a_login_is_taken_once(TestStore { store, folder, .. }: TestStore) {
    let put = login(1, PendingKind::State, 2_000_000);
    store.put_login(put.clone()).await.unwrap();
    assert_eq!(store.peek_login([1; 32], PendingKind::State, at(5)).await.unwrap(), Some(put.clone()));
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.take_login([1; 32], PendingKind::State, at(5)).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.unwrap());
    }
    assert_eq!(taken, [put]);
    assert_eq!(store.peek_login([1; 32], PendingKind::State, at(5)).await.unwrap(), None);
    drop(folder);
}

pub async fn a_login_of_every_kind_is_kept(TestStore { store, .. }: TestStore) {
    for (id, kind) in (1..).zip(PendingKind::ALL) {
        let put = login(id, kind, 2_000_000);
        store.put_login(put.clone()).await.unwrap();
        assert_eq!(store.peek_login([id; 32], kind, at(5)).await.unwrap(), Some(put.clone()));
        assert!(store.pending_logins().await.unwrap().contains(&put));
        assert_eq!(store.take_login([id; 32], kind, at(5)).await.unwrap(), Some(put));
    }
}

pub async fn a_login_is_found_by_its_kind_and_before_its_end_only(TestStore { store, .. }: TestStore) {
    let put = login(1, PendingKind::Start, 2_000_000);
    store.put_login(put.clone()).await.unwrap();
    for (id, kind, now) in [
        (1, PendingKind::State, 5),
        (1, PendingKind::Choice, 5),
        (2, PendingKind::Start, 5),
        (1, PendingKind::Start, 2_000_000),
    ] {
        assert_eq!(store.peek_login([id; 32], kind, at(now)).await.unwrap(), None);
        assert_eq!(store.take_login([id; 32], kind, at(now)).await.unwrap(), None);
    }
    assert_eq!(store.take_login([1; 32], PendingKind::Start, at(1_999_999)).await.unwrap(), Some(put));
}

pub async fn expired_logins_are_swept_out(TestStore { store, clock, .. }: TestStore) {
    let in_a_minute = (clock.now() + Duration::from_secs(60)).as_millis();
    store.put_login(login(1, PendingKind::State, in_a_minute)).await.unwrap();
    store.put_login(login(2, PendingKind::State, in_a_minute + 1)).await.unwrap();
    clock.advance(Duration::from_secs(60));
    store.put_login(login(3, PendingKind::State, in_a_minute + 1)).await.unwrap();
    // Asked as of long ago, so that only what is gone is missing.
    let mut remaining = Vec::new();
    for id in 1..=3 {
        remaining.extend(store.peek_login([id; 32], PendingKind::State, at(1)).await.unwrap().map(|_| id));
    }
    assert_eq!(remaining, [2, 3]);
}

pub async fn the_journal_is_newest_first_by_account_or_over_all(TestStore { store, .. }: TestStore) {
    assert_eq!(store.journal(None, 10).await.unwrap(), []);
    let (a1, b2, a3) = (line("a", 1), line("b", 2), line("a", 3));
    for entry in [&a1, &b2, &a3] {
        store.append_journal(entry.clone()).await.unwrap();
    }
    assert_eq!(store.journal(None, 10).await.unwrap(), [a3.clone(), b2, a1.clone()]);
    assert_eq!(store.journal(Some(&name("a")), 10).await.unwrap(), [a3.clone(), a1]);
    assert_eq!(store.journal(Some(&name("a")), 1).await.unwrap(), [a3]);
    assert_eq!(store.journal(Some(&name("c")), 1).await.unwrap(), []);
}

pub async fn the_journal_keeps_the_newest_lines_of_each_account(TestStore { store, .. }: TestStore) {
    store.append_journal(line("quiet", 0)).await.unwrap();
    let written = JOURNAL_LINES as u64 + 3;
    for number in 1..=written {
        store.append_journal(line("busy", number)).await.unwrap();
    }
    let busy = store.journal(Some(&name("busy")), u32::MAX).await.unwrap();
    assert_eq!(busy.len(), JOURNAL_LINES);
    assert_eq!((&busy[0], &busy[JOURNAL_LINES - 1]), (&line("busy", written), &line("busy", 4)));
    assert_eq!(store.journal(Some(&name("quiet")), 10).await.unwrap(), [line("quiet", 0)]);
}

fn seen_at(call: u64, refusal: (u16, u64), list: (u16, u64)) -> LastSeen {
    LastSeen {
        last_call_at: Some(at(call)),
        last_success_at: None,
        last_refusal: Some((refusal.0, at(refusal.1))),
        last_list: Some((list.0, at(list.1))),
        unfinished_download_at: Some(at(1)),
    }
}

async fn all_seen(store: &Arc<dyn Store>) -> Vec<LastSeenRecord> {
    let mut seen = store.last_seen(Timestamp::default()).await.unwrap().seen;
    seen.sort_by(|a, b| a.subject.cmp(&b.subject));
    seen
}

pub async fn of_what_was_last_seen_the_newest_stays(subject: TestStore) {
    let store = &subject.store;
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let account = || last_seen::Subject::Account(name("smile"));
    let caller = last_seen::Subject::Caller("smile".to_owned());
    let one = LastSeenRecord { subject: account(), moments: seen_at(10, (3, 20), (0, 40)) };
    let other = LastSeenRecord { subject: account(), moments: seen_at(11, (4, 19), (7, 41)) };
    let beside = LastSeenRecord { subject: caller, moments: LastSeen::default() };
    let stranger = LastSeenRecord { subject: last_seen::Subject::Account(name("gone")), ..one.clone() };
    store.merge_last_seen(&[one, beside.clone()]).await.unwrap();
    store.merge_last_seen(&[other, stranger]).await.unwrap();
    let merged = LastSeenRecord { subject: account(), moments: seen_at(11, (3, 20), (7, 41)) };
    assert_eq!(all_seen(store).await, [merged, beside]);
}

pub async fn what_was_seen_of_an_account_goes_with_it(subject: TestStore) {
    let store = &subject.store;
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let seen = last_seen::Subject::Account(name("smile"));
    let seen = LastSeenRecord { subject: seen, moments: seen_at(10, (3, 20), (0, 40)) };
    store.merge_last_seen(&[seen]).await.unwrap();
    store.remove_grant(&name("smile"), &realm("global")).await.unwrap();
    assert_eq!(all_seen(store).await, []);
}

pub async fn a_store_that_works_says_so(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.ping().await.unwrap();
}

pub async fn a_closed_store_takes_nothing_any_more(TestStore { store, .. }: TestStore) {
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.close().await.unwrap();
    let late = store.put_grant(grant("lab", "global", 2)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(store.ping().await.is_err());
}
