//! A gateway that is kept running: a store in trouble, a broken record, a
//! changed configuration, the end of the process.

use std::time::Duration;

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, Gate, Platform};
use http::Method;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};

use crate::browser::{Browser, heading};
use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, PASSWORD, TestBed, TestBedBuilder, USER};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const LAB_LIST: &str = "/itero-gen-api/v2/orders/lab";

/// Does something to the database behind the gateway's back.
async fn in_the_database(folder: &std::path::Path, statements: &[&'static str]) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("gateway.db"));
    let mut database = options.connect().await.unwrap();
    for statement in statements {
        sqlx::query(*statement).execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();
}

/// As a full disk does: reads work, writes fail.
async fn store_refuses_writes(bed: &TestBed) {
    in_the_database(
        bed.folder(),
        &[
            "CREATE TRIGGER full_1 BEFORE UPDATE ON grants BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER full_2 BEFORE INSERT ON grants BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER full_3 BEFORE INSERT ON heartbeat BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER full_4 BEFORE UPDATE ON heartbeat BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER full_5 BEFORE INSERT ON pending_logins BEGIN SELECT RAISE(ABORT, 'no room'); END",
        ],
    )
    .await;
}

async fn store_takes_writes_again(bed: &TestBed) {
    let drops = [
        "DROP TRIGGER full_1",
        "DROP TRIGGER full_2",
        "DROP TRIGGER full_3",
        "DROP TRIGGER full_4",
        "DROP TRIGGER full_5",
    ];
    in_the_database(bed.folder(), &drops).await;
}

async fn parts(bed: &TestBed) -> Vec<Value> {
    let readiness = bed.send(bed.browse(Method::GET, "/readyz?verbose")).await;
    assert_eq!(readiness.status, 200, "{}", readiness.text());
    readiness.json()["parts"].as_array().unwrap().clone()
}

async fn part(bed: &TestBed, name: &str) -> Value {
    parts(bed).await.into_iter().find(|part| part["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_leaves_calls_flowing_is_told_and_is_caught_up_with() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    assert_eq!(part(&bed, "store").await["ok"], true);
    store_refuses_writes(&bed).await;
    bed.sandbox.expire_access(CLINIC);
    let response = bed.while_time_flies(Duration::from_millis(100), bed.get(CLINIC_NAME, LIST)).await;
    assert_eq!(response.status, 200, "served on from memory: {}", response.text());
    let link = bed.operate("/pairings", json!({"realm": "global"})).await;
    assert_eq!(link.status, 503, "{}", link.text());
    let explained = bed.look(&format!("/api/accounts/{CLINIC_NAME}/explain")).await;
    assert!(explained.text().contains("in memory only"), "{}", explained.text());
    assert_eq!(part(&bed, "saved_tokens").await["ok"], false);
    // Last, since the store's next turn rolls back what the one before it
    // could not finish, and lets go of the file.
    assert_eq!(part(&bed, "store").await["ok"], false);

    store_takes_writes_again(&bed).await;
    let saved = async {
        while part(&bed, "saved_tokens").await["ok"] == false {
            tokio::task::yield_now().await;
        }
    };
    bed.while_time_flies(Duration::from_secs(1), saved).await;
    assert_eq!(part(&bed, "store").await["ok"], true);
    let bed = bed.restart().await;
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "the rotated token is on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_tampered_with_refuses_its_own_account_and_no_other() {
    let bed = TestBed::new().await;
    let bed = bed
        .restart_after(async |folder| {
            in_the_database(
                folder,
                &["UPDATE grants SET refresh_sealed = zeroblob(60) WHERE account = 'acct-1001'"],
            )
            .await;
        })
        .await;
    assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200);
    let refused = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "account_unknown"));
    let ready = bed.send(bed.browse(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, 200, "one account does not make the gateway unready");
    // A new pairing under its name mends it.
    let link = bed.start_link(json!({"name": CLINIC_NAME, "account_id": CLINIC})).await;
    let page = Browser::new(&bed).connect(&link).await;
    assert_eq!(heading(&page), "The account is connected", "{}", page.text());
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_lets_a_new_caller_in_and_an_invalid_file_changes_nothing() {
    let bed = TestBed::new().await;
    let by_key = async |key: &str| {
        let request = bed.bare(Method::GET, &format!("/accounts/{CLINIC_NAME}{LIST}"));
        bed.send(request.header("X-Gateway-Key", key)).await.status
    };
    assert_eq!(by_key("foo").await, 401);
    let second = "[[callers]]\nname = \"second\"\naccounts = [\"*\"]\n\
                  key_sha256 = \"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"\n\n[[callers]]";
    bed.reconfigure("[[callers]]", second).await;
    assert_eq!((by_key("foo").await, by_key(&bed.key).await), (200, 200));

    bed.reconfigure("name = \"second\"", "nmae = \"second\"").await;
    assert_eq!((by_key("foo").await, by_key(&bed.key).await), (200, 200), "the old configuration stays");

    bed.reconfigure("nmae = \"second\"\naccounts = [\"*\"]", "name = \"second\"\naccounts = [\"lab-*\"]")
        .await;
    assert_eq!((by_key("foo").await, by_key(&bed.key).await), (403, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_that_align_changed_is_healed_by_a_reload_and_nobody_logs_in_again() {
    let bed = TestBed::new().await;
    bed.sandbox.set_client_secret(Platform::New, "the new secret");
    bed.sandbox.expire_access(CLINIC);
    let refused = bed.while_time_flies(Duration::from_millis(250), bed.get(CLINIC_NAME, LIST)).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(bed.account(CLINIC_NAME).await["state"], "ready", "bad credentials keep every grant");
    let realms = parts(&bed).await.into_iter().filter(|part| part["name"] == "realm" && part["ok"] == false);
    let troubled: Vec<String> = realms.map(|part| part["detail"].as_str().unwrap().to_owned()).collect();
    assert!(troubled.len() == 1 && troubled[0].starts_with("global: "), "{troubled:?}");
    std::fs::write(bed.folder().join("client-global.secret"), "the new secret").unwrap();
    bed.running.reload().await;
    let response = bed.while_time_flies(Duration::from_millis(250), bed.get(CLINIC_NAME, LIST)).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_realm_is_taken_out_of_the_configuration_ends_with_a_readable_page() {
    let bed = TestBed::new().await;
    let link = bed.start_link(json!({"realm": "china"})).await;
    let mut browser = Browser::new(&bed);
    let authorize = browser.begin(&link).await;
    let back = bed.sandbox.log_in(&authorize, USER, PASSWORD).await.unwrap();
    bed.reconfigure("[realms.china]", "[realms.elsewhere]").await;
    let page = browser.open(&back).await;
    assert_eq!((page.status, heading(&page).as_str()), (410, "The realm is no longer configured"));
    assert!(bed.sandbox.calls_to(Endpoint::Exchange).is_empty());
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_finished_before_the_end_and_new_connections_are_not_taken() {
    let bed = TestBed::new().await;
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::HeldBy(gate.clone())).once());
    let request =
        bed.bare(Method::GET, &format!("/accounts/{CLINIC_NAME}{LIST}")).header("X-Gateway-Key", &bed.key);
    let call = tokio::spawn(async move {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.map(|body| body.len()))
    });
    gate.until_waiting(1).await;
    let address = bed.running.data_addr().unwrap();
    let restarted = tokio::spawn(bed.restart());
    // Draining has begun as soon as nobody listens there any more.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let (status, body) = call.await.unwrap();
    assert!(status == 200 && body.unwrap() > 100);
    let bed = restarted.await.unwrap();
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[cfg(unix)]
#[test]
fn a_reload_that_is_asked_for_while_the_configuration_is_read_does_not_kill() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_genapi-gateway"))
        .args(["serve", "--config"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opens when the gateway has opened its end: from here on it waits for its configuration.
    let mut config = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    assert!(Command::new("kill").args(["-HUP", &gateway.id().to_string()]).status().unwrap().success());
    config.write_all(b"this is no configuration").unwrap();
    drop(config);
    assert_eq!(gateway.wait().unwrap().code(), Some(78), "it has read its configuration and refused that");
}

/// A backup program or a shell has the file: no write gets in, for a good while.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_somebody_else_has_locked_leaves_calls_flowing_is_named_and_loses_nothing() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bed.folder().join("gateway.db"));
    let mut locker = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut locker).await.unwrap();
    while part(&bed, "store").await["ok"] == true {
        bed.clock.advance(Duration::from_secs(1));
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    }
    let explained = bed.look(&format!("/api/accounts/{CLINIC_NAME}/explain")).await.json();
    let verdict = &explained["findings"][0];
    assert_eq!(verdict["level"], "trouble", "{explained}");
    assert!(verdict["what"].as_str().unwrap().starts_with("The store takes no writes"), "{verdict}");
    // Its writes are waited for, then it is served from memory; the lock outlasts them.
    bed.sandbox.expire_access(CLINIC);
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!(response.status, 200, "{}", response.text());
    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    locker.close().await.unwrap();

    let saved = async {
        while part(&bed, "saved_tokens").await["ok"] == false || part(&bed, "store").await["ok"] == false {
            tokio::task::yield_now().await;
        }
    };
    bed.while_time_flies(Duration::from_secs(1), saved).await;
    let bed = bed.restart().await;
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "the rotated token is on the disk");
}
