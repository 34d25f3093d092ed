//! From the start link to a paired account.

use std::time::Duration;

use super::*;
use crate::access::account::Availability;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountState};
use crate::model::token::RefreshToken;
use crate::pairing::doubles::{self, related, route, timed_out, tokens, trouble, will};
use crate::pairing::{INVITE_LINK_VALID, StartLinkError};
use crate::platform::{self, Blame, PlatformErrorKind};
use crate::store::Store;

/// Runs a login whose retries wait, by moving the clock whenever somebody sleeps.
async fn returns_while_time_passes(scene: &Scene, visitor: &Visitor) -> CallbackResult {
    let mut login = std::pin::pin!(visitor.returns(scene));
    loop {
        tokio::select! {
            response = &mut login => return response,
            () = scene.clock.until_sleeping(1) => {
                scene.clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn the_only_account_is_paired_at_once_in_the_documented_order_and_login_tokens_are_forgotten() {
    let scene = Scene::new();
    let request = StartRequest { callback_url: Some("https://lab.test/hook".into()), ..named("smile") };
    let visitor = Visitor::with(&scene, request).await;
    let done = connected(visitor.returns(&scene).await);
    assert_eq!((done.name.as_str(), done.account_id, done.renewed), ("smile", AccountId::new(12), false));
    assert_eq!(
        scene.global.calls(),
        [
            "exchange the-code",
            "discover first login-access",
            "list login-access",
            "pair 12 https://lab.test/hook login-access eu.iterocloud.com",
            "discover pair-access-12",
        ]
    );
    let record = scene.record("smile").await.unwrap();
    let grant = record.current_grant().unwrap();
    assert_eq!(grant.refresh.expose(), "pair-refresh-12");
    assert_eq!(grant.access.as_ref().unwrap().token.expose(), "pair-access-12");
    assert_eq!(grant.access.as_ref().unwrap().expires_at, doubles::START + Duration::from_secs(3600));
    assert_eq!(grant.route.as_ref().unwrap().domain, "https://eu.iterocloud.com");
    assert_eq!(
        scene.events.of("smile", JournalEvent::Paired),
        ["account 12 of realm global paired, with a callback URL"]
    );
    let account = scene.account("smile").unwrap();
    let Availability::Ready(access) = account.availability(scene.clock.now()) else {
        panic!("it is served at once")
    };
    assert_eq!(access.expose_bearer(), "Bearer pair-access-12");
    assert_eq!(scene.known_tokens.account_of(&RefreshToken::new("pair-refresh-12")), Some(done.name));
}

#[tokio::test]
async fn of_several_accounts_the_person_chooses_once_and_in_the_same_browser() {
    let scene = Scene::new();
    will(&scene.global.lists, [Ok(vec![related(12, "Smile Berlin"), related(13, "Smile Paris")])]);
    let visitor = Visitor::with(&scene, request()).await;
    let response = visitor.returns(&scene).await;
    let LoginOutcome::Choose(choice) = &response.outcome else { panic!("{:?}", response.outcome) };
    let cookies: Vec<String> = response.cookies.iter().map(|cookie| cookie.header()).collect();
    let binding =
        cookies.iter().find(|cookie| !cookie.contains("Max-Age=0")).unwrap().split(';').next().unwrap();

    let code = choice.code.expose();
    let stranger = scene.pairing.choose(code, LoginProof::Browser { cookies: &visitor.cookies }, "13").await;
    assert_eq!(error(&stranger), &LoginError::WrongBrowser);
    let done = connected(scene.pairing.choose(code, LoginProof::Browser { cookies: binding }, "13").await);
    assert_eq!((done.name.as_str(), done.account_id), ("smile-paris", AccountId::new(13)));
    let again = scene.pairing.choose(code, LoginProof::Browser { cookies: binding }, "12").await;
    assert_eq!(error(&again), &LoginError::AlreadyUsed { by: None });
    let pairings = scene.global.calls().iter().filter(|call| call.starts_with("pair ")).count();
    assert_eq!(pairings, 1);
}

#[tokio::test]
async fn an_account_that_was_not_offered_cannot_be_chosen() {
    let scene = Scene::new();
    will(&scene.global.lists, [Ok(vec![related(12, "A"), related(13, "B")])]);
    let visitor = Visitor::with(&scene, request()).await;
    let response = visitor.returns(&scene).await;
    let LoginOutcome::Choose(choice) = &response.outcome else { panic!("{:?}", response.outcome) };
    let binding = response.cookies[0].header();
    let proof = LoginProof::Browser { cookies: binding.split(';').next().unwrap() };
    let refused = scene.pairing.choose(choice.code.expose(), proof, "99").await;
    assert_eq!(error(&refused), &LoginError::BadChoice);
    assert!(!scene.global.calls().iter().any(|call| call.starts_with("pair ")));
}

#[tokio::test]
async fn a_login_pasted_by_an_operator_is_bound_to_their_id_instead_of_a_cookie() {
    let scene = Scene::new();
    will(&scene.global.lists, [Ok(vec![related(12, "A"), related(13, "B")])]);
    let start = scene.pairing.start_pasted(named("smile")).await.unwrap();
    let state = start.authorize_url.split_once("state=").unwrap().1.to_owned();
    let pasted = format!(" \"{}?code=the-code&state={state}\"\n", start.redirect_uri);

    let elsewhere = pasted.replace("gateway.example.com", "evil.test");
    let id = start.id.expose();
    assert!(matches!(error(&scene.pairing.finish_pasted(id, &elsewhere).await), LoginError::BadCallback(_)));
    assert!(matches!(error(&scene.pairing.finish_pasted(id, "no URL").await), LoginError::BadCallback(_)));
    let stranger = scene.pairing.finish_pasted(&state, &pasted).await;
    assert_eq!(error(&stranger), &LoginError::WrongBrowser);
    assert!(scene.global.calls().is_empty());

    let response = scene.pairing.finish_pasted(id, &pasted).await;
    let LoginOutcome::Choose(choice) = response.outcome else { panic!("{:?}", response.outcome) };
    assert!(response.cookies.is_empty());
    let code = choice.code.expose();
    let done = connected(scene.pairing.choose(code, LoginProof::Operator { id }, "13").await);
    assert_eq!((done.name.as_str(), done.account_id), ("smile", AccountId::new(13)));
}

#[tokio::test]
async fn a_start_link_stays_good_over_cancelled_logins_until_its_account_is_connected() {
    let scene = Scene::new();
    let request = StartRequest { valid_for: INVITE_LINK_VALID, ..named("smile") };
    let first = Visitor::with(&scene, request).await;
    let proof = LoginProof::Browser { cookies: &first.cookies };
    let query = format!("error=access_denied&error_description=%3Cscript%3E&state={}", first.state);
    let cancelled = scene.pairing.callback(&query, proof).await;
    let LoginOutcome::Failed { error: LoginError::Cancelled, again: Some(code) } = &cancelled.outcome else {
        panic!("{:?}", cancelled.outcome)
    };
    assert!(first.link.ends_with(code.expose()));
    assert!(cancelled.cookies[0].header().contains("Max-Age=0"));

    scene.clock.advance(Duration::from_secs(6 * 24 * 60 * 60));
    let second = Visitor::at(&scene, first.link.clone()).await;
    connected(second.returns(&scene).await);
    let used = scene.pairing.look(code.expose()).await.unwrap_err();
    assert_eq!(used, LoginError::AlreadyUsed { by: Some("smile".parse().unwrap()) });
    assert!(scene.pairing.begin(code.expose()).await.is_err());
}

#[tokio::test]
async fn two_tabs_have_a_state_and_a_cookie_each() {
    let scene = Scene::new();
    let one = Visitor::with(&scene, request()).await;
    let two = Visitor::at(&scene, one.link.clone()).await;
    let name = |cookie: &str| cookie.split('=').next().unwrap().to_owned();
    assert_ne!(one.state, two.state);
    assert_ne!(name(&one.cookies), name(&two.cookies));
    let jar = format!("{}; {}", one.cookies, two.cookies);
    connected(scene.pairing.callback(&one.query(), LoginProof::Browser { cookies: &jar }).await);
    let late = scene.pairing.callback(&two.query(), LoginProof::Browser { cookies: &jar }).await;
    assert!(
        matches!(error(&late), LoginError::AlreadyUsed { by: Some(_) }),
        "the link was used by the first tab"
    );
}

#[tokio::test]
async fn a_repeat_after_504_waits_as_documented_and_pairing_waits_twice_as_long() {
    let scene = Scene::new();
    will(&scene.global.exchanges, [Err(timed_out()), Err(timed_out())]);
    will(&scene.global.pairings, [Err(timed_out())]);
    let visitor = Visitor::with(&scene, request()).await;
    connected(returns_while_time_passes(&scene, &visitor).await);
    let waited = scene.clock.now().since(doubles::START);
    assert_eq!(waited, Duration::from_secs(1 + 2 + 2), "1 s and 2 s for the code, 2 s for the pairing");
}

#[tokio::test]
async fn a_400_after_a_504_at_the_code_exchange_asks_for_a_new_login() {
    let scene = Scene::new();
    let spent = trouble(PlatformErrorKind::Refused, Blame::Grant, 400);
    will(&scene.global.exchanges, [Err(timed_out()), Err(spent)]);
    let visitor = Visitor::with(&scene, request()).await;
    let response = returns_while_time_passes(&scene, &visitor).await;
    assert_eq!(error(&response), &LoginError::LoginLost);
}

#[tokio::test]
async fn a_browser_that_hangs_up_during_the_pairing_does_not_lose_it() {
    let scene = Scene::new();
    will(&scene.global.pairings, [Err(timed_out())]);
    let visitor = Visitor::with(&scene, named("smile")).await;
    {
        let mut login = std::pin::pin!(visitor.returns(&scene));
        tokio::select! {
            _ = &mut login => panic!("it cannot be done yet"),
            () = scene.clock.until_sleeping(1) => {}
        }
    }
    scene.clock.advance(Duration::from_secs(2));
    while scene.record("smile").await.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_login_heals_a_needs_login_account_under_its_old_name_and_leaves_a_paused_one_paused() {
    for (state, after) in [
        (AccountState::NeedsLogin { since: doubles::START, why: "dead".into() }, AccountState::Ready),
        (AccountState::Paused, AccountState::Paused),
    ] {
        let scene = Scene::new();
        pair(&scene, "smile").await;
        scene.store.set_state(&"smile".parse().unwrap(), &state).await.unwrap();
        let done = connected(Visitor::with(&scene, request()).await.returns(&scene).await);
        assert_eq!((done.name.as_str(), done.renewed), ("smile", true));
        assert_eq!(done.paused, after == AccountState::Paused);
        assert_eq!(scene.record("smile").await.unwrap().state, after);
    }
}

#[tokio::test]
async fn a_known_account_under_another_name_is_refused_before_the_platform_is_asked_to_pair() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let before = scene.global.calls().len();
    let response = Visitor::with(&scene, named("grin")).await.returns(&scene).await;
    let expected =
        LoginError::KnownAs { realm: global(), id: AccountId::new(12), name: "smile".parse().unwrap() };
    assert_eq!(error(&response), &expected);
    assert!(!scene.global.calls()[before..].iter().any(|call| call.starts_with("pair ")));
}

#[tokio::test]
async fn a_second_realm_adds_a_grant_to_the_account_and_no_token_crosses() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let request = StartRequest { realm: "china".parse().unwrap(), ..named("smile") };
    will(&scene.china.lists, [Ok(vec![related(70, "Smile")])]);
    connected(Visitor::with(&scene, request).await.returns(&scene).await);
    let record = scene.record("smile").await.unwrap();
    let grants: Vec<(&str, &str)> =
        record.grants.iter().map(|grant| (grant.realm.as_str(), grant.refresh.expose())).collect();
    assert_eq!(grants, [("china", "pair-refresh-70"), ("global", "pair-refresh-12")]);
    assert_eq!(record.current.as_str(), "china");
    assert!(!scene.global.calls().iter().any(|call| call.contains("70")));
}

#[tokio::test]
async fn pair_tokens_outlive_a_store_that_fails_and_are_written_as_soon_as_it_takes_them() {
    let scene = Scene::new();
    let visitor = Visitor::with(&scene, named("smile")).await;
    let mut login = std::pin::pin!(visitor.returns(&scene));
    // The store fails only once the state was taken: the exchange waits a second for us to get there.
    will(&scene.global.exchanges, [Err(timed_out())]);
    tokio::select! {
        _ = &mut login => panic!("it cannot be done yet"),
        () = scene.clock.until_sleeping(1) => scene.store.fail_writes(true),
    }
    let done = loop {
        tokio::select! {
            response = &mut login => break connected(response),
            () = scene.clock.until_sleeping(1) => {
                scene.clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
    };
    assert!(!done.saved);
    assert_eq!((scene.pairing.unsaved(), scene.record("smile").await), (1, None));
    scene.store.fail_writes(false);
    while scene.pairing.unsaved() > 0 {
        scene.clock.until_sleeping(1).await;
        scene.clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
    let record = scene.record("smile").await.unwrap();
    assert_eq!(record.current_grant().unwrap().refresh.expose(), "pair-refresh-12");
    let pairings = scene.global.calls().iter().filter(|call| call.starts_with("pair ")).count();
    assert_eq!(pairings, 1);
}

#[tokio::test]
async fn the_second_discovery_decides_the_route_and_its_failure_keeps_the_first() {
    let scene = Scene::new();
    scene.global.next_discovery(Ok(route("us")));
    let done = connected(Visitor::with(&scene, named("smile")).await.returns(&scene).await);
    assert!(done.warnings.is_empty());
    let domain = |record: crate::store::AccountRecord| {
        record.current_grant().unwrap().route.as_ref().unwrap().domain.clone()
    };
    assert_eq!(domain(scene.record("smile").await.unwrap()), "https://us.iterocloud.com");

    let nothing = trouble(PlatformErrorKind::NothingDiscovered, Blame::Account, 200);
    scene.global.next_discovery(Err(nothing));
    let done = connected(Visitor::with(&scene, named("smile")).await.returns(&scene).await);
    assert_eq!(done.warnings.len(), 1);
    assert_eq!(domain(scene.record("smile").await.unwrap()), "https://eu.iterocloud.com");
}

#[tokio::test]
async fn chart_number_warnings_are_shown_in_full_and_journaled_without_digits() {
    let scene = Scene::new();
    let warnings = vec!["Duplicate chart# 4711 exists".to_owned()];
    let paired =
        platform::PairResponse { tokens: tokens("a", "r"), company_id: None, warnings: warnings.clone() };
    will(&scene.global.pairings, [Ok(paired)]);
    let done = connected(Visitor::with(&scene, named("smile")).await.returns(&scene).await);
    assert_eq!(done.warnings, warnings);
    let notes = scene.events.of("smile", JournalEvent::Paired);
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.ends_with("iTero warns: Duplicate chart# #### exists"), "{note}");
}

#[tokio::test]
async fn a_start_request_that_contradicts_what_is_known_is_refused_and_a_missing_callback_url_is_warned_of() {
    let scene = Scene::new();
    pair(&scene, "smile").await;
    let link = scene.pairing.start(named("smile")).await.unwrap();
    assert!(link.warnings[0].contains("unpairing"), "{:?}", link.warnings);
    assert_eq!(link.expires_at, scene.clock.now() + PAIR_LINK_VALID);
    let bad = |change: fn(&mut StartRequest)| {
        let mut request = named("smile");
        change(&mut request);
        let pairing = scene.pairing.clone();
        async move { pairing.start(request).await.err().unwrap() }
    };
    let other = bad(|request| request.account_id = Some(AccountId::new(13))).await;
    assert!(matches!(other, StartLinkError::OtherAccount { .. }), "{other}");
    let renamed = bad(|request| {
        request.name = Some("grin".parse().unwrap());
        request.account_id = Some(AccountId::new(12));
    });
    assert!(matches!(renamed.await, StartLinkError::KnownAs { .. }));
    let realm = bad(|request| request.realm = "mars".parse().unwrap()).await;
    assert!(matches!(realm, StartLinkError::UnknownRealm(_)));
    let never = bad(|request| request.valid_for = Duration::from_secs(31 * 24 * 3600)).await;
    assert!(matches!(never, StartLinkError::ValidFor));
    for url in ["http://a.test", "https://a.test/#x", "https://u:p@a.test", "javascript:alert(1)", "x"] {
        let request = StartRequest { callback_url: Some(url.into()), ..request() };
        let problem = scene.pairing.start(request).await.err().unwrap();
        assert!(matches!(problem, StartLinkError::CallbackUrl(_)), "{url}");
    }
}
