//! Old applications that speak V1 to accounts that the platform serves by V2: they get what V1 answered, and
//! what V1 cannot say is refused in words.

use genapi_gateway::config;
use genapi_gateway::sandbox::gateway_files::CONFIG;
use genapi_gateway::sandbox::{AccountSpec, Endpoint, LinkForm, Platform};
use http::Method;
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, Response, TestBed, TestBedBuilder};

const OLD: u64 = 2001;
const OLD_NAME: &str = "acct-2001";
const V1: &str = "/lab-sw/v1";
const PROCEDURES: &str = "Procedure;MapID\r\nFixed Restorative;FR\r\n3;SM\r\n\"Study Model/iRecord\";SM\r\n";
/// What the sandbox's V1 lists, and its V2 does not.
const SECTION: &str = r#"
[v1]
procedures = "procedures.csv"
case_types = { CaseTypes = [{ Id = 1, Name = "Restorative" }, { Id = 2, Name = "Orthodontic" }] }
orders = "strip"
"#;

fn bench() -> TestBedBuilder {
    TestBedBuilder::new()
        .account(AccountSpec::clinic(OLD, "Old Practice").on_platform(Platform::Old).with_orders(4))
        .behavior(|behavior| behavior.procedure_field = Some("Procedure".into()))
        .file("procedures.csv", PROCEDURES)
        .append(SECTION)
}

/// What V1 itself answers.
async fn from_v1(bed: &TestBed, path: &str) -> Response {
    let url = format!("{}{path}", bed.sandbox.v1_url());
    bed.send(bed.http.get(url).bearer_auth(bed.sandbox.bearer(OLD).unwrap())).await
}

/// A text of V1's with the gateway's addresses in place of V1's own, in whatever form.
fn as_ours(bed: &TestBed, text: &str) -> String {
    let ours = format!("/accounts/{OLD_NAME}/itero-gen-api/v2");
    let absolute = format!("{}{ours}", bed.gateway);
    let escaped = |text: &str| text.replace('/', "\\/");
    let theirs = bed.sandbox.v1_url();
    text.replace(&theirs, &absolute)
        .replace(&escaped(&theirs), &escaped(&absolute))
        .replace(&format!("\"{V1}"), &format!("\"{ours}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_calls_get_from_v2_what_v1_answered() {
    let bed = bench().start().await;
    let rx = bed.sandbox.rx_ids(OLD)[1];
    for form in [
        LinkForm::Absolute,
        LinkForm::Relative,
        LinkForm::JsonEscaped,
        LinkForm::ForeignHost,
        LinkForm::Mixed,
    ] {
        for (gzip, chunked) in [(false, None), (true, None), (false, Some(7)), (true, Some(50))] {
            let wire = move |gzip: bool, chunked: Option<usize>| {
                move |behavior: &mut genapi_gateway::sandbox::Behavior| {
                    (behavior.link_form, behavior.gzip_unasked, behavior.chunked_json) =
                        (form, gzip, chunked);
                }
            };
            for path in ["/orders/practice".to_owned(), format!("/orders/{rx}"), "/orders/1".to_owned()] {
                bed.sandbox.set_behavior(wire(false, None));
                let expected = from_v1(&bed, &path).await;
                bed.sandbox.set_behavior(wire(gzip, chunked));
                let response = bed.get(OLD_NAME, &format!("{V1}{path}")).await;
                let what = format!("{path} {form:?} {gzip} {chunked:?}");
                assert_eq!(response.status, expected.status, "{what}");
                assert_eq!(response.text(), as_ours(&bed, &expected.text()), "{what}");
            }
            let path = "/practice-configuration";
            bed.sandbox.set_behavior(wire(false, None));
            let expected = from_v1(&bed, path).await.json();
            assert!(expected["Data"]["CaseTypes"].is_array(), "{expected}");
            bed.sandbox.set_behavior(wire(gzip, chunked));
            let response = bed.get(OLD_NAME, &format!("{V1}{path}")).await;
            assert_eq!(response.json(), expected, "{form:?} {gzip} {chunked:?}");
        }
    }
    // The same calls under V2 have V2's answers, untouched.
    bed.sandbox.set_behavior(|behavior| (behavior.gzip_unasked, behavior.chunked_json) = (false, None));
    assert!(
        bed.get(OLD_NAME, "/itero-gen-api/v2/orders/practice").await.text().contains("ProcedureTypeName")
    );
    let configuration = bed.get(OLD_NAME, "/practice-configuration").await.json();
    assert_eq!(configuration["Data"]["CaseTypes"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_settings_v1_calls_pass_as_v2_answers_them() {
    let bed = TestBed::new().await;
    let orders = bed.get(CLINIC_NAME, &format!("{V1}/orders/practice")).await;
    assert!(orders.text().contains("ProcedureTypeName"), "{}", orders.text());
    let configuration = bed.get(CLINIC_NAME, &format!("{V1}/practice-configuration")).await;
    assert_eq!(configuration.json()["Data"]["CaseTypes"], Value::Null);
}

/// The body that the platform got last.
fn received(bed: &TestBed) -> (String, String) {
    let call = bed.sandbox.calls_to(Endpoint::ScanRequest).pop().expect("a scan-request");
    let length = call.header("content-length").unwrap_or_default().to_owned();
    (String::from_utf8(call.body.to_vec()).unwrap(), length)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_procedure_becomes_the_v2_code_and_nothing_else_changes() {
    let bed = bench().start().await;
    for (v1, v2) in [
        (
            "{ \"Note\":\"\\u00e4 \\\"Procedure\\\": 1\",\n\t\"Units\": 1.50,\"Procedure\" : \"Fixed Restorative\"}",
            "{ \"Note\":\"\\u00e4 \\\"Procedure\\\": 1\",\n\t\"Units\": 1.50,\"Procedure\" : \"FR\"}",
        ),
        (r#"{"Rx":[{"Procedure":3}]}"#, r#"{"Rx":[{"Procedure":"SM"}]}"#),
        (r#"{"Procedure":"Study Model\/iRecord"}"#, r#"{"Procedure":"SM"}"#),
    ] {
        let response = bed.call(Method::POST, OLD_NAME, "/lab-sw/v1/scan-request", v1).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(received(&bed), (v2.to_owned(), v2.len().to_string()));
    }
    // A token that has died on the way costs a renewal, and the same body goes again.
    bed.sandbox.expire_access(OLD);
    let body = r#"{"Procedure":"Fixed Restorative"}"#;
    assert_eq!(bed.call(Method::POST, OLD_NAME, &format!("{V1}/scan-request"), body).await.status, 200);
    assert_eq!(received(&bed).0, r#"{"Procedure":"FR"}"#);
    assert_eq!(bed.sandbox.creations(OLD), 4);
    // What V2 calls the member is the platform's affair, and a setting here.
    bed.sandbox.set_behavior(|behavior| behavior.map_id_field = Some("MapID".into()));
    bed.reconfigure("[v1]\n", "[v1]\nmap_id_field = \"MapID\"\n").await;
    assert_eq!(bed.call(Method::POST, OLD_NAME, &format!("{V1}/scan-request"), body).await.status, 200);
    assert_eq!(received(&bed).0, r#"{"MapID":"FR"}"#);
    // A V2 body goes as it is, and the platform judges it.
    let v2 = bed.call(Method::POST, OLD_NAME, "/itero-gen-api/v2/scan-request", body).await;
    assert_eq!((v2.status, received(&bed).0), (400, body.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v1_cannot_say_is_refused_in_words_and_never_sent() {
    let bed = bench().start().await;
    let path = format!("{V1}/scan-request");
    let unknown = bed.call(Method::POST, CLINIC_NAME, &path, r#"{"Procedure":"Crown"}"#).await;
    assert_eq!((unknown.status, &*unknown.code()), (422, "procedure_unknown"));
    let problem = unknown.json();
    let known = ["3", "Fixed Restorative", "Study Model/iRecord"];
    assert_eq!(problem["choices"], json!(known));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("\"Crown\"") && known.iter().all(|name| detail.contains(name)), "{detail}");

    let url = format!("{}/accounts/{CLINIC_NAME}{path}", bed.gateway);
    let packed = bed.http.post(&url).header("X-Gateway-Key", &bed.key).header("Content-Encoding", "gzip");
    let packed = bed.send(packed.body("x")).await;
    assert_eq!((packed.status, &*packed.code()), (422, "procedure_unknown"));
    assert!(packed.json()["detail"].as_str().unwrap().contains("compressed"));

    let large = format!(r#"{{"Procedure":"Fixed Restorative","Note":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let large = bed.call(Method::POST, CLINIC_NAME, &path, large).await;
    assert_eq!((large.status, &*large.code()), (413, "content_too_large"));

    for (method, call, template) in [
        (Method::DELETE, "/scan-request/7", "/scan-request/{}"),
        (
            Method::GET,
            "/api-discovery-by-name-and-version?discoveryName=third-party&version=2",
            "/api-discovery-by-name-and-version",
        ),
    ] {
        let refused = bed.call(method.clone(), CLINIC_NAME, &format!("{V1}{call}"), "").await;
        assert_eq!((refused.status, &*refused.code()), (404, "not_in_v1"), "{call}");
        assert_eq!(refused.json()["detail"], format!("{template} is a call of V2 alone"));
    }
    assert_eq!(bed.sandbox.creations(CLINIC), 0);
    assert_eq!(bed.sandbox.calls().len(), 0);
    // Whoever asks for V2's discovery under V1's base gets to V2.
    let stacked = format!(
        "{V1}/api/third-party/v2/api-discovery-by-name-and-version?discoveryName=third-party&version=2"
    );
    assert_eq!(bed.get(CLINIC_NAME, &stacked).await.json()["APIs"][0]["Version"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_procedures_is_read_again_at_a_reload_and_a_bad_one_is_named_by_its_line() {
    let bed = bench().start().await;
    let scan = |procedure: &str| {
        let body = format!(r#"{{"Procedure":"{procedure}"}}"#);
        bed.call(Method::POST, CLINIC_NAME, "/lab-sw/v1/scan-request", body)
    };
    assert_eq!(scan("Invisalign").await.status, 422);
    let list = bed.folder().join("procedures.csv");
    std::fs::write(&list, "\u{feff}procedure,map_id\nInvisalign,IN\n").unwrap();
    bed.running.reload().await;
    assert_eq!(scan("Invisalign").await.status, 200);
    assert_eq!(scan("Fixed Restorative").await.status, 422);

    std::fs::write(&list, "procedure,map_id\nInvisalign,IN\nCrown,your-code\nInvisalign,SM\n").unwrap();
    let refused = config::load(&bed.folder().join(CONFIG), &config::process_env).unwrap_err();
    let told: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let file = list.display();
    assert_eq!(
        told,
        [
            format!(
                "{file}:3:1: v1.procedures: map_id \"your-code\" is a placeholder. Fix: write the real one."
            ),
            format!(
                "{file}:4:1: v1.procedures: procedure \"Invisalign\" stands in line 2 already. Fix: keep one of the two lines."
            ),
        ]
    );
    bed.running.reload().await;
    assert_eq!(scan("Invisalign").await.status, 200, "the last good list serves on");
}
