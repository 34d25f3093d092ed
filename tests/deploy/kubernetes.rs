//! The overlays are built by kustomize, every object is one by the schemas of Kubernetes itself, and the
//! parts fit each other and the program.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use genapi_gateway::config;
use serde_json::{Value, json};

use crate::process::{Gateway, PROGRAM, PendingRequest, output};
use crate::tools::{texts, tool, yaml};
use crate::{Credentials, check, project, remarks, secrets_of};

const OVERLAYS: [&str; 2] = ["embedded", "postgres"];
/// The oldest cluster that the manifests are for, and the newest one whose schemas are at hand.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];

/// A built overlay.
struct RenderedOverlay {
    folder: tempfile::TempDir,
    objects: Vec<Value>,
}

impl RenderedOverlay {
    fn overlay(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let built =
            output(tool("kubectl").arg("kustomize").arg(format!("deploy/kubernetes/overlays/{name}")));
        let file = folder.path().join("built.yaml");
        std::fs::write(&file, built).unwrap();
        Self { objects: yaml(&file), folder }
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    fn only(&self, kind: &str) -> &Value {
        let found = self.all(kind);
        assert_eq!(found.len(), 1, "{kind}");
        found[0]
    }

    fn pod(&self) -> &Value {
        &self.only("StatefulSet")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    fn config(&self) -> &str {
        self.only("ConfigMap")["data"]["config.toml"].as_str().unwrap()
    }

    /// Where the pod has its secrets, and which of them the configuration asks for.
    fn secrets(&self) -> BTreeSet<String> {
        let mut asked = secrets_of(self.config());
        let in_place = self.config().split("/run/secrets/").skip(1);
        let names = in_place.map(|rest| rest.split(['"', '&', '\n']).next().unwrap().to_owned());
        asked.extend(names);
        asked
    }

    fn port(&self, name: &str) -> u64 {
        let ports = self.container()["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name);
        port.unwrap_or_else(|| panic!("{name}"))["containerPort"].as_u64().unwrap()
    }
}

fn judged(file: &Path, version: &str) -> std::process::Output {
    tool("kubernetes-validate").args(["--strict", "-k", version]).arg(file).output().unwrap()
}

#[test]
fn every_object_is_one_by_the_schemas_of_kubernetes() {
    for name in OVERLAYS {
        let built = RenderedOverlay::overlay(name);
        for version in VERSIONS {
            let judged = judged(&built.folder.path().join("built.yaml"), version);
            let said = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
            assert!(judged.status.success(), "{name}: {said}");
            assert_eq!(said.matches(" passed for resource ").count(), built.objects.len(), "{said}");
        }
    }
}

#[test]
fn the_schemas_would_see_a_slip() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slip.yaml");
    let text = std::fs::read_to_string(project().join("deploy/kubernetes/base/service.yaml")).unwrap();
    for (right, wrong) in [("targetPort", "targetPrt"), ("port: 8080", "port: eighty")] {
        std::fs::write(&file, text.replace(right, wrong)).unwrap();
        assert!(!judged(&file, VERSIONS[1]).status.success(), "{wrong}");
    }
}

#[test]
fn one_gateway_on_sqlite_and_several_on_postgresql() {
    let embedded = RenderedOverlay::overlay("embedded");
    assert_eq!(embedded.only("StatefulSet")["spec"]["replicas"], 1);
    assert!(embedded.config().contains("url = \"sqlite:/var/lib/genapi-gateway/"));
    assert!(embedded.all("PodDisruptionBudget").is_empty(), "one that may never go would hold up its node");

    let postgres = RenderedOverlay::overlay("postgres");
    let replicas = postgres.only("StatefulSet")["spec"]["replicas"].as_u64().unwrap();
    assert!(replicas > 1 && postgres.config().contains("url = \"postgres://"));
    assert_eq!(postgres.only("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    for built in [embedded, postgres] {
        let set = &built.only("StatefulSet")["spec"];
        let state = &built.container()["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["name"] == "state")
            .unwrap()["mountPath"];
        assert_eq!(state, "/var/lib/genapi-gateway");
        assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "state");
    }
}

#[test]
fn what_selects_pods_selects_the_gateways() {
    for name in OVERLAYS {
        let built = RenderedOverlay::overlay(name);
        let labels = built.only("StatefulSet")["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        let mut selectors = vec![&built.only("StatefulSet")["spec"]["selector"]["matchLabels"]];
        selectors.extend(built.all("Service").iter().map(|service| &service["spec"]["selector"]));
        selectors.extend(
            built.all("NetworkPolicy").iter().map(|policy| &policy["spec"]["podSelector"]["matchLabels"]),
        );
        selectors.extend(
            built.all("PodDisruptionBudget").iter().map(|budget| &budget["spec"]["selector"]["matchLabels"]),
        );
        assert!(selectors.len() >= 4);
        for selector in selectors {
            assert_eq!(selector.as_object(), Some(labels), "{name}");
        }
        for object in &built.objects {
            let namespace = match object["kind"].as_str().unwrap() {
                "Namespace" => &object["metadata"]["name"],
                _ => &object["metadata"]["namespace"],
            };
            assert_eq!(namespace, "genapi-gateway", "{object}");
        }
    }
}

#[test]
fn no_pod_may_do_more_than_it_must() {
    for name in OVERLAYS {
        let built = RenderedOverlay::overlay(name);
        let (pod, container) = (built.pod(), built.container());
        assert_eq!(
            built.only("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
            "restricted"
        );
        let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
        let image = std::fs::read_to_string(project().join("deploy/Dockerfile")).unwrap();
        assert!(image.contains(&format!("\nUSER {user}\n")), "{user}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
        assert_eq!(
            container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            assert!(container["resources"].pointer(amount).is_some(), "{amount}");
        }
        // Neither in the environment as text nor in a file of the overlay.
        for variable in container["env"].as_array().into_iter().flatten() {
            assert!(
                variable.get("value").is_none() && variable["valueFrom"]["secretKeyRef"].is_object(),
                "{variable}"
            );
        }
        assert!(built.all("Secret").is_empty());
    }
}

#[test]
fn a_pod_has_the_time_to_drain() {
    let built = RenderedOverlay::overlay("postgres");
    let pause =
        texts(&built.container()["lifecycle"]["preStop"]["exec"]["command"])[1].parse::<u64>().unwrap();
    let grace = built.pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    // The default of gateway.drain_timeout, and what the end waits for refreshes under way.
    assert!(grace >= pause + 30 + 15 + 5);
}

/// As the kubelet lays a Secret out for a pod with an `fsGroup`: links to links, readable by the group.
fn lay_out(credentials: &Credentials) -> Credentials {
    let folder = tempfile::tempdir().unwrap();
    let dated = folder.path().join("..2026_01_01");
    std::fs::create_dir(&dated).unwrap();
    for entry in std::fs::read_dir(credentials.0.path()).unwrap() {
        let entry = entry.unwrap();
        let file = dated.join(entry.file_name());
        std::fs::copy(entry.path(), &file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
        symlink(Path::new("..data").join(entry.file_name()), folder.path().join(entry.file_name())).unwrap();
    }
    symlink("..2026_01_01", folder.path().join("..data")).unwrap();
    Credentials(folder)
}

#[test]
fn the_configuration_is_valid_with_secrets_as_a_pod_sees_them() {
    for name in OVERLAYS {
        let built = RenderedOverlay::overlay(name);
        let mounted = tempfile::tempdir().unwrap();
        let ca = mounted.path().join("database-ca.pem");
        std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n").unwrap();
        let config = built.config().replace("/run/secrets/database-ca.pem", &ca.display().to_string());
        let said = check(&config, &lay_out(&Credentials::of(built.config())));
        for line in remarks(&said) {
            assert!(line.contains("is plain HTTP beyond loopback"), "{name}: {line}");
        }
        let mounts = built.container()["volumeMounts"].as_array().unwrap();
        let volumes = built.pod()["volumes"].as_array().unwrap();
        for mount in mounts.iter().filter(|mount| mount["name"] != "state") {
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
        }
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/tmp"), "all else is read-only");
        let at = |volume: &str| &mounts.iter().find(|mount| mount["name"] == volume).unwrap()["mountPath"];
        assert_eq!((at("config"), at("secrets")), (&json!("/etc/genapi-gateway"), &json!("/run/secrets")));
    }
}

#[test]
fn a_pod_of_the_embedded_overlay_starts_and_passes_its_probes() {
    let built = RenderedOverlay::overlay("embedded");
    let credentials = lay_out(&Credentials::of(built.config()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = built.config().replace("/var/lib/genapi-gateway", &folder.path().display().to_string());
    let config = config.replace("0.0.0.0:8080", "127.0.0.1:0").replace("0.0.0.0:8081", "127.0.0.1:0");
    std::fs::write(&file, config).unwrap();
    let mut serve = Command::new(PROGRAM);
    serve.arg("serve").arg("-c").arg(&file).env("CREDENTIALS_DIRECTORY", credentials.0.path());
    let gateway = Gateway::start(&mut serve);
    let mut paths = Vec::new();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = &built.container()[probe]["httpGet"];
        assert_eq!(asked["port"], "admin");
        let path = asked["path"].as_str().unwrap();
        let response = PendingRequest::get(gateway.admin, path).and_then(PendingRequest::response).unwrap();
        assert_eq!(response.status, 200, "{probe}: {response:?}");
        paths.push(path);
    }
    assert_eq!(paths, ["/healthz", "/healthz", "/readyz"]);
}

#[test]
fn ports_of_manifests_and_configuration_are_the_same() {
    for name in OVERLAYS {
        let built = RenderedOverlay::overlay(name);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, built.config()).unwrap();
        let credentials = Credentials::of(built.config());
        let place = credentials.0.path().to_str().unwrap().to_owned();
        let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| place.clone());
        let config = config::load(&file, &env).unwrap().config;
        assert_eq!(built.port("data"), u64::from(config.gateway.listen[0].port()));
        assert_eq!(built.port("admin"), u64::from(config.admin.listen[0].port()));
        for service in built.all("Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                let target = port["targetPort"].as_str().unwrap();
                assert_eq!(port["port"].as_u64().unwrap(), built.port(target));
            }
            // How callers reach it, as the configuration tells them.
            if service["metadata"]["name"] == "genapi-gateway" {
                assert_eq!(config.gateway.url.host_str(), Some("genapi-gateway.genapi-gateway.svc"));
            }
        }
        for policy in built.all("NetworkPolicy") {
            for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
                for port in rule["ports"].as_array().unwrap() {
                    built.port(port["port"].as_str().unwrap());
                }
            }
        }
    }
}

#[test]
fn the_page_makes_the_secrets_that_the_overlays_ask_for() {
    let page = std::fs::read_to_string(project().join("docs/deployment.md")).unwrap();
    let commands = page.split("create secret generic genapi-gateway ").skip(1);
    let made: Vec<BTreeSet<String>> = commands
        .map(|rest| {
            let files = rest.lines().next().unwrap().split("--from-file=").skip(1);
            files.map(|file| file.trim().to_owned()).collect()
        })
        .collect();
    assert_eq!(made, OVERLAYS.map(|name| RenderedOverlay::overlay(name).secrets()));
    let postgres = RenderedOverlay::overlay("postgres");
    let password = &postgres.container()["env"][0]["valueFrom"]["secretKeyRef"];
    let (secret, key) = (password["name"].as_str().unwrap(), password["key"].as_str().unwrap());
    assert!(page.contains(&format!("create secret generic {secret} --from-file={key}=")));
}
