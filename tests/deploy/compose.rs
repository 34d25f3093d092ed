//! The compose file is one by the specification's own schema, and it, the gateways' configuration, the
//! balancer's and the image agree.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::process::output;
use crate::tools::{texts, tool, yaml};
use crate::{Credentials, check, deployed, project, remarks, secrets_of};

const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];

fn compose() -> Value {
    yaml(&project().join("deploy/compose.yaml")).remove(0)
}

fn config() -> String {
    deployed("compose/config.toml")
}

fn set<'a>(list: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    list.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_compose_specifications_schema_takes_the_file() {
    output(tool("check-jsonschema").args(["--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"]));
}

#[test]
fn each_secret_is_a_file_and_the_configuration_asks_for_those_that_the_gateways_get() {
    let compose = compose();
    let defined = compose["secrets"].as_object().unwrap();
    for (name, secret) in defined {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
    }
    let mut used = set(texts(&compose["services"]["postgres"]["secrets"]));
    for gateway in GATEWAYS {
        let gateway = &compose["services"][gateway];
        let given = set(texts(&gateway["secrets"]));
        let mut asked = secrets_of(&config());
        let password_file = gateway["environment"]["PGPASSFILE"].as_str().unwrap();
        asked.insert(password_file.strip_prefix("/run/secrets/").unwrap().to_owned());
        assert_eq!(given, asked);
        used.extend(given);
    }
    assert_eq!(used, set(defined.keys().map(String::as_str)));
    // Neither committed nor sent into an image.
    for (file, line) in [(".gitignore", "/deploy/secrets"), (".dockerignore", "deploy/secrets")] {
        let ignored = std::fs::read_to_string(project().join(file)).unwrap();
        assert!(ignored.lines().any(|ignored| ignored == line), "{file}");
    }
}

#[test]
fn the_gateways_configuration_is_valid_with_those_secrets() {
    let said = check(&config(), &Credentials::of(&config()));
    // The balancer's word is all that crosses these networks, and they do not leave the machine.
    for line in remarks(&said).into_iter().filter(|line| line.starts_with("warning")) {
        assert!(line.contains("is plain HTTP beyond loopback"), "{line}");
    }
}

#[test]
fn the_gateways_trust_the_balancer_and_it_finds_them() {
    let compose = compose();
    let balancer = &compose["services"]["balancer"];
    let address = balancer["networks"]["callers"]["ipv4_address"].as_str().unwrap();
    assert!(config().contains(&format!("trusted_proxies = [\"{address}\"]")));
    let subnet = compose["networks"]["callers"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    assert!(subnet.parse::<ipnet::IpNet>().unwrap().contains(&address.parse::<std::net::IpAddr>().unwrap()));
    let front = deployed("front/haproxy.cfg");
    let data = config()
        .lines()
        .find_map(|line| line.strip_prefix("listen = [\"0.0.0.0:")?.strip_suffix("\"]").map(str::to_owned))
        .unwrap();
    for gateway in GATEWAYS {
        assert!(front.contains(&format!("\n    server {gateway} {gateway}:{data}\n")), "{gateway}");
        assert!(texts(&compose["services"][gateway]["networks"]).contains(&"callers"));
        assert_eq!(balancer["depends_on"][gateway]["condition"], "service_healthy");
    }
    let published = texts(&balancer["ports"]);
    let inside: Vec<&str> = published.iter().map(|port| port.rsplit(':').next().unwrap()).collect();
    for port in inside {
        assert!(front.contains(&format!("\n    bind :{port}\n")), "{port}");
    }
    let asked = texts(&balancer["healthcheck"]["test"]);
    let health = asked.last().unwrap().strip_prefix("http://").unwrap();
    let (bind, path) = health.split_once('/').unwrap();
    assert!(front.contains(&format!("bind {bind}\n    monitor-uri /{path}\n")));
}

#[test]
fn what_is_mounted_exists_and_no_gateway_may_do_more_than_it_must() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (from, _) = volume.split_once(':').unwrap();
            match from.strip_prefix("./") {
                Some(file) => assert!(project().join("deploy").join(file).exists(), "{name}: {volume}"),
                None => assert!(compose["volumes"].get(from).is_some(), "{name}: {volume}"),
            }
        }
    }
    let mut folders = BTreeSet::new();
    for name in GATEWAYS {
        let gateway = &services[name];
        assert_eq!((&gateway["read_only"], texts(&gateway["cap_drop"])), (&Value::Bool(true), vec!["ALL"]));
        assert_eq!(texts(&gateway["tmpfs"]), ["/tmp"]);
        assert_eq!(texts(&gateway["security_opt"]), ["no-new-privileges:true"]);
        assert_eq!(gateway["ulimits"]["core"], 0);
        let grace = gateway["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
        assert!(grace.parse::<u32>().unwrap() >= 30 + 15 + 5, "drain, refreshes under way, room");
        assert_eq!(gateway["depends_on"]["postgres"]["condition"], "service_healthy");
        assert!(gateway.get("ports").is_none(), "the admin listener is not for other machines");
        folders.extend(
            texts(&gateway["volumes"])
                .into_iter()
                .filter_map(|volume| volume.strip_suffix(":/var/lib/genapi-gateway"))
                .map(str::to_owned),
        );
    }
    assert_eq!(folders, set(GATEWAYS), "an audit log each");
    assert_eq!(compose["networks"]["database"]["internal"], true);
    assert_eq!(texts(&services["postgres"]["networks"]), ["database"]);
    assert!(services["postgres"].get("ports").is_none());
}
