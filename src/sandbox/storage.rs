//! The storage host: pre-signed downloads that stand on their signature alone.
//! An Authorization header makes it refuse, as such hosts do; a bearer that leaks here shows at once.

use aws_lc_rs::hmac;

use super::context::{SandboxContext, VirtualHost};
use super::downloads;
use super::host_role::HostRole;
use super::orders::Order;
use super::reply::Reply;
use super::request::SandboxRequest;
use crate::clock::Timestamp;

const PREFIX: &str = "/assets";

/// A full URL for a path of the form `/order/{orderId}/download/{assetType}`.
pub fn sign(context: &SandboxContext, path: &str, expires_at: Timestamp) -> String {
    let expires = expires_at.as_secs();
    let signature = signature(context, path, expires);
    format!("{}{PREFIX}{path}?X-Expires={expires}&X-Signature={signature}", context.origin(HostRole::Storage))
}

pub fn response(host: &VirtualHost, request: &SandboxRequest) -> Reply {
    let Some(path) = request.path().strip_prefix(PREFIX) else {
        return Reply::error(404, "no such resource");
    };
    let expires = request.parameter("X-Expires").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if request.parameter("X-Signature").unwrap_or_default() != signature(&host.context, path, expires) {
        return Reply::error(403, "the signature does not fit");
    }
    if expires < host.now().as_secs() {
        return Reply::error(403, "the link has expired");
    }
    let parts: Vec<&str> = path.split('/').collect();
    let ["", "order", order_id, "download", asset_type] = parts[..] else {
        return Reply::error(404, "no such resource");
    };
    let Some(order) = order_id.parse().ok().and_then(Order::by_order_id) else {
        return Reply::error(404, "no such order");
    };
    if host.behavior().storage_wants_bearer {
        if !is_the_accounts(host, request, order.account) {
            return Reply::error(401, "the account's token is wanted here");
        }
    } else if request.header("authorization").is_some() {
        return Reply::error(400, "only one way to authenticate is allowed");
    }
    let state = host.context.state();
    downloads::asset_response(&state, order, asset_type, request)
}

fn is_the_accounts(host: &VirtualHost, request: &SandboxRequest, account: u64) -> bool {
    let state = host.context.state();
    let Some(practice) = state.accounts.get(&account) else { return false };
    let access = request.bearer();
    let access = access.and_then(|text| state.tokens.bearer(text, practice.account.platform, host.now()));
    access.is_some_and(|access| access.grant.holder.account() == Some(account))
}

fn signature(context: &SandboxContext, path: &str, expires: u64) -> String {
    let tag = hmac::sign(&context.storage_key, format!("{expires} {path}").as_bytes());
    super::hex(tag.as_ref())
}
