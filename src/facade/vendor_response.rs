//! Responses in the vendor's shapes and field names (Authentication and Pairing V2, 4.1 to 4.3).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::model::account::AccountId;
use crate::model::token::RefreshToken;
use crate::pairing::{LoginError, OfferedAccount};

/// A token set of the gateway's own.
pub struct IssuedTokens {
    pub access: String,
    pub refresh: RefreshToken,
    /// What is left.
    pub lifetime: Duration,
    /// For applications that want one.
    pub id_token: Option<String>,
}

impl IssuedTokens {
    fn fields(&self) -> Value {
        let mut fields = json!({
            "access_token": self.access,
            "refresh_token": self.refresh.expose(),
            "scope": "openid",
            "token_type": "Bearer",
            "expires_in": self.lifetime.as_secs(),
        });
        if let Some(id_token) = &self.id_token {
            fields["id_token"] = json!(id_token);
        }
        fields
    }

    /// 4.1.3.
    pub fn response(&self) -> Response<Bytes> {
        json_response(StatusCode::OK, &self.fields())
    }

    /// 4.3.1. `Warnings` stands there only where there are some.
    pub fn pair_response(&self, account: AccountId, warnings: &[&str]) -> Response<Bytes> {
        let mut data = json!({ "OAuthResponse": self.fields(), "CompanyId": account });
        if !warnings.is_empty() {
            data["Warnings"] = json!(warnings);
        }
        json_response(StatusCode::OK, &json!({ "Data": data, "Status": 1 }))
    }
}

/// 4.2.3, with the names that its table has, without the blanks of its sample.
pub fn related_accounts(offered: &[OfferedAccount]) -> Response<Bytes> {
    let row = |offered: &OfferedAccount| {
        json!({
            "AccountId": offered.account.id,
            "AccountName": offered.account.name,
            "AccountAddress": offered.account.address,
            "IsPaired": offered.account.paired,
        })
    };
    let rows: Vec<Value> = offered.iter().map(row).collect();
    json_response(StatusCode::OK, &json!({ "Data": rows, "Status": "Success", "Errors": [] }))
}

/// No body of a successful unpairing is documented; its status is that of a pairing.
pub fn unpaired() -> Response<Bytes> {
    json_response(StatusCode::OK, &json!({ "Data": null, "Status": 1 }))
}

/// RFC 7009, 2.2: 200, and whatever stands in the body is ignored.
pub fn revoked() -> Response<Bytes> {
    json_response(StatusCode::OK, &json!({}))
}

/// A failed API call: the documented status, and the form that a failed list has (4.2.3).
pub fn failure(status: StatusCode, error: &str) -> Response<Bytes> {
    json_response(status, &json!({ "Data": null, "Status": "Failure", "Errors": [error] }))
}

/// What stopped a login's call, in the statuses of 4.2.2 to 4.3.2.
pub fn login_failure(error: &LoginError) -> Response<Bytes> {
    let status = match error {
        LoginError::LoginExpired | LoginError::LoginNotAccepted | LoginError::CredentialsRefused => {
            StatusCode::UNAUTHORIZED
        }
        LoginError::WrongAccountId | LoginError::AccountNotListed { .. } | LoginError::NoAccounts => {
            StatusCode::BAD_REQUEST
        }
        LoginError::PairedElsewhere | LoginError::NameTaken { .. } | LoginError::KnownAs { .. } => {
            StatusCode::CONFLICT
        }
        LoginError::Forbidden { .. } | LoginError::NotEnabled => StatusCode::FORBIDDEN,
        LoginError::PlatformDown { .. } => StatusCode::GATEWAY_TIMEOUT,
        // "A retry mechanism is recommended": whatever is left may pass, or an operator has to act.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let message = error.message();
    failure(status, &format!("{}: {}", error.code(), message.what))
}

pub fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
