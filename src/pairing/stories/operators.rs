//! What operators do to accounts.

use std::time::Duration;

use super::*;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, AccountState};
use crate::model::token::RefreshToken;
use crate::pairing::doubles::{self, related, timed_out, trouble, will};
use crate::pairing::{
    GrantRemoval, GrantRemovalError, INVITE_LINK_VALID, InviteRequest, OperatorError, Selection,
};
use crate::platform::{Blame, PlatformErrorKind};
use crate::store::Store;

fn smile() -> AccountName {
    "smile".parse().unwrap()
}

fn pattern(text: &str) -> Selection {
    Selection::Pattern(text.to_owned())
}

async fn two_realms() -> Scene {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    will(&scene.china.lists, [Ok(vec![related(70, "Smile")])]);
    let request = StartRequest { realm: "china".parse().unwrap(), ..named("smile") };
    connected(Visitor::with(&scene, request).await.returns(&scene).await);
    scene
}

#[tokio::test]
async fn accounts_are_selected_by_name_pattern_id_and_realm_with_id() {
    let scene = two_realms().await;
    for good in ["smile", "s*", "12", "70", "global:12", "china:70"] {
        let exported = scene.pairing.export(&pattern(good), false).await.unwrap();
        assert_eq!(exported.len(), 2, "{good}");
    }
    for bad in ["grin", "1", "global:70", "mars:12", ""] {
        let problem = scene.pairing.export(&pattern(bad), false).await.err().unwrap();
        assert!(matches!(problem, OperatorError::NobodyMatches(_)), "{bad}");
    }
}

#[tokio::test]
async fn an_export_is_what_import_reads_and_shows_tokens_only_on_demand() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let plain = serde_json::to_string(&scene.pairing.export(&pattern("*"), false).await.unwrap()).unwrap();
    assert_eq!(plain, r#"[{"name":"smile","realm":"global","account_id":12}]"#);
    assert!(scene.events.of("smile", JournalEvent::Exported).is_empty());
    let full = serde_json::to_string(&scene.pairing.export(&pattern("*"), true).await.unwrap()).unwrap();
    let entries = crate::pairing::read_import(full.as_bytes()).unwrap();
    assert_eq!(entries[0].as_ref().unwrap().refresh_token.expose(), "pair-refresh-12");
    assert_eq!(scene.events.of("smile", JournalEvent::Exported), ["with refresh tokens"]);
}

#[tokio::test]
async fn pause_and_resume_hold_and_release_but_cure_nothing() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let paused = scene.pairing.pause(&pattern("*")).await.unwrap();
    assert_eq!((paused[0].changed, &paused[0].state), (true, &AccountState::Paused));
    assert_eq!(scene.account("smile").unwrap().state(), AccountState::Paused);
    assert!(!scene.pairing.pause(&pattern("*")).await.unwrap()[0].changed);
    let resumed = scene.pairing.resume(&pattern("smile")).await.unwrap();
    assert_eq!((resumed[0].changed, &resumed[0].state), (true, &AccountState::Ready));
    assert_eq!(scene.account("smile").unwrap().state(), AccountState::Ready);

    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&smile(), &dead).await.unwrap();
    assert!(!scene.pairing.resume(&pattern("smile")).await.unwrap()[0].changed);
    assert_eq!(scene.record("smile").await.unwrap().state, dead);
}

#[tokio::test]
async fn an_invitation_is_a_link_per_account_that_heals_it_days_later() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let request = |selection| InviteRequest {
        selection,
        realm: None,
        callback_url: None,
        valid_for: INVITE_LINK_VALID,
    };
    let nobody = scene.pairing.invite(request(Selection::NeedsLogin)).await.err().unwrap();
    assert!(matches!(nobody, OperatorError::NobodyNeedsLogin));
    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&smile(), &dead).await.unwrap();
    let invitations = scene.pairing.invite(request(Selection::NeedsLogin)).await.unwrap();
    let [invitation] = &invitations[..] else { panic!("one account needs a login") };
    assert_eq!((invitation.name.as_str(), invitation.account_id), ("smile", Some(AccountId::new(12))));
    scene.clock.advance(INVITE_LINK_VALID - Duration::from_secs(60));
    connected(Visitor::at(&scene, invitation.link.clone()).await.returns(&scene).await);
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Ready);
}

#[tokio::test]
async fn switching_changes_the_grant_that_is_used() {
    let scene = two_realms().await;
    assert_eq!(scene.record("smile").await.unwrap().current.as_str(), "china");
    scene.pairing.switch(&smile(), &global()).await.unwrap();
    assert_eq!(scene.record("smile").await.unwrap().current, global());
    let problem = scene.pairing.switch(&smile(), &"mars".parse().unwrap()).await.unwrap_err();
    assert!(matches!(problem, OperatorError::NoGrant { .. }));
}

#[tokio::test]
async fn a_preview_says_whom_it_hits_and_does_nothing() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let calls = scene.global.calls().len();
    for ending in [GrantRemoval::Unpair, GrantRemoval::Revoke] {
        let preview = scene.pairing.preview_grant_removal(ending, &smile(), None).await.unwrap();
        assert_eq!(preview.account_id, AccountId::new(12));
        assert!(!preview.consequences.is_empty());
    }
    assert_eq!(scene.global.calls().len(), calls);
}

#[tokio::test]
async fn unpairing_uses_a_live_pair_token_and_then_forgets_the_account() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    scene.clock.advance(Duration::from_secs(3600));
    let ended = scene.pairing.remove_grant(GrantRemoval::Unpair, smile(), None).await.unwrap();
    assert!(ended.saved && !ended.was_dead);
    let calls = scene.global.calls();
    assert_eq!(
        calls[calls.len() - 3..],
        ["refresh pair-refresh-12", "discover access-12-1", "unpair 12 access-12-1"]
    );
    assert_eq!(scene.record("smile").await, None);
    assert_eq!(scene.events.of("smile", JournalEvent::Unpaired), ["account 12 of realm global"]);
    assert!(scene.account("smile").is_none(), "the request path does not know it any more");
    assert_eq!(scene.known_tokens.account_of(&RefreshToken::new("pair-refresh-12")), None);
}

#[tokio::test]
async fn unpairing_one_of_two_grants_leaves_the_other_in_use() {
    let scene = two_realms().await;
    scene.pairing.remove_grant(GrantRemoval::Unpair, smile(), Some("china".parse().unwrap())).await.unwrap();
    let record = scene.record("smile").await.unwrap();
    assert_eq!((record.grants.len(), record.current), (1, global()));
    assert_eq!(scene.china.calls().last().unwrap(), "unpair 70 pair-access-70");
}

#[tokio::test]
async fn an_unpairing_whose_end_is_in_doubt_keeps_the_grant() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let refused = trouble(PlatformErrorKind::Refused, Blame::Grant, 401);
    will(&scene.global.unpairings, [Err(timed_out()), Err(refused)]);
    let ending = tokio::spawn({
        let pairing = scene.pairing.clone();
        async move { pairing.remove_grant(GrantRemoval::Unpair, smile(), None).await }
    });
    scene.clock.until_sleeping(1).await;
    scene.clock.advance(Duration::from_secs(2));
    let problem = ending.await.unwrap().unwrap_err();
    assert!(matches!(problem, GrantRemovalError::Doubtful(_)), "{problem}");
    assert!(scene.record("smile").await.is_some());
}

#[tokio::test]
async fn a_confirmed_unpairing_is_stored_as_soon_as_the_store_recovers() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    scene.store.fail_writes(true);
    let ended = scene.pairing.remove_grant(GrantRemoval::Unpair, smile(), None).await.unwrap();
    assert!(!ended.saved);
    scene.store.fail_writes(false);
    scene.clock.until_sleeping(1).await;
    scene.clock.advance(Duration::from_secs(10));
    while scene.record("smile").await.is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_revoked_account_stays_known_and_asks_for_a_login_also_where_its_token_was_dead() {
    for (response, was_dead) in
        [(Ok(()), false), (Err(trouble(PlatformErrorKind::Refused, Blame::Grant, 401)), true)]
    {
        let scene = Scene::new();
        pair(&scene, "smile").await;
        will(&scene.global.revocations, [response]);
        let ended = scene.pairing.remove_grant(GrantRemoval::Revoke, smile(), None).await.unwrap();
        assert_eq!(ended.was_dead, was_dead);
        assert_eq!(scene.global.calls().last().unwrap(), "revoke pair-refresh-12");
        assert_eq!(scene.record("smile").await.unwrap().state.word(), "needs_login");
    }
}

#[tokio::test]
async fn a_revocation_whose_first_response_was_lost_is_our_own() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let gone = trouble(PlatformErrorKind::Refused, Blame::Grant, 401);
    will(&scene.global.revocations, [Err(timed_out()), Err(gone)]);
    let ending = tokio::spawn({
        let pairing = scene.pairing.clone();
        async move { pairing.remove_grant(GrantRemoval::Revoke, smile(), None).await }
    });
    scene.clock.until_sleeping(1).await;
    scene.clock.advance(Duration::from_secs(1));
    assert!(!ending.await.unwrap().unwrap().was_dead);
    assert_eq!(scene.record("smile").await.unwrap().state.word(), "needs_login");
}

#[tokio::test]
async fn refused_credentials_revoke_nothing() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    will(&scene.global.revocations, [Err(trouble(PlatformErrorKind::Refused, Blame::Credentials, 401))]);
    let problem = scene.pairing.remove_grant(GrantRemoval::Revoke, smile(), None).await.unwrap_err();
    assert!(matches!(problem, GrantRemovalError::Platform(_)));
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Ready);
}
