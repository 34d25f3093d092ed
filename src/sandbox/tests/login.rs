//! From the login page to a paired account.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

#[tokio::test]
async fn a_login_comes_back_with_code_state_and_session_state() {
    let fixture = Fixture::new().await;
    for platform in Platform::ALL {
        let url = fixture.authorize_url(platform, "a b&c");
        let back = fixture.sandbox.log_in(&url, EMAIL, PASSWORD).await.unwrap();
        assert!(back.starts_with(crate::sandbox::DEFAULT_REDIRECT));
        assert_eq!(parameter(&back, "state").unwrap(), "a b&c");
        assert!(parameter(&back, "session_state").is_some());
        let response = fixture.exchange(platform, &parameter(&back, "code").unwrap()).await;
        let mut names: Vec<_> = response.json().as_object().unwrap().keys().cloned().collect();
        names.sort();
        let expected = ["access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type"];
        assert_eq!(names, expected);
        assert_eq!(response.json()["expires_in"], 3600);
    }
}

#[tokio::test]
async fn an_id_token_names_issuer_application_and_end_as_openid_connect_has_it() {
    let fixture = Fixture::new().await;
    let url = fixture.authorize_url(Platform::New, "s");
    let back = fixture.sandbox.log_in(&url, EMAIL, PASSWORD).await.unwrap();
    let response = fixture.exchange(Platform::New, &parameter(&back, "code").unwrap()).await;
    let id_token = response.text_at("/id_token");
    let parts: Vec<_> = id_token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    let json = |part: &[u8]| serde_json::from_slice::<serde_json::Value>(part).unwrap();
    let (head, claims) = (json(&parts[0]), json(&parts[1]));
    assert_eq!((&head["alg"], parts.len(), parts[2].len()), (&"RS256".into(), 3, 256));
    assert_eq!(claims["iss"], fixture.sandbox.oauth_base(Platform::New));
    assert_eq!(claims["aud"], fixture.sandbox.client(Platform::New).id);
    assert_eq!(claims["exp"].as_u64().unwrap(), claims["iat"].as_u64().unwrap() + 3600);
    assert!(claims["sub"].is_string());
}

#[tokio::test]
async fn a_wrong_password_shows_the_page_again() {
    let fixture = Fixture::new().await;
    let url = fixture.authorize_url(Platform::New, "s");
    assert!(fixture.sandbox.log_in(&url, EMAIL, "wrong").await.is_err());
    assert!(fixture.sandbox.log_in(&url, "nobody@sandbox.test", PASSWORD).await.is_err());
}

#[tokio::test]
async fn cancelling_goes_back_with_an_error_and_the_state() {
    let fixture = Fixture::new().await;
    let back = fixture.sandbox.cancel_login(&fixture.authorize_url(Platform::New, "s1")).await.unwrap();
    assert_eq!(parameter(&back, "error").unwrap(), "access_denied");
    assert_eq!(parameter(&back, "state").unwrap(), "s1");
    assert_eq!(parameter(&back, "code"), None);
}

#[tokio::test]
async fn only_a_known_application_with_a_listed_redirect_and_its_login_page_gets_to_the_login() {
    let fixture = Fixture::new().await;
    let good = fixture.authorize_url(Platform::New, "s");
    assert_eq!(fixture.get(&good, "").await.status, 302);
    assert_eq!(fixture.get(&good.replace("sandbox-client-new", "other"), "").await.status, 401);
    assert_eq!(fixture.get(&good.replace("callback", "elsewhere"), "").await.status, 400);
    assert_eq!(fixture.get(&good.replace("loginPage", "loginpage"), "").await.status, 400);
    let token = fixture.get(&good.replace("response_type=code", "response_type=token"), "").await;
    assert!(token.header("location").contains("error=unsupported_response_type"));
    // Credentials of one world mean nothing in another.
    let crossed = good.replace("sandbox-client-new", "sandbox-client-old");
    assert_eq!(fixture.get(&crossed, "").await.status, 401);
}

#[tokio::test]
async fn a_code_is_good_once_and_for_some_minutes() {
    let fixture = Fixture::new().await;
    let url = fixture.authorize_url(Platform::New, "s");
    let back = fixture.sandbox.log_in(&url, EMAIL, PASSWORD).await.unwrap();
    let code = parameter(&back, "code").unwrap();
    assert_eq!(fixture.exchange(Platform::New, &code).await.status, 200);
    assert_eq!(fixture.exchange(Platform::New, &code).await.status, 400);
    let back = fixture.sandbox.log_in(&url, EMAIL, PASSWORD).await.unwrap();
    fixture.clock.advance(std::time::Duration::from_secs(301));
    assert_eq!(fixture.exchange(Platform::New, &parameter(&back, "code").unwrap()).await.status, 400);
}

#[tokio::test]
async fn an_impossible_code_tells_good_credentials_from_bad_ones() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.exchange(Platform::New, "cannot-be").await.status, 400);
    fixture.sandbox.set_client_secret(Platform::New, "changed");
    assert_eq!(fixture.exchange(Platform::New, "cannot-be").await.status, 400);
    let url = format!("{}/oauth2/token", fixture.sandbox.oauth_base(Platform::New));
    let form = [
        ("code", "cannot-be"),
        ("grant_type", "authorization_code"),
        ("client_id", "sandbox-client-new"),
        ("client_secret", "sandbox-secret-new-platform"),
    ];
    assert_eq!(fixture.post_form(&url, &form).await.status, 401);
}

#[tokio::test]
async fn from_login_to_the_first_call() {
    let fixture = Fixture::new().await;
    let sandbox = &fixture.sandbox;
    let login = fixture.login_token(Platform::New).await;
    let base = sandbox.base_url(Platform::New);
    let found = fixture.get(&format!("{base}/api/third-party/v2/{DISCOVERY}"), &login).await;
    let api = format!("{}{}", found.text_at("/APIs/0/Domain"), found.text_at("/APIs/0/Path"));
    assert_eq!(api, sandbox.region_url(Region::Europe));
    let related = fixture.get(&format!("{api}/related-accounts"), &login).await.json();
    assert_eq!(related["Data"][0]["AccountId"], CLINIC);
    assert_eq!(related["Data"][0]["IsPaired"], false);
    let body = format!(r#"{{"AccountId":{CLINIC},"CallbackUrl":"https://x.test/hook"}}"#);
    let paired = fixture.call("PUT", &format!("{api}/pair-account"), &login, &body).await;
    assert_eq!(paired.json()["Data"]["CompanyId"], CLINIC);
    assert_eq!(paired.json()["Status"], 1);
    assert_eq!(sandbox.callback_url(CLINIC).unwrap(), "https://x.test/hook");
    let token = paired.text_at("/Data/OAuthResponse/access_token");
    assert_eq!(fixture.get(&format!("{api}/orders/practice"), &token).await.status, 200);
    // The first set is good for nothing else, and the second for no pairing.
    assert_eq!(fixture.get(&format!("{api}/orders/practice"), &login).await.status, 403);
    assert_eq!(fixture.get(&format!("{api}/related-accounts"), &token).await.status, 401);
}

#[tokio::test]
async fn pairing_again_returns_the_same_refresh_token() {
    let fixture = Fixture::new().await;
    let first = fixture.sandbox.grant(CLINIC).unwrap();
    let login = fixture.login_token(Platform::New).await;
    let url = format!("{}/api/third-party/v2/pair-account", fixture.sandbox.base_url(Platform::New));
    let again = fixture.call("PUT", &url, &login, r#"{"AccountId":7}"#).await;
    assert_eq!(again.text_at("/Data/OAuthResponse/refresh_token"), first);
}

#[tokio::test]
async fn pairing_says_no_to_strange_accounts_and_to_labs_paired_elsewhere() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::clinic(9, "Not hers"));
    let login = fixture.login_token(Platform::New).await;
    let url = format!("{}/pair-account", fixture.sandbox.region_url(Region::Europe));
    for body in [r#"{"AccountId":9}"#, r#"{"AccountId":"x"}"#, "{}", "AccountId=7"] {
        assert_eq!(fixture.call("PUT", &url, &login, body).await.status, 400, "{body}");
    }
    fixture.sandbox.pair_elsewhere(LAB);
    fixture.sandbox.pair_elsewhere(CLINIC);
    assert_eq!(fixture.call("PUT", &url, &login, r#"{"AccountId":8}"#).await.status, 409);
    assert_eq!(fixture.call("PUT", &url, &login, r#"{"AccountId":7}"#).await.status, 200);
}

#[tokio::test]
async fn a_clinic_with_chart_trouble_is_paired_with_a_warning() {
    let fixture = Fixture::new().await;
    let clinic = AccountSpec { chart_trouble: true, ..AccountSpec::clinic(9, "Untidy") };
    fixture.sandbox.add_account(clinic.with_user(EMAIL, PASSWORD));
    let login = fixture.login_token(Platform::New).await;
    let url = format!("{}/pair-account", fixture.sandbox.region_url(Region::Europe));
    let paired = fixture.call("PUT", &url, &login, r#"{"AccountId":9}"#).await.json();
    assert!(paired["Data"]["Warnings"][0].as_str().unwrap().contains("chart#"));
    let tidy = fixture.call("PUT", &url, &login, r#"{"AccountId":7}"#).await.json();
    assert!(tidy["Data"].get("Warnings").is_none());
}

#[tokio::test]
async fn related_accounts_take_every_printed_form() {
    let fixture = Fixture::new().await;
    let disabled = AccountSpec { enabled: false, ..AccountSpec::clinic(9, "Disabled") };
    fixture.sandbox.add_account(disabled.with_user(EMAIL, PASSWORD));
    let login = fixture.login_token(Platform::New).await;
    fixture.sandbox.set_behavior(|behavior| {
        behavior.trailing_blanks = true;
        behavior.account_id_as_string = true;
        behavior.status_form = crate::sandbox::StatusForm::Text;
    });
    let url = format!("{}/api/third-party/v2/related-accounts/", fixture.sandbox.base_url(Platform::New));
    let related = fixture.get(&url, &login).await.json();
    assert_eq!(related["Status"], "Success");
    assert_eq!(related["Data"].as_array().unwrap().len(), 2);
    assert_eq!(related["Data"][0]["AccountId "], "7");
    assert_eq!(related["Data"][0]["AccountName "], "Smile");
}

#[tokio::test]
async fn unpairing_wants_a_body_and_kills_every_token_of_the_account() {
    let fixture = Fixture::new().await;
    let (access, refresh) = (fixture.sandbox.bearer(CLINIC).unwrap(), fixture.sandbox.grant(CLINIC).unwrap());
    let url = format!("{}/unpair-account", fixture.sandbox.region_url(Region::Europe));
    assert_eq!(fixture.call("DELETE", &url, &access, "").await.status, 400);
    assert_eq!(fixture.call("DELETE", &url, &access, r#"{"AccountId":8}"#).await.status, 400);
    assert_eq!(fixture.call("DELETE", &url, &access, r#"{"AccountId":7}"#).await.status, 200);
    assert_eq!(fixture.call("DELETE", &url, &access, r#"{"AccountId":7}"#).await.status, 401);
    assert_eq!(fixture.refresh(Platform::New, &refresh).await.status, 401);
    assert!(!fixture.sandbox.is_paired(CLINIC));
}
