//! Related accounts, pair, unpair (S1 4.2.3, 4.3). A 200 alone is no success here: `Status` and `Errors` are
//! read too.

use http::Method;
use serde_json::{Map, Value, json};
use url::Url;

use crate::model::account::AccountId;
use crate::model::route::Route;
use crate::model::token::AccessToken;

use super::control_call::ControlCall;
use super::control_client::RawResponse;
use super::token_response::token_set;
use super::{Blame, PairResponse, PlatformClient, PlatformError, PlatformErrorKind, RelatedAccount};

impl PlatformClient {
    /// The accounts that the user belongs to and that Align has enabled for the integration; none is a sound
    /// answer.
    pub async fn related_accounts(
        &self,
        route: &Route,
        bearer: &AccessToken,
    ) -> Result<Vec<RelatedAccount>, PlatformError> {
        let call = ControlCall::RelatedAccounts;
        let url = self.below(call, route, "related-accounts")?;
        let response = self.client.get(call, url, bearer).await?.json(call)?;
        match carried_out(call, &response)?.get("Data") {
            Some(Value::Array(accounts)) => accounts.iter().map(related_account).collect(),
            Some(Value::Null) => Ok(Vec::new()),
            _ => Err(PlatformError::malformed(call, "the answer has no list `Data`")),
        }
    }

    /// The tokens that come back are the ones to keep (S1 4.3.1). Without a callback its key is left out: the
    /// documents know no empty one, and a pairing without notifications is legal (S1 4.4).
    pub async fn pair(
        &self,
        route: &Route,
        bearer: &AccessToken,
        account: AccountId,
        callback: Option<&Url>,
    ) -> Result<PairResponse, PlatformError> {
        let call = ControlCall::Pair;
        let url = self.below(call, route, "pair-account")?;
        let mut body = json!({ "AccountId": account });
        if let Some(callback) = callback {
            body["CallbackUrl"] = Value::from(callback.as_str());
        }
        pairing(&self.client.send_json(call, Method::PUT, url, bearer, &body).await?)
    }

    /// Ends the pairing for all users of the account and deletes its callback URL (S1 4.3.2). The bearer is
    /// the pair token.
    pub async fn unpair(
        &self,
        route: &Route,
        bearer: &AccessToken,
        account: AccountId,
    ) -> Result<(), PlatformError> {
        let call = ControlCall::Unpair;
        let url = self.below(call, route, "unpair-account")?;
        let body = json!({ "AccountId": account });
        let response = self.client.send_json(call, Method::DELETE, url, bearer, &body).await?;
        // No body is documented; one that comes may still say that it failed.
        if response.is_empty() { Ok(()) } else { carried_out(call, &response.json(call)?).map(|_| ()) }
    }
}

/// Success is `Status` 1 (S1 4.3.1) or "Success" (S1 4.2.3), or none at all, and no `Errors`.
fn carried_out(call: ControlCall, response: &Value) -> Result<&Map<String, Value>, PlatformError> {
    let fields =
        response.as_object().ok_or_else(|| PlatformError::malformed(call, "the answer is no object"))?;
    let good_status = match fields.get("Status") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_u64() == Some(1),
        Some(Value::String(text)) => matches!(text.trim().to_ascii_lowercase().as_str(), "success" | "1"),
        Some(_) => false,
    };
    let errors = match fields.get("Errors") {
        None | Some(Value::Null) => None,
        Some(Value::Array(errors)) => errors.first(),
        Some(other) => Some(other),
    };
    if good_status && errors.is_none() {
        return Ok(fields);
    }
    // The platform has decided against one account; asked for the list, it has failed altogether.
    let blame = if call == ControlCall::RelatedAccounts { Blame::Realm } else { Blame::Account };
    let says = errors.map(vendor_text).filter(|text| !text.is_empty());
    let detail = match says {
        Some(text) => format!("the platform answered 200 and a failure: {text}"),
        None => "the platform answered 200 and a failure without a reason".to_owned(),
    };
    Err(PlatformError::new(call, blame, PlatformErrorKind::Unexpected, Some(200), detail))
}

/// A row of the list. `AccountId` is a number in S1's sample and a string in its table; a name may be
/// missing, an id may not.
fn related_account(row: &Value) -> Result<RelatedAccount, PlatformError> {
    let unsound = |name| {
        PlatformError::malformed(ControlCall::RelatedAccounts, format!("an entry's {name} is unsound"))
    };
    let text = |name| match row.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(shown(text, MAX_TEXT)),
        Some(_) => Err(unsound(name)),
    };
    let paired = match row.get("IsPaired") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(paired)) => *paired,
        Some(_) => return Err(unsound("IsPaired")),
    };
    Ok(RelatedAccount {
        id: account_id(row.get("AccountId")).ok_or_else(|| unsound("AccountId"))?,
        name: text("AccountName")?,
        address: text("AccountAddress")?,
        paired,
    })
}

/// Tokens that came are those of a pairing that took place, whatever stands around them.
fn pairing(response: &RawResponse) -> Result<PairResponse, PlatformError> {
    let call = ControlCall::Pair;
    let strict = response.json(call);
    let tokens = match token_set(call, response) {
        // There is no older one that could stay.
        Ok(tokens) if tokens.refresh.is_some() => tokens,
        Ok(_) => return Err(PlatformError::malformed(call, "refresh_token is missing")),
        Err(error) if error.refresh.is_some() => return Err(error),
        Err(error) => {
            carried_out(call, strict.as_ref().map_err(Clone::clone)?)?;
            return Err(error);
        }
    };
    // Both are for people alone, so an unsound one is no reason to lose the tokens beside it.
    let data = strict.ok().and_then(|fields| fields.get("Data").cloned()).unwrap_or_default();
    let warnings = data.get("Warnings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(PairResponse {
        tokens,
        company_id: account_id(data.get("CompanyId")),
        warnings: warnings
            .iter()
            .filter_map(Value::as_str)
            .take(MAX_WARNINGS)
            .map(|text| shown(text, MAX_TEXT))
            .collect(),
    })
}

const MAX_TEXT: usize = 300;
const MAX_WARNINGS: usize = 20;
const MAX_REASON: usize = 120;

fn account_id(value: Option<&Value>) -> Option<AccountId> {
    value.and_then(|value| serde_json::from_value(value.clone()).ok())
}

/// The vendor's text for a page: one line, of bounded length.
fn shown(text: &str, most: usize) -> String {
    let visible: String = text.chars().filter(|c| !c.is_control()).collect();
    visible.trim().chars().take(most).collect()
}

/// The first reason of a failure, fit for a log: short words without digits only, since a vendor's text may
/// quote a token, a chart number or a person's mail.
fn vendor_text(error: &Value) -> String {
    let fields = ["Message", "ErrorMessage", "Description", "Code", "ErrorCode"];
    let text = match error {
        Value::String(text) => text.as_str(),
        Value::Object(object) => {
            fields.iter().find_map(|name| object.get(*name)?.as_str()).unwrap_or_default()
        }
        _ => "",
    };
    let words: Vec<&str> = text.split_whitespace().filter(|word| is_plain(word)).collect();
    shown(&words.join(" "), MAX_REASON)
}

/// `Company`, `not`, `(lab)`, `HTTP`, but nothing that looks like `eyJhbGciOi`, `jo@clinic.test` or `4711`.
fn is_plain(word: &str) -> bool {
    let core = word.trim_matches(|c| ".,:;()'\"".contains(c));
    let upper = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase());
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'-' | b'\''));
    core.len() <= 20
        && (upper(core) || core.strip_prefix(|c: char| c.is_ascii_alphabetic()).is_some_and(lower))
}

#[cfg(test)]
mod tests {
    use super::super::responder::{Play, Responder, json_response, platform, status_response};
    use super::*;

    fn bearer() -> AccessToken {
        AccessToken::new("pair-bearer")
    }

    async fn related(body: &str) -> Result<Vec<RelatedAccount>, PlatformError> {
        let responder = Responder::start(vec![json_response(body)]).await;
        platform(&responder).related_accounts(&responder.route("/v2"), &bearer()).await
    }

    async fn pair(play: Play, callback: Option<&str>) -> (Result<PairResponse, PlatformError>, Responder) {
        let responder = Responder::start(vec![play]).await;
        let callback = callback.map(|text| text.parse().unwrap());
        let paired = platform(&responder)
            .pair(&responder.route("/v2"), &bearer(), AccountId::new(7), callback.as_ref())
            .await;
        (paired, responder)
    }

    async fn unpair(play: Play) -> (Result<(), PlatformError>, Responder) {
        let responder = Responder::start(vec![play]).await;
        let route = responder.route("/v2");
        (platform(&responder).unpair(&route, &bearer(), AccountId::new(7)).await, responder)
    }

    #[tokio::test]
    async fn accounts_are_read_with_trailing_blanks_and_with_numbers_or_strings_as_ids() {
        // The sample of S1 4.2.3, and the String of the table below it.
        let accounts = related(
            r#"{"Data":[{"AccountId ":12,"AccountName ":"Smile","AccountAddress ":"Main St 1","IsPaired":true},
                        {"AccountId":"13","AccountName":"Lab"}],"Status":"Success","Errors":[]}"#,
        );
        let row = |id, name: &str, address: &str, paired| RelatedAccount {
            id: AccountId::new(id),
            name: name.to_owned(),
            address: address.to_owned(),
            paired,
        };
        let expected = vec![row(12, "Smile", "Main St 1", true), row(13, "Lab", "", false)];
        assert_eq!(accounts.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn every_printed_form_of_success_is_success() {
        for rest in [
            "",
            r#","Status":1"#,
            r#","Status":"1""#,
            r#","Status":"Success","Errors":null"#,
            r#","Status":null,"Errors":[]"#,
        ] {
            assert_eq!(related(&format!(r#"{{"Data":[]{rest}}}"#)).await, Ok(Vec::new()), "{rest}");
        }
    }

    #[tokio::test]
    async fn a_200_with_a_failure_inside_is_no_success() {
        for body in [
            r#"{"Data":[],"Status":"Failure","Errors":["Company not found"]}"#,
            r#"{"Data":[],"Status":"Success","Errors":[{"Message":"Company not found"}]}"#,
            r#"{"Data":[],"Status":0,"Errors":"Company not found"}"#,
        ] {
            let error = related(body).await.unwrap_err();
            assert_eq!((error.kind, error.blame), (PlatformErrorKind::Unexpected, Blame::Realm), "{body}");
            assert!(error.detail.ends_with(": Company not found"), "{}", error.detail);
        }
    }

    #[test]
    fn a_vendors_reason_never_carries_tokens_numbers_or_mail() {
        let error = json!("Token eyJhbGciOi.x of jo@clinic.test, chart 4711: not valid\r\nX: y");
        assert_eq!(vendor_text(&error), "Token of chart not valid X: y");
        assert!(vendor_text(&json!("word ".repeat(1000))).len() <= MAX_REASON);
    }

    #[tokio::test]
    async fn one_unsound_row_makes_the_list_malformed() {
        for body in [
            "[]",
            "{}",
            r#"{"Data":{}}"#,
            r#"{"Data":[{"AccountName":"no id"}]}"#,
            r#"{"Data":[{"AccountId":-1}]}"#,
            r#"{"Data":[{"AccountId":1,"AccountName":5}]}"#,
            r#"{"Data":[{"AccountId":1,"IsPaired":"yes"}]}"#,
        ] {
            assert_eq!(related(body).await.unwrap_err().kind, PlatformErrorKind::Malformed, "{body}");
        }
    }

    const PAIRED: &str = r#"{"Data":{"OAuthResponse":{"access_token":"second","refresh_token":"keep","scope":"openid",
        "token_type":"Bearer","expires_in":3600},"CompanyId":"7",
        "Warnings":["Empty or duplicate patient identifiers (chart#) exist"]},"Status":1}"#;

    #[tokio::test]
    async fn pairing_sends_the_id_as_a_number_and_brings_the_second_tokens() {
        let (paired, responder) = pair(json_response(PAIRED), Some("https://dpms.example.test/hook")).await;
        let paired = paired.unwrap();
        assert_eq!(paired.tokens.access.expose(), "second");
        assert_eq!(paired.tokens.refresh.unwrap().expose(), "keep");
        assert_eq!(paired.company_id, Some(AccountId::new(7)));
        assert_eq!(paired.warnings, vec!["Empty or duplicate patient identifiers (chart#) exist"]);

        let request = responder.only_request();
        assert_eq!(request.line(), "PUT /v2/pair-account HTTP/1.1");
        assert_eq!(request.header("authorization"), Some("Bearer pair-bearer"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let sent: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(sent, json!({"AccountId": 7, "CallbackUrl": "https://dpms.example.test/hook"}));
    }

    #[tokio::test]
    async fn without_a_callback_its_key_is_left_out() {
        let (_, responder) = pair(json_response(PAIRED), None).await;
        assert_eq!(responder.only_request().body, r#"{"AccountId":7}"#);
    }

    #[tokio::test]
    async fn a_pairing_without_a_refresh_token_is_malformed() {
        for body in [
            r#"{"Data":{"OAuthResponse":{"access_token":"a","expires_in":3600}},"Status":1}"#,
            r#"{"Data":{},"Status":1}"#,
            r#"{"Status":1}"#,
        ] {
            assert_eq!(
                pair(json_response(body), None).await.0.unwrap_err().kind,
                PlatformErrorKind::Malformed,
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn a_lab_that_is_paired_elsewhere_is_told_apart() {
        let error = pair(status_response(409, "{}"), None).await.0.unwrap_err();
        assert_eq!((error.kind, error.blame), (PlatformErrorKind::PairedElsewhere, Blame::Account));
        assert_eq!(error.status, Some(409));
    }

    #[tokio::test]
    async fn unpair_sends_delete_with_a_body_and_takes_an_empty_response() {
        for play in [status_response(200, ""), status_response(204, ""), json_response(r#"{"Status":1}"#)] {
            let (unpaired, responder) = unpair(play).await;
            unpaired.unwrap();
            let request = responder.only_request();
            assert_eq!(request.line(), "DELETE /v2/unpair-account HTTP/1.1");
            assert_eq!(request.body, r#"{"AccountId":7}"#);
        }
        let failed = unpair(json_response(r#"{"Status":"Failure","Errors":["no"]}"#)).await.0.unwrap_err();
        assert_eq!((failed.kind, failed.blame), (PlatformErrorKind::Unexpected, Blame::Account));
    }

    #[tokio::test]
    async fn a_stored_route_that_is_no_longer_allowed_sees_no_bearer() {
        let responder = Responder::start(Vec::new()).await;
        let elsewhere = Responder::start(vec![json_response(r#"{"Data":[]}"#)]).await;
        let foreign = elsewhere.route_as("localhost", "/v2");
        let error = platform(&responder).related_accounts(&foreign, &bearer()).await.unwrap_err();
        assert_eq!(error.kind, PlatformErrorKind::RouteRefused);
        assert!(elsewhere.requests().is_empty());
    }
}
