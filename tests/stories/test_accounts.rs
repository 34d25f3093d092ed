//! Accounts that exist to be tested with: marked by an operator or an import, seen wherever accounts are
//! seen, through a new name and a restart.

use serde_json::json;

use crate::browser::Browser;
use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, TestBed};

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_test_account_follows_it_and_is_written_down() {
    let bed = TestBed::new().await;
    assert_eq!(bed.account(CLINIC_NAME).await["test"], false);
    let marked = bed.operate(&format!("/accounts/{CLINIC_NAME}/test?on=true"), json!(null)).await;
    assert_eq!((marked.status, &marked.json()["test"]), (200, &json!(true)), "{}", marked.text());
    let renamed = format!("/accounts/{CLINIC_NAME}/rename?to=align-test-1&confirmed=true");
    assert_eq!(bed.operate(&renamed, json!(null)).await.status, 200);
    let link = bed.start_link(json!({"name": "align-test-1", "account_id": CLINIC})).await;
    let page = Browser::new(&bed).connect(&link).await;
    assert!(page.text().contains("marked it as a test account"), "{}", page.text());
    let bed = bed.restart().await;
    assert_eq!(bed.account("align-test-1").await["test"], true);
    assert_eq!(bed.account(LAB_NAME).await["test"], false);
    let explained = bed.look("/api/accounts/align-test-1/explain").await.text();
    assert!(explained.contains("It is a test account"), "{explained}");
    assert!(bed.journal(CLINIC_NAME).await.contains(&"test_account".to_owned()));
    let acts: Vec<_> = bed.audit().into_iter().filter(|line| line["action"] == "test").collect();
    assert_eq!((acts.len(), &acts[1]["account"]), (2, &json!("acct-1001 on")), "{acts:?}");
    let odd = bed.operate("/accounts/align-test-1/test", json!(null)).await;
    assert_eq!(odd.status, 400, "{}", odd.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_marks_test_accounts_and_leaves_those_alone_of_which_it_says_nothing() {
    let bed = TestBed::new().await;
    let token = bed.sandbox.refresh_tokens(CLINIC).pop().unwrap();
    let element = |name: &str, test: serde_json::Value| json!([{"name": name, "realm": "global", "account_id": CLINIC, "refresh_token": token, "test": test}]);
    for (test, then) in [(json!(true), true), (json!(null), true), (json!("no"), false)] {
        let imported = bed.operate("/import?paused=true", element(CLINIC_NAME, test)).await;
        assert!(imported.text().contains("kept"), "{}", imported.text());
        assert_eq!(bed.account(CLINIC_NAME).await["test"], then);
    }
    // The name stands for another account: it is not marked.
    let imported = bed.operate("/import?paused=true", element(LAB_NAME, json!(true))).await;
    assert!(imported.text().contains("failed"), "{}", imported.text());
    assert_eq!(bed.account(LAB_NAME).await["test"], false);
}
