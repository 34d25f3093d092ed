//! The book: look-ups, identity across updates, and that no snapshot goes back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::book::{Book, Found, RealmRules, Standing};
use crate::access::census::Census;
use crate::access::doubles::*;
use crate::access::renewal::Cause;
use crate::model::account::{AccountId, AccountState, RealmName};
use crate::model::route::HostPolicy;
use crate::store::Store;

fn realm(name: &str) -> RealmName {
    name.parse().unwrap()
}

#[tokio::test]
async fn accounts_are_found_by_name_and_by_id_and_listed_in_order() {
    let bench = Workbench::new(Scripted::new(false), &["smile", "apple"]).await;
    assert_eq!(bench.entry("smile").identity(), (global(), AccountId::new(0)));
    assert!(bench.book.by_name("nobody").is_none());
    let Found::One(found) = bench.book.by_id(None, AccountId::new(1)) else { panic!("not found") };
    assert_eq!(found.name.as_str(), "apple");
    assert!(matches!(bench.book.by_id(Some(&realm("old")), AccountId::new(1)), Found::Nobody));
    assert!(matches!(bench.book.by_id(None, AccountId::new(9)), Found::Nobody));
    let names: Vec<_> = bench.book.all().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["apple", "smile"]);
}

#[tokio::test]
async fn an_id_that_two_realms_use_for_different_accounts_is_ambiguous_until_the_realm_is_named() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let other = bench.store.put_grant(new_grant("lab", &realm("china"), 0, start_time())).await.unwrap();
    bench.book.apply(other);
    let Found::Ambiguous(realms) = bench.book.by_id(None, AccountId::new(0)) else { panic!("not ambiguous") };
    assert_eq!(realms, [realm("china"), global()]);
    let Found::One(found) = bench.book.by_id(Some(&realm("china")), AccountId::new(0)) else { panic!() };
    assert_eq!(found.name.as_str(), "lab");
}

#[tokio::test]
async fn an_account_on_both_platforms_is_found_by_either_id_and_is_not_ambiguous() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let mut old = new_grant("smile", &realm("old"), 77, start_time());
    old.make_current = false;
    bench.book.apply(bench.store.put_grant(old).await.unwrap());
    for (realm, id) in [(None, 0), (None, 77), (Some(realm("old")), 77), (Some(global()), 0)] {
        let found = bench.book.by_id(realm.as_ref(), AccountId::new(id));
        assert!(matches!(found, Found::One(_)), "{realm:?} {id}");
    }
    bench.store.remove_grant(&"smile".parse().unwrap(), &realm("old")).await.unwrap();
    let record = bench.store.account(&"smile".parse().unwrap()).await.unwrap().unwrap();
    bench.book.apply(record);
    assert!(matches!(bench.book.by_id(None, AccountId::new(77)), Found::Nobody));
}

#[tokio::test]
async fn an_entry_keeps_its_identity_and_its_signals_across_updates() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let before = bench.entry("smile");
    before.touch(start_time());
    let again = new_grant("smile", &global(), 0, start_time());
    let after = bench.book.apply(bench.store.put_grant(again).await.unwrap()).unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(after.signals.last_call_at(), Some(start_time()));
    bench.book.remove("smile");
    assert!(bench.book.by_name("smile").is_none() && bench.book.is_empty());
    assert!(matches!(bench.book.by_id(None, AccountId::new(0)), Found::Nobody));
}

#[tokio::test]
async fn a_record_read_before_a_renewal_brings_its_state_but_not_its_tokens_back() {
    let bench = Workbench::new(Scripted::new(true), &["smile"]).await;
    let entry = bench.entry("smile");
    let mut old = bench.store.account(&entry.name).await.unwrap().unwrap();
    let renewed = bench.renewals.renew(&entry, entry.generation(), Cause::Unauthorized).await.unwrap();
    old.state = AccountState::Paused;
    bench.book.apply(old.clone());
    assert!(matches!(entry.standing(start_time()), Standing::Paused));
    old.state = AccountState::Ready;
    bench.book.apply(old);
    let Standing::Ready(access) = entry.standing(start_time()) else { panic!("no access") };
    assert_eq!((token(&access), access.generation()), ("access-smile-1", renewed.generation()));
}

#[tokio::test]
async fn generations_grow_across_a_change_of_realm_and_back() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let entry = bench.entry("smile");
    let name = entry.name.clone();
    let mut old = new_grant("smile", &realm("old"), 0, start_time());
    old.make_current = false;
    bench.store.put_grant(old).await.unwrap();
    let mut last = entry.generation();
    for current in ["old", "global", "old"] {
        bench.store.set_current(&name, &realm(current)).await.unwrap();
        bench.book.apply(bench.store.account(&name).await.unwrap().unwrap());
        assert_eq!(entry.identity().0, realm(current));
        assert!(entry.generation() > last, "{} after {last}", entry.generation());
        last = entry.generation();
    }
}

#[tokio::test]
async fn an_expired_token_is_renewable_and_one_that_cannot_be_bettered_is_left_to_the_platform() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let entry = bench.entry("smile");
    bench.clock.advance(HOUR);
    assert!(matches!(entry.standing(bench.clock.now()), Standing::Renewable { .. }));
    entry.hold(bench.clock.now() + MINUTE);
    assert!(matches!(entry.standing(bench.clock.now()), Standing::Ready(_)));
}

#[tokio::test]
async fn a_stored_route_that_is_no_longer_allowed_is_not_used_and_a_pinned_one_wins() {
    let bench = Workbench::new(Scripted::new(false), &["smile"]).await;
    let entry = bench.entry("smile");
    let hosts = HostPolicy { allowed: vec!["*.elsewhere.test".parse().unwrap()], allow_insecure: false };
    let narrower = HashMap::from([(global(), RealmRules { hosts, pinned: None })]);
    let loaded = Book::load(bench.store.accounts().await.unwrap().accounts, narrower.clone());
    assert!(matches!(loaded.by_name("smile").unwrap().standing(start_time()), Standing::Renewable { .. }));
    bench.book.set_rules(narrower);
    assert!(matches!(entry.standing(start_time()), Standing::Renewable { .. }));
    let pinned = RealmRules { hosts: policy(), pinned: Some(route("us")) };
    bench.book.set_rules(HashMap::from([(global(), pinned)]));
    let Standing::Ready(access) = entry.standing(start_time()) else { panic!("no access") };
    assert_eq!((&**access.route(), token(&access)), (&route("us"), "access-smile-0"));
}

#[tokio::test]
async fn accounts_share_one_copy_of_a_route() {
    let bench = Workbench::new(Scripted::new(false), &["smile", "apple"]).await;
    let routes = ["smile", "apple"].map(|name| bench.entry(name).summary().route.unwrap());
    assert!(Arc::ptr_eq(&routes[0], &routes[1]));
}

#[tokio::test]
async fn a_census_counts_by_realm_and_state_and_names_nobody() {
    let bench = Workbench::new(Scripted::new(false), &["a1", "a2", "a3"]).await;
    let paused = "a3".parse().unwrap();
    bench.store.set_state(&paused, &AccountState::Paused).await.unwrap();
    bench.book.apply(bench.store.account(&paused).await.unwrap().unwrap());
    let expected =
        Census { ready: 2, paused: 1, earliest_expiry: Some(start_time() + HOUR), ..Census::default() };
    assert_eq!(bench.book.census().into_iter().collect::<Vec<_>>(), [(global(), expected)]);
}
