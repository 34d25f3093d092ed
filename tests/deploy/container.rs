//! The Dockerfile is one that the engine's parser and a linter take, and
//! the image is as small in rights as it promises.

use clap::Parser;
use genapi_gateway::cli::{Arguments, Command, DEFAULT_CONFIG};
use serde_json::Value;

use crate::process::output;
use crate::tools::{dockerfile, texts, tool};
use crate::{deployed, project};

fn instructions() -> Vec<Value> {
    dockerfile(&project().join("deploy/Dockerfile"))
}

/// The instructions of the image itself, behind the last FROM.
fn image(instructions: &[Value]) -> &[Value] {
    let last = instructions.iter().rposition(|instruction| instruction["cmd"] == "FROM").unwrap();
    &instructions[last..]
}

fn only<'a>(instructions: &'a [Value], cmd: &str) -> &'a Value {
    let found: Vec<&Value> = instructions.iter().filter(|instruction| instruction["cmd"] == cmd).collect();
    assert_eq!(found.len(), 1, "{cmd}");
    found[0]
}

#[test]
fn a_linter_has_nothing_to_say_about_the_dockerfile() {
    assert_eq!(output(tool("hadolint").args(["--no-color", "deploy/Dockerfile"])), "");
}

#[test]
fn the_image_is_built_by_the_rust_that_the_project_asks_for_and_holds_none_of_it() {
    let instructions = instructions();
    let from: Vec<Vec<&str>> = instructions
        .iter()
        .filter(|instruction| instruction["cmd"] == "FROM")
        .map(|from| texts(&from["value"]))
        .collect();
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert_eq!(from, [vec![&*format!("rust:{rust}-bookworm"), "AS", "build"], vec!["debian:bookworm-slim"]]);
    let copies: Vec<&Value> = image(&instructions).iter().filter(|line| line["cmd"] == "COPY").collect();
    let taken = copies.iter().find(|copy| texts(&copy["flags"]) == ["--from=build"]).unwrap();
    assert_eq!(texts(&taken["value"]), ["/source/target/dist/genapi-gateway", "/usr/bin/genapi-gateway"]);
    assert!(std::fs::read_to_string(project().join("Cargo.toml")).unwrap().contains("[profile.dist]"));
    for copy in copies.iter().filter(|copy| texts(&copy["flags"]).is_empty()) {
        let (_, sources) = texts(&copy["value"]).split_last().map(|(to, from)| (*to, from.to_vec())).unwrap();
        for source in sources {
            assert!(project().join(source).exists(), "{source}");
        }
    }
    // What a build does not need would be sent along, and with it whatever secrets lie there.
    let ignored = std::fs::read_to_string(project().join(".dockerignore")).unwrap();
    for folder in ["target", ".git"] {
        assert!(ignored.lines().any(|line| line == folder), "{folder}");
    }
}

#[test]
fn the_image_runs_as_nobody_and_asks_the_binary_itself_about_its_health() {
    let instructions = instructions();
    let image = image(&instructions);
    let user = texts(&only(image, "USER")["value"])[0].to_owned();
    assert!(user.parse::<u32>().unwrap() >= 10_000, "a number, so that clusters see that it is not root");
    let words = |cmd: &str| {
        let line = only(image, cmd);
        assert_eq!(line["json"], true, "no shell between, or signals would not arrive: {line}");
        texts(&line["value"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let entry = words("ENTRYPOINT");
    assert_eq!(entry, ["/usr/bin/genapi-gateway"]);
    let served = Arguments::try_parse_from([entry, words("CMD")].concat()).unwrap();
    assert!(matches!(served.command, Command::Serve));
    let health = words("HEALTHCHECK");
    assert_eq!(health[0], "CMD");
    let asked = Arguments::try_parse_from(&health[1..]).unwrap();
    assert!(matches!(asked.command, Command::Healthcheck));
    let set = &only(image, "ENV")["value"];
    let set = texts(set);
    let variables: Vec<(&str, &str)> = set.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(
        variables,
        [("GENAPI_GATEWAY_CONFIG", DEFAULT_CONFIG), ("CREDENTIALS_DIRECTORY", "/run/secrets")]
    );
    assert_eq!(texts(&only(image, "VOLUME")["value"]), ["/var/lib/genapi-gateway"]);
    assert!(deployed("config.toml").contains("/var/lib/genapi-gateway/gateway.db"));
}
