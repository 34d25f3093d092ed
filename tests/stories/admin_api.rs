//! The admin API from outside: its responses fit its description, and every mistake is answered with what is
//! wrong and what to do.

use http::Method;
use serde_json::{Value, json};

use crate::test_bed::{CLINIC_NAME, TestBed};

const DESCRIPTION: &str = include_str!("../../docs/admin-api.json");

/// What of `value` the schema does not allow; empty where it fits. As
/// much of JSON Schema as the description uses.
fn faults(schema: &Value, value: &Value, place: &str, all: &Value) -> Vec<String> {
    let wrong = |what: String| vec![format!("{place}: {what}")];
    if let Some(target) = schema["$ref"].as_str() {
        return faults(all.pointer(target.trim_start_matches('#')).unwrap(), value, place, all);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(ways) = schema[key].as_array() {
            let tried: Vec<_> = ways.iter().map(|way| faults(way, value, place, all)).collect();
            let fits = tried.iter().any(Vec::is_empty);
            return if fits { Vec::new() } else { tried.concat() };
        }
    }
    if let Some(only) = schema.get("const") {
        return if value == only { Vec::new() } else { wrong(format!("{value} is not {only}")) };
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return wrong(format!("{value} is none of {words:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    if kinds != kind && !kinds.as_array().is_some_and(|kinds| kinds.contains(&kind.into())) {
        return wrong(format!("{value} is no {kinds}"));
    }
    match value {
        Value::Array(items) => {
            let of = |(at, item)| faults(&schema["items"], item, &format!("{place}[{at}]"), all);
            items.iter().enumerate().flat_map(of).collect()
        }
        Value::Object(fields) if schema.get("properties").is_some() => {
            let lacking = schema["required"].as_array().into_iter().flatten();
            let lacking = lacking.filter_map(Value::as_str).filter(|key| !fields.contains_key(*key));
            let mut found: Vec<_> = lacking.map(|key| format!("{place}: lacks {key}")).collect();
            for (key, value) in fields {
                match schema["properties"].get(key) {
                    Some(schema) => found.extend(faults(schema, value, &format!("{place}.{key}"), all)),
                    None => found.push(format!("{place}.{key} is not described")),
                }
            }
            found
        }
        _ => Vec::new(),
    }
}

fn response_of<'a>(description: &'a Value, path: &str, method: &str) -> &'a Value {
    let content = description["paths"][path][method]["responses"]["200"]["content"].as_object().unwrap();
    // Where a call answers in both ways, the lines are what it does.
    let lines = content.iter().find(|(kind, _)| kind.contains("ndjson"));
    &lines.or_else(|| content.iter().find(|(kind, _)| kind.contains("json"))).unwrap().1["schema"]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_of_the_admin_api_fits_its_description() {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let bed = TestBed::new().await;
    assert_eq!(bed.look("/api/openapi.json").await.json(), description);
    bed.get(CLINIC_NAME, "/itero-gen-api/v2/orders/practice").await;
    let mut wrong = Vec::new();
    let mut judge = |path: &str, method: &str, value: &Value| {
        wrong.extend(faults(response_of(&description, path, method), value, path, &description));
    };
    for path in description["paths"].as_object().unwrap().keys() {
        if description["paths"][path].get("get").is_none()
            || ["/healthz", "/metrics"].contains(&path.as_str())
        {
            continue;
        }
        let query = if path == "/readyz" { "?verbose" } else { "" };
        let response = bed.look(&(path.replace("{account}", CLINIC_NAME) + query)).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        judge(path, "get", &response.json());
    }
    for act in ["pause", "resume", "renew", "discover"] {
        let lines = bed.operate(&format!("/{act}?pattern={CLINIC_NAME}"), json!(null)).await.lines();
        assert_eq!(lines.len(), 1, "{act}");
        judge(&format!("/api/{act}"), "post", &lines[0]);
    }
    let call = json!({"method": "GET", "path": "/orders/practice"});
    let started = bed.operate("/pairings", json!({"realm": "global", "name": "new"})).await.json();
    let ticket = json!({"ticket": started["ticket"]});
    let pasted = bed.operate("/pairings", json!({"realm": "global", "paste": true})).await.json();
    let finish = json!({"ticket": pasted["ticket"], "redirected_url": "nonsense"});
    judge("/api/pairings", "post", &started);
    judge("/api/pairings", "post", &pasted);
    for (path, below, body) in [
        ("/api/accounts/{account}/call", format!("/accounts/{CLINIC_NAME}/call"), call),
        ("/api/accounts/{account}/revoke", format!("/accounts/{CLINIC_NAME}/revoke"), json!(null)),
        ("/api/accounts/{account}/unpair", format!("/accounts/{CLINIC_NAME}/unpair"), json!(null)),
        (
            "/api/accounts/{account}/switch",
            format!("/accounts/{CLINIC_NAME}/switch?realm=global"),
            json!(null),
        ),
        ("/api/pairings/status", "/pairings/status".into(), ticket),
        ("/api/pairings/status", "/pairings/status".into(), json!({"ticket": "unknown"})),
        ("/api/pairings/finish", "/pairings/finish".into(), finish),
        ("/api/invitations", "/invitations".into(), json!({"pattern": "*"})),
        ("/api/store/rotate-key", "/store/rotate-key".into(), json!(null)),
    ] {
        let response = bed.operate(&below, body).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        judge(path, "post", &response.json());
    }
    let imported = bed.operate("/import?paused=true", json!([{"name": "x"}])).await;
    judge("/api/import", "post", &imported.lines()[0]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sent in every mistake, and never to come back.
const SECRET: &str = "S3cretToken";

async fn check_mistake(
    bed: &TestBed,
    description: &Value,
    (method, path): (&str, &str),
    kind: Option<&str>,
    body: &str,
    status: u16,
) {
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let told = format!("{method} {path} {}", body.chars().take(60).collect::<String>());
    let mut request = bed.browse(method.parse::<Method>().unwrap(), path).bearer_auth(&bed.admin_token);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    let response = bed.send(request.body(body.to_owned())).await;
    assert_eq!(response.status, status, "{told}: {}", response.text());
    assert_eq!(response.header("content-type"), "application/problem+json", "{told}");
    let found = response.json();
    assert_eq!(faults(&problem, &found, &told, description), Vec::<String>::new());
    assert_eq!(found["status"], status);
    for key in ["detail", "fix"] {
        let text = found[key].as_str().unwrap();
        assert!(text.len() > 8 && text.ends_with('.') && !text.ends_with(".."), "{told}: {text:?}");
    }
    assert!(!response.text().contains(SECRET), "{told}: {}", response.text());
    if status == 405 {
        assert!(!response.header("allow").is_empty(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_responded_with_what_is_wrong_and_what_to_do_and_never_with_what_was_sent() {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let bed = TestBed::new().await;
    let json_kind = Some("application/json");
    let large = format!("{{\"ticket\": \"{}\"}}", "x".repeat((1 << 20) + 50_000));
    let odd_object = format!("{{\"realm\": \"{SECRET}\"}}");
    let odd_field = format!("{{\"realm\": \"global\", \"{SECRET}\": 1}}");
    let odd_type = format!("{{\"ticket\": \"a\", \"account_id\": \"{SECRET}\"}}");
    for (method, path, kind, body, status) in [
        ("POST", "/api/pairings", json_kind, "{", 400),
        ("POST", "/api/pairings", json_kind, "", 400),
        ("POST", "/api/pairings", json_kind, "\u{0}", 400),
        ("POST", "/api/pairings", json_kind, "[]", 422),
        ("POST", "/api/pairings", json_kind, r#"{"realm": 5}"#, 422),
        ("POST", "/api/pairings", json_kind, &odd_object, 422),
        ("POST", "/api/pairings", json_kind, &odd_field, 422),
        ("POST", "/api/pairings", None, "{}", 415),
        ("POST", "/api/pairings", Some("text/plain"), "{}", 415),
        ("POST", "/api/pairings", json_kind, "{}", 400),
        ("POST", "/api/pairings", json_kind, r#"{"realm": "mars"}"#, 400),
        ("POST", "/api/pairings/finish", json_kind, &odd_type, 422),
        ("POST", "/api/pairings/finish", json_kind, r#"{"ticket": "a"}"#, 400),
        ("POST", "/api/pairings/status", json_kind, &large, 413),
        ("POST", "/api/invitations", json_kind, r#"{"days": -1, "pattern": "*"}"#, 422),
        ("POST", "/api/invitations", json_kind, "{}", 400),
        ("POST", "/api/invitations", json_kind, r#"{"pattern": "nobody"}"#, 404),
        ("POST", "/api/import", json_kind, "{", 400),
        ("POST", "/api/import?paused=perhaps", json_kind, "[]", 400),
        ("POST", "/api/import?pausd=true", json_kind, "[]", 400),
        ("POST", "/api/pause", None, "", 400),
        ("POST", "/api/pause?patern=*", None, "", 400),
        ("POST", "/api/pause?pattern=*&pattern=x", None, "", 400),
        ("POST", "/api/pause?pattern=nobody", None, "", 404),
        ("POST", "/api/accounts/nobody/call", json_kind, r#"{"method": "GET", "path": "/"}"#, 404),
        ("POST", "/api/accounts/nobody/unpair?confirmed=maybe", None, "", 400),
        ("POST", "/api/accounts/nobody/switch", None, "", 400),
        ("GET", "/api/accounts/nobody", None, "", 404),
        ("GET", "/api/accounts/%ff", None, "", 400),
        ("GET", "/api/accounts?pattern=nobody", None, "", 404),
        ("GET", "/api/journal?lines=many", None, "", 400),
        ("GET", "/api/journal?lines=-1", None, "", 400),
        ("GET", "/api/nothing", None, "", 404),
        ("GET", "/api", None, "", 404),
        ("GET", "/nothing", None, "", 404),
        ("GET", "/", None, "", 404),
        ("DELETE", "/api/accounts", None, "", 405),
        ("PUT", "/api/import", None, "", 405),
        ("GET", "/api/pause", None, "", 405),
        ("POST", "/healthz", None, "", 405),
    ] {
        check_mistake(&bed, &description, (method, path), kind, body, status).await;
    }
    let stranger = bed.send(bed.browse(Method::GET, "/api/accounts")).await;
    assert_eq!(faults(&problem, &stranger.json(), "stranger", &description), Vec::<String>::new());
    assert_eq!(stranger.json()["detail"], "The admin token is missing or wrong.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_is_responded_alike_everywhere_and_the_nearest_is_proposed() {
    let bed = TestBed::new().await;
    let mistyped = &CLINIC_NAME.replace("acct", "acc");
    for (method, path) in [
        ("GET", format!("/api/accounts?pattern={mistyped}")),
        ("GET", format!("/api/accounts/{mistyped}")),
        ("GET", format!("/api/accounts/{mistyped}/explain")),
        ("GET", format!("/api/accounts/{mistyped}/journal")),
        ("GET", format!("/api/export?pattern={mistyped}")),
        ("POST", format!("/api/pause?pattern={mistyped}")),
        ("POST", format!("/api/resume?pattern={mistyped}")),
        ("POST", format!("/api/renew?pattern={mistyped}")),
        ("POST", format!("/api/discover?pattern={mistyped}")),
        ("POST", format!("/api/accounts/{mistyped}/unpair")),
    ] {
        let request = bed.browse(method.parse().unwrap(), &path).bearer_auth(&bed.admin_token);
        let response = bed.send(request).await;
        assert_eq!(response.status, 404, "{path}");
        let found = response.json();
        assert_eq!(found["code"], "account_unknown", "{path}");
        assert_eq!(found["detail"], format!("There is no account {mistyped:?}."), "{path}");
        let fix = found["fix"].as_str().unwrap();
        assert!(fix.starts_with(&format!("Is {CLINIC_NAME} meant?")), "{path}: {fix}");
    }
    let upper = bed.look(&format!("/api/accounts/{}", CLINIC_NAME.to_uppercase())).await;
    assert_eq!(upper.status, 200, "{}", upper.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_login_by_link_hears_how_it_stands() {
    let bed = TestBed::new().await;
    let started = bed.operate("/pairings", json!({"realm": "global", "name": "new"})).await.json();
    let asked = json!({"ticket": started["ticket"]});
    let status = bed.operate("/pairings/status", asked.clone()).await.json();
    assert_eq!((&status["outcome"], &status["last_failure"]), (&json!("waiting"), &Value::Null));
    bed.clock.advance(std::time::Duration::from_secs(601));
    let status = bed.operate("/pairings/status", asked).await.json();
    assert_eq!(status["outcome"], "over");
}
