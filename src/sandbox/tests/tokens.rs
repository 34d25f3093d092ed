//! Lives and deaths of tokens.

use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_access_token_dies_on_the_hour_by_the_clock_and_a_refresh_brings_the_next() {
    let fixture = Fixture::new().await;
    let (access, refresh) = (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    fixture.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(fixture.get(&url, &access).await.status, 200);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.get(&url, &access).await.status, 401);
    let response = fixture.refresh(Platform::New, &refresh).await;
    assert_eq!(response.text_at("/refresh_token"), refresh);
    assert!(response.json().get("id_token").is_none());
    assert_eq!(fixture.get(&url, &response.text_at("/access_token")).await.status, 200);
}

#[tokio::test]
async fn expiry_shows_as_403_where_that_is_the_habit_but_not_at_the_control_calls() {
    let fixture = Fixture::with_behavior(Behavior { expiry_status: 403, ..Behavior::default() }).await;
    let api = fixture.sandbox.region_url(Region::Europe);
    assert_eq!(fixture.get(&format!("{api}/orders/practice"), "dead").await.status, 403);
    assert_eq!(fixture.get(&format!("{api}/{DISCOVERY}"), "dead").await.status, 401);
}

#[tokio::test]
async fn tokens_have_the_size_that_is_asked_for_up_to_8_k() {
    let fixture = Fixture::with_behavior(Behavior { token_size: 8192, ..Behavior::default() }).await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    assert_eq!(access.len(), 8192);
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    assert_eq!(fixture.get(&url, &access).await.status, 200);
}

#[tokio::test]
async fn rotation_kills_the_old_refresh_token_and_the_account_follows_the_new_one() {
    let fixture = Fixture::with_behavior(Behavior { rotate_refresh: true, ..Behavior::default() }).await;
    let first = fixture.sandbox.grant(CLINIC).unwrap();
    let second = fixture.refresh(Platform::New, &first).await.text_at("/refresh_token");
    assert_ne!(second, first);
    assert_eq!(fixture.refresh(Platform::New, &first).await.status, 401);
    assert_eq!(fixture.sandbox.refresh_tokens(CLINIC), std::slice::from_ref(&second));
    assert_eq!(fixture.refresh(Platform::New, &second).await.status, 200);
    // The record knows whose the dead one was.
    assert_eq!(fixture.sandbox.refreshes(CLINIC).len(), 3);
}

#[tokio::test]
async fn the_other_refresh_habits_are_switches() {
    let fixture = Fixture::new().await;
    let (access, refresh) = (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    fixture.sandbox.set_behavior(|behavior| behavior.refresh_token_in_response = false);
    assert!(fixture.refresh(Platform::New, &refresh).await.json().get("refresh_token").is_none());
    assert_eq!(fixture.get(&url, &access).await.status, 200);
    fixture.sandbox.set_behavior(|behavior| behavior.refresh_ends_older_access = true);
    let newest = fixture.refresh(Platform::New, &refresh).await.text_at("/access_token");
    assert_eq!(fixture.get(&url, &access).await.status, 401);
    fixture.sandbox.set_behavior(|behavior| behavior.refresh_returns_living_access = true);
    fixture.clock.advance(Duration::from_secs(600));
    let same = fixture.refresh(Platform::New, &refresh).await;
    assert_eq!(same.text_at("/access_token"), newest);
    assert_eq!(same.json()["expires_in"], 3000);
}

#[tokio::test]
async fn the_token_endpoint_keeps_the_vendors_tables() {
    let fixture = Fixture::new().await;
    let refresh = fixture.sandbox.grant(CLINIC).unwrap();
    let url = format!("{}/oauth2/token", fixture.sandbox.oauth_base(Platform::New));
    assert_eq!(fixture.refresh(Platform::New, "wrong").await.status, 401);
    assert_eq!(fixture.refresh(Platform::New, "").await.status, 401);
    assert_eq!(fixture.refresh(Platform::Old, &refresh).await.status, 401);
    let json = format!(r#"{{"grant_type":"refresh_token","refresh_token":"{refresh}"}}"#);
    assert_eq!(fixture.call("POST", &url, "", &json).await.status, 400);
    assert_eq!(fixture.call("GET", &url, "", "").await.status, 405);
}

#[tokio::test]
async fn revoking_either_token_ends_both_and_pairing_makes_new_ones() {
    let fixture = Fixture::new().await;
    for hint in ["access_token", "refresh_token"] {
        let (access, refresh) =
            (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
        let client = fixture.sandbox.client(Platform::New);
        let url = format!("{}/oauth2/revoke", fixture.sandbox.oauth_base(Platform::New));
        let token = if hint == "access_token" { &access } else { &refresh };
        let form = [
            ("token", token.as_str()),
            ("token_type_hint", hint),
            ("client_id", &client.id),
            ("client_secret", &client.secret),
        ];
        assert_eq!(fixture.post_form(&url, &form).await.status, 200);
        assert_eq!(fixture.post_form(&url, &form).await.status, 401);
        assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 401);
        assert!(fixture.sandbox.is_paired(CLINIC));
        assert_ne!(fixture.sandbox.grant(CLINIC).unwrap(), refresh);
    }
}

#[tokio::test]
async fn a_grant_unused_for_three_months_is_dead() {
    let fixture = Fixture::new().await;
    let refresh = fixture.sandbox.grant(CLINIC).unwrap();
    fixture.clock.advance(HOUR * 24 * 91);
    assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 401);
}

#[tokio::test]
async fn a_migrated_account_lives_on_the_other_platform_and_keeps_no_token() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::clinic(9, "Moving").on_platform(Platform::Old));
    let (access, refresh) = (fixture.sandbox.bearer(9).unwrap(), fixture.sandbox.grant(9).unwrap());
    let url = format!("{}/orders/practice", fixture.sandbox.base_url(Platform::Old));
    assert_eq!(fixture.get(&url, &access).await.status, 200);
    assert!(fixture.sandbox.migrate(9, Platform::New));
    assert_eq!(fixture.get(&url, &access).await.status, 401);
    assert_eq!(fixture.refresh(Platform::Old, &refresh).await.status, 401);
    assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 401);
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::NorthAmerica));
    assert_eq!(fixture.get(&url, &fixture.sandbox.bearer(9).unwrap()).await.status, 200);
}

#[tokio::test]
async fn refreshes_of_one_account_that_overlap_are_noticed() {
    let fixture = Fixture::new().await;
    let refresh = fixture.sandbox.grant(CLINIC).unwrap();
    let other = fixture.sandbox.grant(LAB).unwrap();
    let gate = crate::sandbox::Gate::new();
    let inject = crate::sandbox::FaultRule::everywhere(crate::sandbox::Fault::HeldBy(gate.clone()));
    fixture.sandbox.inject(inject);
    let open = async {
        gate.until_waiting(3).await;
        gate.open();
    };
    tokio::join!(
        fixture.refresh(Platform::New, &refresh),
        fixture.refresh(Platform::New, &refresh),
        fixture.refresh(Platform::New, &other),
        open,
    );
    assert_eq!(fixture.sandbox.overlapping_refreshes(), [CLINIC]);
    fixture.clock.advance(Duration::from_secs(90));
    fixture.refresh(Platform::New, &other).await;
    assert_eq!(fixture.sandbox.smallest_refresh_gap(LAB), Some(Duration::from_secs(90)));
    assert_eq!(fixture.sandbox.overlapping_refreshes(), [CLINIC]);
}

#[tokio::test]
async fn forgetting_kills_the_grant_and_expiring_the_access_in_either_order() {
    let fixture = Fixture::new().await;
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    let (access, refresh) = (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
    fixture.sandbox.forget_refresh(CLINIC);
    assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 401);
    assert_eq!(fixture.get(&url, &access).await.status, 200);
    fixture.sandbox.expire_access(CLINIC);
    assert_eq!(fixture.get(&url, &access).await.status, 401);
    let (access, refresh) = (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
    fixture.sandbox.expire_access(CLINIC);
    assert_eq!(fixture.get(&url, &access).await.status, 401);
    assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 200);
    // The dead token's owner stays known to the record.
    assert_eq!(fixture.sandbox.refreshes(CLINIC).len(), 2);
}
