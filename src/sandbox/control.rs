//! The port for people: what the handle can do, as JSON over HTTP, described at `GET /`.
//! Plain HTTP, no password, loopback by default: everything behind it is made up.

use serde::Deserialize;
use serde_json::{Value, json};

use super::record::RecordedCall;
use super::reply::Reply;
use super::request::SandboxRequest;
use super::{AccountSpec, FaultRule, Handle, Platform, Region};

const HELP: &str = "\
GET    /urls                        every address, the clients and where to log in
GET    /accounts                    all accounts
POST   /accounts                    add one: {\"id\":7,\"name\":\"Smile\",\"kind\":\"clinic\",\"region\":\"europe\",
                                    \"users\":[{\"email\":\"a@b.test\",\"password\":\"x\"}],\"orders\":3}
POST   /accounts/{id}/grant         pair it without a login: {\"refresh_token\":…}
POST   /accounts/{id}/bearer        an access token for calls past the gateway: {\"access_token\":…}
POST   /accounts/{id}/expire        its access tokens die
POST   /accounts/{id}/forget        its refresh token dies
POST   /accounts/{id}/migrate       {\"to\":\"new\"|\"old\"|\"china\"}; its tokens die
POST   /accounts/{id}/move          {\"to\":\"north_america\"|\"europe\"|\"asia_pacific\"}
POST   /accounts/{id}/deny          {\"path\":\"/orders/lab\"}: a lasting 403
POST   /accounts/{id}/allow         takes that back
POST   /accounts/{id}/elsewhere     paired with another application: a lab's pairing answers 409
POST   /accounts/{id}/orders        {\"count\":2}: new orders
GET    /habits                      the switches
POST   /habits                      the switches to move: {\"rotate_refresh\":true,\"access_token_life\":\"90s\"}
GET    /faults                      the scripts in force
POST   /faults                      {\"endpoint\":\"orders_lab\",\"times\":2,\"fault\":{\"status\":504}}; also platform,
                                    place, account, carried_out. Faults without a value are plain text: \"garbage\"
DELETE /faults                      all scripts end
GET    /calls?account=7             what was received, newest last; with &heads=1 also the headers, Authorization left
                                    out, and the body's length and SHA-256
DELETE /calls                       forgets them
";

pub fn response(handle: &Handle, request: &SandboxRequest) -> Reply {
    // A web page elsewhere must not steer this from somebody's browser.
    let own = handle.control_url();
    if request.header("origin").is_some_and(|origin| Some(origin) != own.as_deref()) {
        return Reply::error(403, "not from another site");
    }
    let path: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    let done = match (request.method(), &path[..]) {
        ("GET" | "HEAD", [""]) => return Reply::html(200, index_page(handle)),
        ("GET", ["urls"]) => Ok(urls(handle)),
        ("GET", ["accounts"]) => Ok(accounts(handle)),
        ("POST", ["accounts"]) => read(request).map(|account: AccountSpec| {
            handle.add_account(account);
            accounts(handle)
        }),
        ("POST", ["accounts", id, act]) => match id.parse() {
            Ok(id) => account_act(handle, request, id, act),
            Err(_) => Err("an account id is a number".to_owned()),
        },
        ("GET", ["habits"]) => Ok(json!(*handle.behavior())),
        ("POST", ["habits"]) => change_behavior(handle, request),
        ("GET", ["faults"]) => Ok(json!(handle.fault_rules())),
        ("POST", ["faults"]) => read(request).map(|inject: FaultRule| {
            handle.inject(inject);
            json!(handle.fault_rules())
        }),
        ("DELETE", ["faults"]) => {
            handle.clear_fault_rules();
            Ok(json!([]))
        }
        ("GET", ["calls"]) => Ok(calls(handle, request)),
        ("DELETE", ["calls"]) => {
            handle.clear_calls();
            Ok(json!([]))
        }
        _ => return Reply::error(404, "see GET /"),
    };
    match done {
        Ok(value) => Reply::json_text(200, format!("{value:#}\n")),
        Err(why) => Reply::error(400, &why),
    }
}

/// The body of `POST /accounts/{id}/migrate`.
#[derive(Deserialize)]
struct MigrateRequest {
    to: Platform,
}

/// The body of `POST /accounts/{id}/move`.
#[derive(Deserialize)]
struct MoveRequest {
    to: Region,
}

/// The body of `POST /accounts/{id}/deny`.
#[derive(Deserialize)]
struct DenyRequest {
    path: String,
}

/// The body of `POST /accounts/{id}/orders`.
#[derive(Deserialize)]
struct AddOrdersRequest {
    count: u64,
}

fn account_act(handle: &Handle, request: &SandboxRequest, id: u64, act: &str) -> Result<Value, String> {
    let known = match act {
        "grant" => {
            let token = handle.grant(id).ok_or("no such account")?;
            return Ok(json!({"refresh_token": token}));
        }
        "bearer" => {
            handle.grant(id).ok_or("no such account")?;
            let token = handle.bearer(id).ok_or("no such account")?;
            return Ok(json!({"access_token": token}));
        }
        "expire" => handle.expire_access(id),
        "forget" => handle.forget_refresh(id),
        "migrate" => handle.migrate(id, read::<MigrateRequest>(request)?.to),
        "move" => handle.move_region(id, read::<MoveRequest>(request)?.to),
        "deny" => handle.deny(id, &read::<DenyRequest>(request)?.path),
        "allow" => handle.allow(id),
        "elsewhere" => handle.pair_elsewhere(id),
        "orders" => handle.add_orders(id, read::<AddOrdersRequest>(request)?.count),
        _ => return Err("no such act, see GET /".to_owned()),
    };
    if known { Ok(json!({"done": act})) } else { Err("no such account".to_owned()) }
}

fn read<T: serde::de::DeserializeOwned>(request: &SandboxRequest) -> Result<T, String> {
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn change_behavior(handle: &Handle, request: &SandboxRequest) -> Result<Value, String> {
    let Value::Object(changes) = read(request)? else { return Err("an object is wanted".to_owned()) };
    let mut merged = json!(*handle.behavior());
    if let Some(fields) = merged.as_object_mut() {
        fields.extend(changes);
    }
    let behavior: super::Behavior = serde_json::from_value(merged).map_err(|error| error.to_string())?;
    handle.set_behavior(|old| *old = behavior.clone());
    Ok(json!(*handle.behavior()))
}

fn urls(handle: &Handle) -> Value {
    let of = |platform: Platform| {
        let client = handle.client(platform);
        json!({
            "oauth_base": handle.oauth_base(platform),
            "base_url": handle.base_url(platform),
            "login_page": handle.login_page(platform),
            "client_id": client.id,
            "client_secret": client.secret,
            "redirect_uris": client.redirect_uris,
        })
    };
    let regions = [Region::NorthAmerica, Region::Europe, Region::AsiaPacific, Region::China];
    json!({
        "new": of(Platform::New), "old": of(Platform::Old), "china": of(Platform::China),
        "old_v1": handle.v1_url(),
        "regions": regions.map(|region| handle.region_url(region)),
        "storage": handle.storage_url(),
    })
}

fn accounts(handle: &Handle) -> Value {
    let describe = |account: AccountSpec| {
        let paired = handle.is_paired(account.id);
        let mut value = json!(account);
        value["paired"] = json!(paired);
        value
    };
    handle.accounts().into_iter().map(describe).collect()
}

fn calls(handle: &Handle, request: &SandboxRequest) -> Value {
    let account = request.parameter("account").and_then(|text| text.parse::<u64>().ok());
    let heads = request.parameter("heads").is_some();
    let describe = |call: RecordedCall| {
        let mut value = json!({
            "number": call.number, "at": call.at.to_string(), "place": call.role,
            "endpoint": call.endpoint, "account": call.account,
            "call": format!("{} {}", call.method, call.target()),
            "status": call.status, "end": call.end.name(),
        });
        if heads {
            value["headers"] = headers(&call);
            value["body_length"] = json!(call.body_length);
            value["body_sha256"] = json!(call.body_sha256());
        }
        value
    };
    let wanted = |call: &RecordedCall| account.is_none() || call.account == account;
    handle.calls_where(wanted).into_iter().map(describe).collect()
}

/// Name and value of each, as they came.
fn headers(call: &RecordedCall) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = call.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"authorization"));
    shown.map(|(name, value)| json!([text(name), text(value)])).collect()
}

fn index_page(handle: &Handle) -> String {
    let account = |account: &AccountSpec| {
        format!(
            "<tr><td>{}<td>{}<td>{:?}<td>{:?}<td>{:?}<td>{}",
            account.id,
            account.name.replace('&', "&amp;").replace('<', "&lt;"),
            account.kind,
            account.platform,
            account.region,
            if handle.is_paired(account.id) { "paired" } else { "" },
        )
    };
    let rows: String = handle.accounts().iter().take(200).map(account).collect();
    let help = HELP.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>iTero sandbox</title>\
         <style>body{{font:16px sans-serif;margin:2em}}td{{padding-right:1em}}</style>\
         <h1>iTero sandbox</h1><p>{} calls so far.</p><table>{rows}</table><h2>What it does</h2>\
         <pre>{help}</pre></html>",
        handle.received(),
    )
}
