//! Accounts that are removed here, or get another name.

use super::*;
use crate::access::renewal::Cause;
use crate::journal::JournalEvent;
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::pairing::AccountChangeError;
use crate::store::Store;

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_removed_account_is_forgotten_here_alone_and_its_links_end() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let visitor = Visitor::with(&scene, named("smile")).await;
    let preview = scene.pairing.preview_removal(&name("smile")).await.unwrap();
    let told = preview.consequences.join(" ");
    for message in
        ["Nothing is done at the platform", "three months", "2 login links", "accounts export smile"]
    {
        assert!(told.contains(message), "{message}: {told}");
    }
    assert!(scene.record("smile").await.is_some(), "a preview does nothing");
    let calls = scene.global.calls().len();
    scene.pairing.remove_account(&name("smile"), false).await.unwrap();
    assert!(scene.record("smile").await.is_none());
    assert_eq!(scene.global.calls().len(), calls);
    assert!(scene.account("smile").is_none(), "the request path does not know it any more");
    assert_eq!(scene.known_tokens.account_of(&RefreshToken::new("pair-refresh-12")), None);
    assert_eq!(scene.events.of("smile", JournalEvent::Removed).len(), 1);
    let late = visitor.returns(&scene).await;
    assert!(matches!(late.outcome, LoginOutcome::Failed { .. }), "the login under way brings nothing back");
    let again = scene.pairing.remove_account(&name("smile"), false).await;
    assert!(matches!(again, Err(AccountChangeError::UnknownAccount(_))));
}

#[tokio::test]
async fn an_account_whose_newest_tokens_are_in_memory_only_is_removed_by_force_alone_and_never_renamed() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    // A caller is refused while the store is down: the tokens that the renewal brings are served from memory.
    scene.store.fail_writes(true);
    let account = scene.account("smile").unwrap();
    scene.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    scene.store.fail_writes(false);
    let preview = scene.pairing.preview_removal(&name("smile")).await.unwrap();
    assert!(
        preview.consequences.iter().any(|line| line.ends_with("refused without --force.")),
        "{preview:?}"
    );
    let refused = scene.pairing.remove_account(&name("smile"), false).await;
    assert!(matches!(refused, Err(AccountChangeError::Unsaved(_))));
    let refused = scene.pairing.rename_account(&name("smile"), &name("grin")).await;
    assert!(matches!(refused, Err(AccountChangeError::Unsaved(_))));
    scene.pairing.remove_account(&name("smile"), true).await.unwrap();
    assert!(scene.record("smile").await.is_none());
}

#[tokio::test]
async fn a_login_under_way_goes_on_under_the_new_name_and_both_names_are_in_the_journal() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let visitor = Visitor::with(&scene, named("smile")).await;
    let preview = scene.pairing.preview_rename(&name("smile"), &name("grin")).await.unwrap();
    assert!(preview.consequences.iter().any(|line| line.contains("2 login links")), "{preview:?}");
    let account = scene.account("smile").unwrap();
    scene.renewals.renew(&account, account.generation(), Cause::Operator).await.unwrap();
    scene.pairing.rename_account(&name("smile"), &name("grin")).await.unwrap();
    for token in ["pair-refresh-12", "refresh-12-1"] {
        let holder = scene.known_tokens.account_of(&RefreshToken::new(token));
        assert_eq!(holder, Some(name("grin")), "applications go on with the token that they hold: {token}");
    }
    assert!(scene.record("smile").await.is_none());
    let code = visitor.link.rsplit('/').next().unwrap().to_owned();
    assert_eq!(scene.pairing.look(&code).await.unwrap().name, Some(name("grin")));
    assert_eq!(connected(visitor.returns(&scene).await).name, name("grin"));
    assert!(scene.account("smile").is_none() && scene.account("grin").is_some());
    for (account, start) in [("smile", "to grin"), ("grin", "from smile")] {
        let lines = scene.events.of(account, JournalEvent::Renamed);
        assert!(matches!(&lines[..], [line] if line.starts_with(start)), "{account}: {lines:?}");
    }
    assert_eq!(scene.store.accounts().await.unwrap().accounts.len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_or_the_same_is_refused() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let same = scene.pairing.rename_account(&name("smile"), &name("smile")).await;
    assert!(matches!(same, Err(AccountChangeError::SameName(_))));
    let nobody = scene.pairing.rename_account(&name("nobody"), &name("grin")).await;
    assert!(matches!(nobody, Err(AccountChangeError::UnknownAccount(_))));
    let mut grin = crate::store::contract::grant("grin", "global", 99);
    grin.make_current = true;
    scene.store.put_grant(grin).await.unwrap();
    let taken = scene.pairing.rename_account(&name("smile"), &name("grin")).await;
    assert!(matches!(taken, Err(AccountChangeError::NameTaken(_))));
}
