//! Bringing accounts over from another application.

use super::*;
use crate::model::account::AccountState;
use crate::model::token::RefreshToken;
use crate::pairing::doubles;
use crate::pairing::{ImportEntry, ImportOptions, ImportResult, OPERATOR_PACE};
use crate::store::Store;

fn entry(name: &str, id: u64, token: &str) -> Result<ImportEntry, String> {
    Ok(ImportEntry {
        test: None,
        name: name.parse().unwrap(),
        realm: global(),
        account_id: crate::model::account::AccountId::new(id),
        refresh_token: RefreshToken::new(token),
    })
}

/// The platform takes every token but those whose text begins with `dead`.
async fn import(
    scene: &Scene,
    entries: Vec<Result<ImportEntry, String>>,
    options: ImportOptions,
) -> Vec<ImportResult> {
    for entry in entries.iter().flatten() {
        let token = entry.refresh_token.expose();
        if !token.starts_with("dead") {
            scene.global.takes(token, entry.name.as_str());
        }
    }
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
                // Who waits for a renewal sleeps too; the pause between two lines begins after it.
                scene.renewals.finish().await;
                tokio::task::yield_now().await;
                scene.clock.advance(OPERATOR_PACE);
                tokio::task::yield_now().await;
            }
        }
    }
}

fn imported(detail: &str) -> ImportResult {
    ImportResult::Imported(detail.to_owned())
}

async fn token(scene: &Scene, name: &str) -> String {
    scene.record(name).await.unwrap().current_grant().unwrap().refresh.expose().to_owned()
}

#[tokio::test]
async fn each_line_is_stored_renewed_once_and_reported_and_a_repetition_changes_nothing() {
    let scene = Scene::new();
    let file =
        || vec![entry("smile", 12, "old-12"), Err("name is missing".into()), entry("grin", 13, "old-13")];
    let failed = ImportResult::Failed("name is missing".into());
    let first = import(&scene, file(), ImportOptions::default()).await;
    assert_eq!(
        first,
        [imported("refreshed and discovered"), failed.clone(), imported("refreshed and discovered")]
    );
    assert_eq!(token(&scene, "smile").await, "refresh-smile-1");
    assert_eq!(scene.clock.now().since(doubles::START), 2 * OPERATOR_PACE, "paced");

    let second = import(&scene, file(), ImportOptions::default()).await;
    assert!(matches!(&second[..], [ImportResult::Kept(_), f, ImportResult::Kept(_)] if *f == failed));
    assert_eq!(token(&scene, "smile").await, "refresh-smile-1", "the rotated token survives the old file");
    assert_eq!(scene.global.refreshes(), 2);

    let same = import(&scene, vec![entry("smile", 12, "refresh-smile-1")], ImportOptions::default()).await;
    assert_eq!(same, [ImportResult::Kept("this token is stored already".into())]);
}

#[tokio::test]
async fn a_paused_import_only_stores() {
    let scene = Scene::new();
    let options = ImportOptions { paused: true, ..ImportOptions::default() };
    let lines = import(&scene, vec![entry("smile", 12, "old-12")], options).await;
    assert_eq!(lines, [imported("paused, not refreshed")]);
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Paused);
    assert_eq!(scene.global.refreshes(), 0);
}

#[tokio::test]
async fn another_token_is_taken_where_the_account_needs_a_login_or_its_token_never_proved_itself_or_on_demand()
 {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let newer = || vec![entry("smile", 12, "newer")];
    let kept = import(&scene, newer(), ImportOptions::default()).await;
    assert!(matches!(kept[..], [ImportResult::Kept(_)]));
    assert_eq!(token(&scene, "smile").await, "pair-refresh-12");

    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&"smile".parse().unwrap(), &dead).await.unwrap();
    let replaced = import(&scene, newer(), ImportOptions::default()).await;
    assert_eq!(replaced, [ImportResult::Replaced("refreshed; discovered".into())]);
    assert_eq!(scene.record("smile").await.unwrap().state, AccountState::Ready);
    let holder = scene.known_tokens.account_of(&RefreshToken::new("newer"));
    assert_eq!(holder, Some("smile".parse().unwrap()), "applications go on with the token of the file");

    let demanded = ImportOptions { replace: true, paused: false };
    let replaced = import(&scene, newer(), demanded).await;
    assert_eq!(replaced, [ImportResult::Replaced("refreshed; discovered".into())]);
    assert_eq!(token(&scene, "smile").await, "refresh-smile-2");
}

#[tokio::test]
async fn what_works_is_kept_where_nothing_may_be_refreshed_and_what_never_did_is_replaced() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let paused = ImportOptions { replace: true, paused: true };
    let kept = import(&scene, vec![entry("smile", 12, "newer")], paused).await;
    assert!(matches!(kept[..], [ImportResult::Kept(_)]), "{kept:?}");
    assert_eq!(token(&scene, "smile").await, "pair-refresh-12");
    for number in [1, 2] {
        let options = ImportOptions { paused: number == 1, ..ImportOptions::default() };
        import(&scene, vec![entry("grin", 13, &format!("newer-{number}"))], options).await;
        assert_eq!(token(&scene, "grin").await, format!("newer-{number}"));
    }
    assert_eq!(scene.record("grin").await.unwrap().state, AccountState::Paused);
    assert_eq!(scene.global.refreshes(), 0);
}

#[tokio::test]
async fn an_old_file_is_tried_three_times_and_costs_no_grant() {
    let scene = Scene::new();
    let accounts = |token: &str| -> Vec<_> {
        (0..30).map(|id| entry(&format!("a{id:03}"), id, &format!("{token}-{id}"))).collect()
    };
    import(&scene, accounts("good"), ImportOptions::default()).await;
    let before = scene.store.accounts().await.unwrap().accounts;
    let replace = ImportOptions { replace: true, ..ImportOptions::default() };
    let preview = scene.pairing.preview_import(&accounts("dead"), replace).await.unwrap();
    assert_eq!((preview.hits.len(), preview.new, preview.failing), (30, 0, 0));
    assert!(preview.hits.iter().all(|hit| hit.proven && hit.token_until.is_some()));
    let lines = import(&scene, accounts("dead"), replace).await;
    assert!(lines.iter().all(|line| matches!(line, ImportResult::Failed(_))), "{lines:?}");
    assert_eq!(scene.global.calls().iter().filter(|call| call.starts_with("refresh dead")).count(), 3);
    assert_eq!(scene.store.accounts().await.unwrap().accounts, before);
}

#[tokio::test]
async fn refusals_between_tokens_that_are_taken_stop_nothing() {
    let scene = Scene::new();
    let accounts: Vec<_> = (0..9).map(|id| entry(&format!("a{id}"), id, &format!("first-{id}"))).collect();
    import(&scene, accounts, ImportOptions::default()).await;
    let word = |id: u64| if id % 3 == 2 { "good" } else { "dead" };
    let file = (0..9).map(|id| entry(&format!("a{id}"), id, &format!("{}-{id}", word(id)))).collect();
    let lines = import(&scene, file, ImportOptions { replace: true, paused: false }).await;
    assert_eq!(lines.iter().filter(|line| line.is_good()).count(), 3, "{lines:?}");
}

#[tokio::test]
async fn a_known_token_in_the_place_of_a_name_is_refused_and_not_repeated() {
    let scene = Scene::new();
    import(&scene, vec![entry("smile", 12, "t-12")], ImportOptions::default()).await;
    let mut lines = scene.pairing.import(
        vec![entry("refresh-smile-1", 12, "smile"), entry("s3cret", 12, "smile")],
        ImportOptions::default(),
    );
    while let Some(line) = lines.recv().await {
        assert_eq!(line.name, None);
        assert_eq!(line.result, ImportResult::Failed("name and refresh_token are swapped".into()));
    }
}

#[tokio::test]
async fn the_stored_token_of_an_account_that_needs_a_login_is_tried_again() {
    let scene = Scene::new();
    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    for (name, id, token) in [("smile", 12, "t-12"), ("grin", 13, "dead-13")] {
        import(&scene, vec![entry(name, id, token)], ImportOptions::default()).await;
        scene.store.set_state(&name.parse().unwrap(), &dead).await.unwrap();
    }
    let file = vec![entry("smile", 12, "refresh-smile-1"), entry("grin", 13, "dead-13")];
    let lines = import(&scene, file, ImportOptions::default()).await;
    assert_eq!(lines[0], ImportResult::Kept("this token is stored already; refreshed and discovered".into()));
    assert!(matches!(lines[1], ImportResult::Failed(_)));
}

#[tokio::test]
async fn a_paused_import_does_not_even_try_a_dead_token_again() {
    let scene = Scene::new();
    import(&scene, vec![entry("smile", 13, "dead-13")], ImportOptions::default()).await;
    let dead = AccountState::NeedsLogin { since: doubles::START, why: "dead".into() };
    scene.store.set_state(&"smile".parse().unwrap(), &dead).await.unwrap();
    let before = scene.global.refreshes();
    assert!(before > 0);
    let options = ImportOptions { paused: true, ..ImportOptions::default() };
    let lines = import(&scene, vec![entry("smile", 13, "dead-13")], options).await;
    assert_eq!(lines, [ImportResult::Kept("this token is stored already".into())]);
    assert_eq!(scene.global.refreshes(), before);
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
        entry("beam", 15, "dead-15"),
    ];
    let lines = import(&scene, file, ImportOptions::default()).await;
    let [first, name_taken, id_taken, token_taken, realm, dead] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(first, &imported("refreshed and discovered"));
    for failed in [name_taken, id_taken, token_taken, realm] {
        assert!(matches!(failed, ImportResult::Failed(_)), "{failed:?}");
    }
    assert!(matches!(dead, ImportResult::Failed(_)));
    assert_eq!(lines.iter().filter(|line| line.is_good()).count(), 1);
    assert!(scene.record("grin").await.is_none());
}
