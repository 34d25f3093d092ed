//! Bringing accounts over from another application.

use std::time::Duration;

use super::*;
use crate::model::account::AccountState;
use crate::pairing::doubles;
use crate::pairing::{ImportEntry, ImportOptions, ImportResult};
use crate::store::Store;

fn entry(name: &str, id: u64, token: &str) -> Result<ImportEntry, String> {
    Ok(ImportEntry {
        name: name.parse().unwrap(),
        realm: global(),
        account_id: crate::model::account::AccountId::new(id),
        refresh_token: crate::model::token::RefreshToken::new(token),
    })
}

async fn import(
    scene: &Scene,
    entries: Vec<Result<ImportEntry, String>>,
    options: ImportOptions,
) -> Vec<ImportResult> {
    let mut lines = scene.pairing.import(entries, options);
    let mut results = Vec::new();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => {
                    assert_eq!(line.line, results.len() + 1);
                    results.push(line.result);
                }
                None => return results,
            },
            () = scene.clock.until_sleeping(1) => {
                scene.clock.advance(Duration::from_millis(250));
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn token(scene: &Scene, name: &str) -> String {
    scene.record(name).await.unwrap().current_grant().unwrap().refresh.expose().to_owned()
}

#[tokio::test]
async fn each_line_is_stored_renewed_once_and_reported_and_a_repetition_changes_nothing() {
    let scene = Scene::new();
    let file =
        || vec![entry("smile", 12, "old-12"), Err("name is missing".into()), entry("grin", 13, "old-13")];
    let failed = ImportResult::Failed { why: "name is missing".into() };
    let first = import(&scene, file(), ImportOptions::default()).await;
    assert_eq!(
        first,
        [ImportResult::Imported { renewed: true }, failed.clone(), ImportResult::Imported { renewed: true },]
    );
    assert_eq!(token(&scene, "smile").await, "rotated-12");
    assert_eq!(scene.clock.now().since(doubles::START), Duration::from_millis(500), "paced");

    let second = import(&scene, file(), ImportOptions::default()).await;
    assert!(matches!(&second[..], [ImportResult::Kept { .. }, f, ImportResult::Kept { .. }] if *f == failed));
    assert_eq!(token(&scene, "smile").await, "rotated-12", "the rotated token survives the old file");
    let renewals = scene.hooks.seen().iter().filter(|line| line.starts_with("renew")).count();
    assert_eq!(renewals, 2);

    let same = import(&scene, vec![entry("smile", 12, "rotated-12")], ImportOptions::default()).await;
    assert_eq!(same, [ImportResult::Unchanged { renewed: false }]);
}

#[tokio::test]
async fn a_paused_import_only_stores() {
    let scene = Scene::new();
    let options = ImportOptions { paused: true, ..ImportOptions::default() };
    let lines = import(&scene, vec![entry("smile", 12, "old-12")], options).await;
    assert_eq!(lines, [ImportResult::Imported { renewed: false }]);
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Paused);
    assert!(!scene.hooks.seen().iter().any(|line| line.starts_with("renew")));
}

#[tokio::test]
async fn another_token_is_taken_where_the_account_needs_a_login_or_its_token_never_proved_itself_or_on_demand()
 {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let newer = || vec![entry("smile", 12, "newer")];
    let kept = import(&scene, newer(), ImportOptions::default()).await;
    assert!(matches!(kept[..], [ImportResult::Kept { .. }]));
    assert_eq!(token(&scene, "smile").await, "pair-refresh-12");

    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&"smile".parse().unwrap(), &dead).await.unwrap();
    let replaced = import(&scene, newer(), ImportOptions::default()).await;
    assert_eq!(replaced, [ImportResult::Replaced { renewed: true }]);
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Ready);

    let demanded = ImportOptions { replace: true, paused: true };
    let replaced = import(&scene, newer(), demanded).await;
    assert_eq!(replaced, [ImportResult::Replaced { renewed: false }]);
    let unproven = import(&scene, vec![entry("smile", 12, "newest")], ImportOptions::default()).await;
    assert_eq!(unproven, [ImportResult::Replaced { renewed: false }], "still paused");
    assert_eq!(token(&scene, "smile").await, "newest");
}

#[tokio::test]
async fn the_stored_token_of_an_account_that_needs_a_login_is_tried_again() {
    let scene = Scene::new();
    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    for (name, id) in [("smile", 12), ("dead-one", 13)] {
        import(&scene, vec![entry(name, id, &format!("t-{id}"))], ImportOptions::default()).await;
        scene.store.set_state(&name.parse().unwrap(), &dead).await.unwrap();
    }
    let file = vec![entry("smile", 12, "rotated-12"), entry("dead-one", 13, "t-13")];
    let lines = import(&scene, file, ImportOptions::default()).await;
    assert_eq!(lines[0], ImportResult::Unchanged { renewed: true });
    assert!(matches!(lines[1], ImportResult::NotRenewed { .. }));
}

#[tokio::test]
async fn a_paused_import_does_not_even_try_a_dead_token_again() {
    let scene = Scene::new();
    import(&scene, vec![entry("dead-one", 13, "t-13")], ImportOptions::default()).await;
    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&"dead-one".parse().unwrap(), &dead).await.unwrap();
    let tries = |scene: &Scene| scene.hooks.seen().iter().filter(|line| line.starts_with("renew")).count();
    let before = tries(&scene);
    let options = ImportOptions { paused: true, ..ImportOptions::default() };
    let lines = import(&scene, vec![entry("dead-one", 13, "t-13")], options).await;
    assert_eq!(lines, [ImportResult::Unchanged { renewed: false }]);
    assert_eq!(tries(&scene), before);
}

#[tokio::test]
async fn a_line_that_would_mix_two_accounts_fails_alone() {
    let scene = Scene::new();
    let file = vec![
        entry("smile", 12, "t-12"),
        entry("smile", 13, "t-13"),
        entry("grin", 12, "t-14"),
        entry("grin", 14, "t-12"),
        Ok(ImportEntry { realm: "mars".parse().unwrap(), ..entry("mars", 1, "t-1").unwrap() }),
        entry("dead-one", 15, "t-15"),
    ];
    let lines = import(&scene, file, ImportOptions::default()).await;
    let [first, name_taken, id_taken, token_taken, realm, dead] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(first, &ImportResult::Imported { renewed: true });
    for failed in [name_taken, id_taken, token_taken, realm] {
        assert!(matches!(failed, ImportResult::Failed { .. }), "{failed:?}");
    }
    assert!(matches!(dead, ImportResult::NotRenewed { .. }));
    assert_eq!(lines.iter().filter(|line| line.is_good()).count(), 1);
    assert!(scene.record("grin").await.is_none());
}
