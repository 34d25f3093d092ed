//! The storage host: pre-signed downloads that stand on their signature alone.
//! An Authorization header makes it refuse, as such hosts do; a bearer that leaks here shows at once.

use aws_lc_rs::hmac;

use super::api;
use super::orders::Order;
use super::place::Place;
use super::reply::Reply;
use super::request::Request;
use super::site::{Shared, Site};
use crate::clock::Timestamp;

const PREFIX: &str = "/assets";

/// A full URL for a path of the form `/order/{orderId}/download/{assetType}`.
pub fn sign(shared: &Shared, path: &str, dies_at: Timestamp) -> String {
    let expires = dies_at.as_secs();
    let signature = signature(shared, path, expires);
    format!("{}{PREFIX}{path}?X-Expires={expires}&X-Signature={signature}", shared.origin(Place::Storage))
}

pub fn response(site: &Site, request: &Request) -> Reply {
    let Some(path) = request.path().strip_prefix(PREFIX) else {
        return Reply::error(404, "no such resource");
    };
    let expires = request.parameter("X-Expires").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if request.parameter("X-Signature").unwrap_or_default() != signature(&site.shared, path, expires) {
        return Reply::error(403, "the signature does not fit");
    }
    if expires < site.now().as_secs() {
        return Reply::error(403, "the link has expired");
    }
    let parts: Vec<&str> = path.split('/').collect();
    let ["", "order", order_id, "download", asset_type] = parts[..] else {
        return Reply::error(404, "no such resource");
    };
    let Some(order) = order_id.parse().ok().and_then(Order::by_order_id) else {
        return Reply::error(404, "no such order");
    };
    if site.habits().storage_wants_bearer {
        if !is_the_accounts(site, request, order.account) {
            return Reply::error(401, "the account's token is wanted here");
        }
    } else if request.header("authorization").is_some() {
        return Reply::error(400, "only one way to authenticate is allowed");
    }
    let world = site.shared.world();
    api::asset_response(&world, order, asset_type, request)
}

fn is_the_accounts(site: &Site, request: &Request, account: u64) -> bool {
    let world = site.shared.world();
    let Some(practice) = world.accounts.get(&account) else { return false };
    let access = request.bearer();
    let access = access.and_then(|text| world.vault.bearer(text, practice.account.platform, site.now()));
    access.is_some_and(|access| access.grant.holder.account() == Some(account))
}

fn signature(shared: &Shared, path: &str, expires: u64) -> String {
    let tag = hmac::sign(&shared.storage_key, format!("{expires} {path}").as_bytes());
    super::hex(tag.as_ref())
}
