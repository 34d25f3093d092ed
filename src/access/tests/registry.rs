//! The registry: look-ups, identity across updates, and that no snapshot goes back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::doubles::*;
use crate::access::registry::{AccountLookup, AccountRegistry, Availability, RouteRules};
use crate::access::renewal::Cause;
use crate::access::stats::RealmStats;
use crate::model::account::{AccountId, AccountState, RealmName};
use crate::model::route::HostPolicy;
use crate::store::Store;

fn realm(name: &str) -> RealmName {
    name.parse().unwrap()
}

#[tokio::test]
async fn accounts_are_found_by_name_and_by_id_and_listed_in_order() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile", "apple"]).await;
    assert_eq!(bench.account("smile").identity(), (global(), AccountId::new(0)));
    assert!(bench.registry.by_name("nobody").is_none());
    let AccountLookup::One(found) = bench.registry.by_id(None, AccountId::new(1)) else {
        panic!("not found")
    };
    assert_eq!(found.name.as_str(), "apple");
    assert!(matches!(bench.registry.by_id(Some(&realm("old")), AccountId::new(1)), AccountLookup::Nobody));
    assert!(matches!(bench.registry.by_id(None, AccountId::new(9)), AccountLookup::Nobody));
    let names: Vec<_> = bench.registry.all().iter().map(|account| account.name.to_string()).collect();
    assert_eq!(names, ["apple", "smile"]);
}

#[tokio::test]
async fn an_id_that_two_realms_use_for_different_accounts_is_ambiguous_until_the_realm_is_named() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let other = bench.store.put_grant(new_grant("lab", &realm("china"), 0, start_time())).await.unwrap();
    bench.registry.apply(other);
    let AccountLookup::Ambiguous(realms) = bench.registry.by_id(None, AccountId::new(0)) else {
        panic!("not ambiguous")
    };
    assert_eq!(realms, [realm("china"), global()]);
    let AccountLookup::One(found) = bench.registry.by_id(Some(&realm("china")), AccountId::new(0)) else {
        panic!()
    };
    assert_eq!(found.name.as_str(), "lab");
}

#[tokio::test]
async fn an_account_on_both_platforms_is_found_by_either_id_and_is_not_ambiguous() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let mut old = new_grant("smile", &realm("old"), 77, start_time());
    old.make_current = false;
    bench.registry.apply(bench.store.put_grant(old).await.unwrap());
    for (realm, id) in [(None, 0), (None, 77), (Some(realm("old")), 77), (Some(global()), 0)] {
        let found = bench.registry.by_id(realm.as_ref(), AccountId::new(id));
        assert!(matches!(found, AccountLookup::One(_)), "{realm:?} {id}");
    }
    bench.store.remove_grant(&"smile".parse().unwrap(), &realm("old")).await.unwrap();
    let record = bench.store.account(&"smile".parse().unwrap()).await.unwrap().unwrap();
    bench.registry.apply(record);
    assert!(matches!(bench.registry.by_id(None, AccountId::new(77)), AccountLookup::Nobody));
}

#[tokio::test]
async fn an_entry_keeps_its_identity_and_its_signals_across_updates() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let before = bench.account("smile");
    before.mark_used(start_time());
    let again = new_grant("smile", &global(), 0, start_time());
    let after = bench.registry.apply(bench.store.put_grant(again).await.unwrap()).unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(after.activity.last_call_at(), Some(start_time()));
    bench.registry.remove("smile");
    assert!(bench.registry.by_name("smile").is_none() && bench.registry.is_empty());
    assert!(matches!(bench.registry.by_id(None, AccountId::new(0)), AccountLookup::Nobody));
}

#[tokio::test]
async fn a_record_read_before_a_renewal_brings_its_state_but_not_its_tokens_back() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    let mut old = bench.store.account(&account.name).await.unwrap().unwrap();
    let renewed = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    old.state = AccountState::Paused;
    bench.registry.apply(old.clone());
    assert!(matches!(account.availability(start_time()), Availability::Paused));
    old.state = AccountState::Ready;
    bench.registry.apply(old);
    let Availability::Ready(access) = account.availability(start_time()) else { panic!("no access") };
    assert_eq!((token(&access), access.generation()), ("access-smile-1", renewed.generation()));
}

#[tokio::test]
async fn generations_grow_across_a_change_of_realm_and_back() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let account = bench.account("smile");
    let name = account.name.clone();
    let mut old = new_grant("smile", &realm("old"), 0, start_time());
    old.make_current = false;
    bench.store.put_grant(old).await.unwrap();
    let mut last = account.generation();
    for current in ["old", "global", "old"] {
        bench.store.set_current(&name, &realm(current)).await.unwrap();
        bench.registry.apply(bench.store.account(&name).await.unwrap().unwrap());
        assert_eq!(account.identity().0, realm(current));
        assert!(account.generation() > last, "{} after {last}", account.generation());
        last = account.generation();
    }
}

#[tokio::test]
async fn an_expired_token_is_renewable_and_one_that_cannot_be_bettered_is_left_to_the_platform() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let account = bench.account("smile");
    bench.clock.advance(HOUR);
    assert!(matches!(account.availability(bench.clock.now()), Availability::Renewable { .. }));
    account.block_renewals_until(bench.clock.now() + MINUTE);
    assert!(matches!(account.availability(bench.clock.now()), Availability::Ready(_)));
}

#[tokio::test]
async fn a_stored_route_that_is_no_longer_allowed_is_not_used_and_a_pinned_one_wins() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
    let account = bench.account("smile");
    let hosts = HostPolicy { allowed: vec!["*.elsewhere.test".parse().unwrap()], allow_insecure: false };
    let narrower = HashMap::from([(global(), RouteRules { hosts, pinned: None, is_old: false })]);
    let loaded = AccountRegistry::load(bench.store.accounts().await.unwrap().accounts, narrower.clone());
    assert!(matches!(
        loaded.by_name("smile").unwrap().availability(start_time()),
        Availability::Renewable { .. }
    ));
    bench.registry.set_rules(narrower);
    assert!(matches!(account.availability(start_time()), Availability::Renewable { .. }));
    let pinned = RouteRules { hosts: policy(), pinned: Some(route("us")), is_old: false };
    bench.registry.set_rules(HashMap::from([(global(), pinned)]));
    let Availability::Ready(access) = account.availability(start_time()) else { panic!("no access") };
    assert_eq!((&**access.route(), token(&access)), (&route("us"), "access-smile-0"));
}

#[tokio::test]
async fn accounts_share_one_copy_of_a_route() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile", "apple"]).await;
    let routes = ["smile", "apple"].map(|name| bench.account(name).summary().route.unwrap());
    assert!(Arc::ptr_eq(&routes[0], &routes[1]));
}

#[tokio::test]
async fn a_census_counts_by_realm_and_state_and_names_nobody() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["a1", "a2", "a3"]).await;
    let paused = "a3".parse().unwrap();
    bench.store.set_state(&paused, &AccountState::Paused).await.unwrap();
    bench.registry.apply(bench.store.account(&paused).await.unwrap().unwrap());
    let expected = RealmStats {
        ready: 2,
        paused: 1,
        earliest_expiry: Some(start_time() + HOUR),
        ..RealmStats::default()
    };
    assert_eq!(bench.registry.realm_stats().into_iter().collect::<Vec<_>>(), [(global(), expected)]);
}
