//! Every way in which a login ends without an account.

use std::time::Duration;

use super::*;
use crate::access::doubles::ScriptedPlatform;
use crate::model::account::AccountId;
use crate::pairing::doubles::{related, trouble, will};
use crate::pairing::{Code, LOGIN_VALID};
use crate::platform::{Blame, PlatformErrorKind};

#[tokio::test]
async fn a_state_that_is_unknown_expired_or_replayed_leads_to_no_call() {
    let scene = Scene::new();
    let visitor = Visitor::with(&scene, request()).await;
    let proof = LoginProof::Browser { cookies: &visitor.cookies };
    let forged = format!("code=a&state={}", Code::fresh().expose());
    assert_eq!(error(&scene.pairing.callback(&forged, proof).await), &LoginError::LoginExpired);

    let late = Visitor::with(&scene, request()).await;
    connected(visitor.returns(&scene).await);
    let calls = scene.global.calls().len();
    assert_eq!(error(&visitor.returns(&scene).await), &LoginError::AlreadyUsed { by: None });
    assert_eq!(error(&visitor.returns(&scene).await), &LoginError::AlreadyUsed { by: None });
    scene.clock.advance(LOGIN_VALID + Duration::from_secs(1));
    assert_eq!(error(&late.returns(&scene).await), &LoginError::LoginExpired);
    assert_eq!(scene.global.calls().len(), calls);
}

#[tokio::test]
async fn another_browser_is_refused_and_does_not_spoil_the_right_ones_login() {
    let scene = Scene::new();
    let visitor = Visitor::with(&scene, request()).await;
    let other = Visitor::with(&scene, request()).await;
    let (name, _) = visitor.cookies.split_once('=').unwrap();
    let planted = format!("{name}={}", Code::fresh().expose());
    for cookies in ["", "x=y", &other.cookies, &planted, &format!("{name}={}", visitor.state)] {
        let response = scene.pairing.callback(&visitor.query(), LoginProof::Browser { cookies }).await;
        assert_eq!(error(&response), &LoginError::WrongBrowser, "{cookies}");
    }
    let pasted = scene.pairing.callback(&visitor.query(), LoginProof::Operator { id: &visitor.state }).await;
    assert_eq!(error(&pasted), &LoginError::WrongBrowser);
    assert!(scene.global.calls().is_empty());
    connected(visitor.returns(&scene).await);
}

#[tokio::test]
async fn an_error_redirect_is_checked_like_any_other_and_spends_the_state() {
    let scene = Scene::new();
    let visitor = Visitor::with(&scene, request()).await;
    let query = format!("error=server_error&state={}", visitor.state);
    let stranger = scene.pairing.callback(&query, LoginProof::Browser { cookies: "" }).await;
    assert_eq!(error(&stranger), &LoginError::WrongBrowser);
    let refused = scene.pairing.callback(&query, LoginProof::Browser { cookies: &visitor.cookies }).await;
    assert_eq!(error(&refused), &LoginError::LoginRefused { error: "server_error".into() });
    assert_eq!(error(&visitor.returns(&scene).await), &LoginError::AlreadyUsed { by: None });
}

/// How the platform responds, and where the login then ends.
type FailingLogin = (fn(&ScriptedPlatform), LoginError);

#[tokio::test]
async fn each_trouble_of_the_platform_ends_in_its_own_words() {
    use Blame::{Account, Credentials, Grant, Realm};
    use PlatformErrorKind::{
        Forbidden, Malformed, NothingDiscovered, PairedElsewhere, Refused, RouteRefused, Unexpected,
    };
    let detail = || "scripted: a scripted trouble".to_owned();
    let endings: [FailingLogin; 13] = [
        (|p| will(&p.exchanges, [Err(trouble(Refused, Credentials, 401))]), LoginError::CredentialsRefused),
        (|p| will(&p.exchanges, [Err(trouble(Refused, Grant, 400))]), LoginError::LoginNotAccepted),
        (
            |p| will(&p.exchanges, [Err(trouble(Malformed, Realm, 200))]),
            LoginError::PlatformMisbehaved { detail: detail() },
        ),
        (
            |p| will(&p.first_discoveries, [Err(trouble(NothingDiscovered, Account, 200))]),
            LoginError::NotEnabled,
        ),
        (|p| will(&p.first_discoveries, [Err(trouble(Unexpected, Account, 400))]), LoginError::NotEnabled),
        (
            |p| will(&p.first_discoveries, [Err(trouble(RouteRefused, Realm, 200))]),
            LoginError::RouteRefused { detail: detail() },
        ),
        (|p| will(&p.first_discoveries, [Err(trouble(Refused, Grant, 401))]), LoginError::LoginNotAccepted),
        (|p| will(&p.lists, [Ok(vec![])]), LoginError::NoAccounts),
        (
            |p| will(&p.lists, [Err(trouble(Forbidden, Account, 403))]),
            LoginError::Forbidden { call: "scripted" },
        ),
        (|p| will(&p.pairings, [Err(trouble(PairedElsewhere, Account, 409))]), LoginError::PairedElsewhere),
        (|p| will(&p.pairings, [Err(trouble(Unexpected, Account, 400))]), LoginError::WrongAccountId),
        (
            |p| will(&p.pairings, [Err(trouble(Unexpected, Account, 200))]),
            LoginError::PlatformMisbehaved { detail: detail() },
        ),
        (|p| will(&p.pairings, [Err(trouble(Refused, Grant, 401))]), LoginError::LoginNotAccepted),
    ];
    for (script, expected) in endings {
        let scene = Scene::new();
        script(&scene.global);
        let visitor = Visitor::with(&scene, named("smile")).await;
        let response = visitor.returns(&scene).await;
        assert_eq!(error(&response), &expected);
        let LoginOutcome::Failed { again, .. } = &response.outcome else { unreachable!() };
        assert!(again.is_some(), "{expected:?}: the link is still good");
        assert_eq!(scene.record("smile").await, None);
        assert!(!expected.message().todo.is_empty());
    }
}

#[tokio::test]
async fn a_platform_that_stays_down_is_asked_three_times() {
    let scene = Scene::new();
    let down = || Err(trouble(PlatformErrorKind::Failed, Blame::Realm, 500));
    will(&scene.global.lists, [down(), down(), down()]);
    let visitor = Visitor::with(&scene, request()).await;
    let mut login = std::pin::pin!(visitor.returns(&scene));
    let response = loop {
        tokio::select! {
            response = &mut login => break response,
            () = scene.clock.until_sleeping(1) => {
                scene.clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
    };
    assert!(matches!(error(&response), LoginError::PlatformDown { .. }));
    assert_eq!(scene.global.calls().iter().filter(|call| call.starts_with("list")).count(), 3);
}

#[tokio::test]
async fn a_link_for_one_account_does_not_connect_another() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    will(&scene.global.lists, [Ok(vec![related(13, "Other")])]);
    let response = Visitor::with(&scene, named("smile")).await.returns(&scene).await;
    assert_eq!(error(&response), &LoginError::AccountNotListed { wanted: AccountId::new(12), listed: 1 });
}

#[tokio::test]
async fn a_store_that_fails_before_the_pairing_changes_nothing() {
    let scene = Scene::new();
    let visitor = Visitor::with(&scene, request()).await;
    scene.store.fail_writes(true);
    assert_eq!(error(&visitor.returns(&scene).await), &LoginError::StoreDown);
    assert!(scene.global.calls().is_empty());
}
