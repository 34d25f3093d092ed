//! The identity host's token calls, with the status tables of Authentication & Pairing V2, 4.1.2 to 4.1.5.

use serde_json::{Value, json};

use super::behavior::Behavior;
use super::context::VirtualHost;
use super::host_role::Platform;
use super::id_token::id_token;
use super::reply::Reply;
use super::request::SandboxRequest;
use super::state::SandboxState;
use super::tokens::{Holder, Issued};

/// `POST /oauth2/token`, either grant type.
pub fn token(host: &VirtualHost, request: &SandboxRequest) -> Reply {
    let Some(platform) = host.role.platform() else { return Reply::error(404, "no such resource") };
    if !is_form(request) {
        return Reply::oauth_error(400, "invalid_request", "only application/x-www-form-urlencoded is taken");
    }
    let behavior = host.behavior();
    let mut state = host.context.state();
    let client_id = match known_client(&state, request, platform) {
        Ok(client_id) => client_id,
        Err(refused) => return refused,
    };
    match request.form_value("grant_type").as_deref() {
        Some("authorization_code") => exchange(host, &mut state, request, platform, &client_id),
        Some("refresh_token") => {
            let token = request.form_value("refresh_token").unwrap_or_default();
            match state.refresh(&token, platform, &client_id, &behavior, host.now()) {
                Some(issued) => {
                    Reply::json(200, &refresh_json(&issued, &behavior)).with("Cache-Control", "no-store")
                }
                // 4.1.3: "Wrong refresh token", "Missing refresh token"
                None => Reply::oauth_error(401, "invalid_grant", "wrong or missing refresh token"),
            }
        }
        _ => Reply::oauth_error(400, "unsupported_grant_type", "authorization_code or refresh_token"),
    }
}

/// `POST /oauth2/revoke`.
pub fn revoke(host: &VirtualHost, request: &SandboxRequest) -> Reply {
    let Some(platform) = host.role.platform() else { return Reply::error(404, "no such resource") };
    if !is_form(request) {
        return Reply::oauth_error(400, "invalid_request", "only application/x-www-form-urlencoded is taken");
    }
    let mut state = host.context.state();
    let client_id = match known_client(&state, request, platform) {
        Ok(client_id) => client_id,
        Err(refused) => return refused,
    };
    let token = request.form_value("token").unwrap_or_default();
    if state.revoke(&token, platform, &client_id) {
        Reply::json(200, &json!({}))
    } else {
        // 4.1.5: "Wrong token", "Missing token"
        Reply::oauth_error(401, "invalid_token", "wrong or missing token")
    }
}

/// Shared by the token endpoint and pairing.
pub fn tokens_json(issued: &Issued) -> Value {
    json!({
        "access_token": issued.access,
        "refresh_token": issued.refresh,
        "scope": "openid",
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
    })
}

fn exchange(
    host: &VirtualHost,
    state: &mut SandboxState,
    request: &SandboxRequest,
    platform: Platform,
    client_id: &str,
) -> Reply {
    let code = request.form_value("code").unwrap_or_default();
    let redirect_uri = request.form_value("redirect_uri").unwrap_or_default();
    let now = host.now();
    let grant = state.tokens.take_code(&code, platform, client_id, &redirect_uri, now);
    let Some(grant) = grant else {
        // 4.1.2: "Wrong code", "Missing code"
        return Reply::oauth_error(400, "invalid_grant", "wrong or missing code");
    };
    let behavior = host.behavior();
    let id_token = match &grant.holder {
        Holder::User(email) => {
            Some(id_token(&host.context.origin(host.role), client_id, email, &behavior, now))
        }
        Holder::Account(_) => None,
    };
    let refresh = state.tokens.new_refresh(grant, now);
    let Some(issued) = state.tokens.issue(&refresh, &behavior, now) else {
        return Reply::error(500, "no token");
    };
    let mut body = tokens_json(&issued);
    body["id_token"] = json!(id_token);
    Reply::json(200, &body).with("Cache-Control", "no-store")
}

fn refresh_json(issued: &Issued, behavior: &Behavior) -> Value {
    let mut body = tokens_json(issued);
    if !behavior.refresh_token_in_response
        && let Some(fields) = body.as_object_mut()
    {
        fields.remove("refresh_token");
    }
    body
}

/// Looked at before anything else: good credentials with a bad code get 400, bad credentials get 401.
fn known_client(state: &SandboxState, request: &SandboxRequest, platform: Platform) -> Result<String, Reply> {
    let id = request.form_value("client_id").unwrap_or_default();
    let secret = request.form_value("client_secret").unwrap_or_default();
    match state.client(platform, &id) {
        Some(client) if client.secret == secret => Ok(id),
        _ => Err(Reply::oauth_error(401, "invalid_client", "the client is not authorized")),
    }
}

fn is_form(request: &SandboxRequest) -> bool {
    let kind = request.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}
