//! The balancers' configurations are taken by the real programs, and
//! with them in front the gateway knows who calls.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use genapi_gateway::sandbox::gateway_files::{self, Addresses};
use genapi_gateway::sandbox::{AccountSpec, Sandbox, SandboxOptions};

use crate::deployed;
use crate::process::{Gateway, PROGRAM, PendingRequest, Process, Response};

const BALANCER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
/// Where the application stands that can send no key, and where nobody does.
const APPLICATION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
/// What lines of a HAProxy configuration begin with.
const PARTS: [&str; 9] = [
    "server",
    "frontend",
    "backend",
    "bind",
    "default_backend",
    "balance",
    "option",
    "http-check",
    "default-server",
];
const ORDERS: &str = "GET /accounts/acct-1001/orders/practice HTTP/1.1";

/// Two gateways that trust a balancer, each with a database of its own and the same account in it, and a
/// sandbox behind them.
struct GatewayPair {
    gateways: Vec<(Gateway, tempfile::TempDir)>,
    _sandbox: Sandbox,
}

impl GatewayPair {
    async fn start() -> Self {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        sandbox.add_account(AccountSpec::clinic(1001, "Smile Berlin").with_orders(1));
        let gateways = vec![gateway(&sandbox), gateway(&sandbox)];
        Self { gateways, _sandbox: sandbox }
    }

    /// The configuration with these gateways in it.
    fn fill(&self, config: &str) -> String {
        let mut config = config.to_owned();
        for (number, (gateway, _)) in (1..).zip(&self.gateways) {
            let (data, admin) = (gateway.data, gateway.admin.port());
            let named = format!("server gateway-{number} gateway-{number}:8080");
            config = config.replace(&named, &format!("server gateway-{number} {data} port {admin}"));
            config = config.replace(&format!("gateway-{number}:8080"), &data.to_string());
            config = config.replace(&format!("gateway-{number}:8082"), &data.to_string());
        }
        assert!(
            !config.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("gateway-1:"))
        );
        config
    }
}

/// Its one caller is known by where it stands.
fn gateway(sandbox: &Sandbox) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    gateway_files::write(sandbox, folder.path(), &Addresses::new(any, any)).unwrap();
    let file = folder.path().join(gateway_files::CONFIG);
    let config = std::fs::read_to_string(&file).unwrap();
    let config = config.replace("[gateway]\n", &format!("[gateway]\ntrusted_proxies = [\"{BALANCER}\"]\n"));
    let (rest, _key) = config.split_once("key_sha256").unwrap();
    std::fs::write(&file, format!("{rest}networks = [\"{APPLICATION}/32\"]\n")).unwrap();
    let gateway = Gateway::start(Command::new(PROGRAM).args(["serve", "-c"]).arg(&file));
    let token = std::fs::read_to_string(folder.path().join("admin.token")).unwrap();
    let accounts = std::fs::read_to_string(folder.path().join(gateway_files::IMPORT)).unwrap();
    let fields = [&*format!("Authorization: Bearer {}", token.trim()), "Content-Type: application/json"];
    let imported =
        PendingRequest::send(BALANCER, gateway.admin, "POST /api/import HTTP/1.1", &fields, &accounts);
    let imported = imported.and_then(PendingRequest::response).unwrap();
    assert!(imported.status == 200 && imported.body.contains("\"ok\":true"), "{imported:?}");
    (gateway, folder)
}

fn ask(from: IpAddr, balancer: SocketAddr, fields: &[&str]) -> Response {
    PendingRequest::send(from, balancer, ORDERS, fields, "").and_then(PendingRequest::response).unwrap()
}

/// Runs a program with a socket that is there already: no port has to be free twice.
fn on_socket(socket: &TcpListener, script: &str, config: &Path) -> Process {
    let socket: OwnedFd = socket.try_clone().unwrap().into();
    let script = format!("exec 3<&0 0</dev/null; {script}");
    Process::start(Command::new("sh").args(["-c", &script]).arg(config).stdin(Stdio::from(socket)))
}

/// sbin is not in everybody's path.
fn program(name: &str) -> String {
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| Path::new(path).exists())
        .unwrap_or_else(|| panic!("{name} is missing: `sh tests/run.sh` installs it"))
}

fn known_by_network_and_nobody_else(balancer: SocketAddr) {
    for _ in 0..4 {
        let response = ask(APPLICATION, balancer, &[]);
        assert_eq!(response.status, 200, "{response:?}");
        assert!(!response.head.contains("proxy-status"), "the platform's own answer: {response:?}");
    }
    let lie = format!("X-Forwarded-For: {APPLICATION}");
    for fields in [&[][..], &[&*lie]] {
        let response = ask(STRANGER, balancer, fields);
        assert_eq!(response.status, 401, "{response:?}");
        assert!(response.body.contains("caller_unknown"), "{response:?}");
    }
}

/// New connections all the time, while one gateway goes.
fn nobody_notices_that_a_gateway_goes(balancer: SocketAddr, mut pair: GatewayPair) {
    let (leaving, _folder) = pair.gateways.remove(0);
    leaving.process.signal("-TERM");
    for call in 0..30 {
        let response = ask(APPLICATION, balancer, &[]);
        assert_eq!(response.status, 200, "call {call}: {response:?}");
    }
    assert_eq!(leaving.process.ended(), Some(0));
    assert_eq!(ask(APPLICATION, balancer, &[]).status, 200);
}

#[test]
fn haproxy_takes_the_configuration_without_a_remark() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let made = rcgen::generate_simple_self_signed(vec!["gateway.example.com".to_owned()]).unwrap();
    let both = made.cert.pem() + &made.signing_key.serialize_pem();
    for name in ["gateway.pem", "gateway.example.com.pem"] {
        std::fs::write(folder.path().join(name), &both).unwrap();
    }
    // The names are the reader's to choose, and nobody knows them here.
    let shipped = deployed("front/haproxy.cfg")
        .replace("gateway-1:", "127.0.0.1:")
        .replace("gateway-2:", "127.0.0.2:")
        .replace("/etc/haproxy", &folder.path().display().to_string());
    // What is commented out has to be right too.
    let switched_on: String = shipped
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(rest) if PARTS.iter().any(|word| rest.trim_start().starts_with(word)) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(switched_on.matches(" ssl crt ").count(), 2);
    assert_eq!(switched_on.matches("\nbackend ").count(), 2);
    for text in [shipped, switched_on] {
        std::fs::write(&file, text).unwrap();
        haproxy_has_nothing_to_say(&file);
    }
}

fn haproxy_has_nothing_to_say(file: &Path) {
    let checked = Command::new(program("haproxy")).args(["-c", "-f"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && !said.contains("[WARNING]"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_a_caller_is_known_by_its_own_network_and_a_gateway_may_go() {
    let pair = GatewayPair::start().await;
    let socket = TcpListener::bind((BALANCER, 0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let config = pair.fill(&deployed("front/haproxy.cfg"));
    let health = format!("bind unix@{}/health", folder.path().display());
    // A machine for tests may allow few descriptors.
    let config = config.replace("maxconn 8000", "maxconn 100");
    let config = config.replace("bind :8080", "bind fd@3").replace("bind 127.0.0.1:8404", &health);
    std::fs::write(&file, config).unwrap();
    let script = format!("exec {} -db -f \"$0\" >/dev/null", program("haproxy"));
    let _haproxy = on_socket(&socket, &script, &file);
    let balancer = socket.local_addr().unwrap();
    known_by_network_and_nobody_else(balancer);
    nobody_notices_that_a_gateway_goes(balancer, pair);
}

/// A CA and a leaf of it for HAProxy, made as an operator makes them.
fn ca_with_leaf(folder: &Path) {
    let ca = folder.join("ca");
    let leaf = folder.join("old-hosts.pem");
    for words in [
        vec!["init".as_ref(), "--dir".as_ref(), ca.as_os_str()],
        vec![
            "leaf".as_ref(),
            "--rsa".as_ref(),
            "--dir".as_ref(),
            ca.as_os_str(),
            "--out".as_ref(),
            leaf.as_os_str(),
        ],
    ] {
        let made = Command::new(PROGRAM).arg("ca").args(words).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    std::fs::copy(ca.join("ca.pem"), folder.join("ca.pem")).unwrap();
    let weak = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = weak\n[weak]\nMinProtocol = TLSv1\nCipherString = DEFAULT@SECLEVEL=0\n";
    std::fs::write(folder.join("openssl.cnf"), weak).unwrap();
}

/// Status and TLS version of a call by curl, which trusts the CA alone and speaks this version alone; what it
/// says where it fails.
fn ask_by_tls(folder: &Path, from: IpAddr, to: SocketAddr, version: &str) -> Result<String, String> {
    let old_host = "api-proxy.aligntech.com";
    let path = ORDERS.split(' ').nth(1).unwrap();
    let asked = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code}", "--interface", &from.to_string()])
        .args([&*format!("--tlsv{version}"), "--tls-max", version, "--cacert"])
        .arg(folder.join("ca.pem"))
        .args(["--resolve", &format!("{old_host}:{}:{}", to.port(), to.ip())])
        .arg(format!("https://{old_host}:{}{path}", to.port()))
        .env("OPENSSL_CONF", folder.join("openssl.cnf"))
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if asked.status.success() { Ok(said(&asked.stdout)) } else { Err(said(&asked.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_a_caller_below_tls_1_2_is_served_and_known_by_its_own_network() {
    let pair = GatewayPair::start().await;
    let data = pair.gateways[0].0.data;
    let folder = tempfile::tempdir().unwrap();
    ca_with_leaf(folder.path());
    let shipped = deployed("front/haproxy-old-tls.cfg")
        .replace("/etc/haproxy", &folder.path().display().to_string())
        .replace("maxconn 4000", "maxconn 100")
        .replace("127.0.0.1:8080", &data.to_string());
    assert!(shipped.contains(&format!("server gateway-1 {data} ")), "{shipped}");
    let file = folder.path().join("haproxy.cfg");
    let over_a_network: String = shipped
        .lines()
        .filter(|line| !line.contains(&data.to_string()))
        .map(|line| line.replace("# server gateway-1 gateway-1:443", "server gateway-1 127.0.0.1:443") + "\n")
        .collect();
    assert!(
        over_a_network.contains("\n    server gateway-1 127.0.0.1:443 send-proxy-v2 ssl verify required")
    );
    for text in [over_a_network, shipped.clone()] {
        std::fs::write(&file, text).unwrap();
        haproxy_has_nothing_to_say(&file);
    }

    let socket = TcpListener::bind((BALANCER, 0)).unwrap();
    // Whoever runs the tests may have no rights to give away.
    let shipped = shipped.replace("    user haproxy\n    group haproxy\n", "");
    std::fs::write(&file, shipped.replace("bind :443", "bind fd@3")).unwrap();
    let script = format!("exec {} -db -f \"$0\" >/dev/null", program("haproxy"));
    let _haproxy = on_socket(&socket, &script, &file);
    let balancer = socket.local_addr().unwrap();
    for version in ["1.0", "1.1", "1.2", "1.3"] {
        let asked = |from| ask_by_tls(folder.path(), from, balancer, version);
        assert_eq!(asked(APPLICATION), Ok("200".to_owned()), "TLS {version}");
        assert_eq!(asked(STRANGER), Ok("401".to_owned()), "TLS {version}");
    }
}

/// A complete configuration around the shipped part; it needs no rights and writes nowhere else.
fn nginx_config(folder: &Path, part: &str) -> std::path::PathBuf {
    let at = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {at}/{kind};\n"))
        .collect();
    let file = folder.join("nginx.conf");
    let config = format!(
        "daemon off;\npid {at}/nginx.pid;\nerror_log stderr warn;\nevents {{}}\nhttp {{\n    access_log off;\n{paths}{part}}}\n"
    );
    std::fs::write(&file, config).unwrap();
    file
}

#[test]
fn nginx_takes_the_configuration_without_a_remark() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind((BALANCER, 0)).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["gateway.example.com".to_owned()]).unwrap();
    for name in ["gateway.example.com", "gateway.example.internal"] {
        std::fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let part = deployed("front/nginx.conf")
        .replace("/etc/nginx/", &format!("{}/", folder.path().display()))
        .replace("listen 443", &format!("listen {}", socket.local_addr().unwrap()))
        .replace("gateway-1:", "127.0.0.1:")
        .replace("gateway-2:", "127.0.0.2:");
    let file = nginx_config(folder.path(), &part);
    let checked = Command::new(program("nginx")).args(["-t", "-c"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    // That the port is taken is of no interest to a check.
    let remarks: Vec<&str> = said.lines().filter(|line| line.contains("[warn]")).collect();
    assert!(checked.status.success() && remarks.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_a_caller_is_known_by_its_own_network_and_a_gateway_may_go() {
    let pair = GatewayPair::start().await;
    let socket = TcpListener::bind((BALANCER, 0)).unwrap();
    let balancer = socket.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // One server, plain: how TLS is ended is nginx's own business.
    let shipped = deployed("front/nginx.conf");
    let (applications, _browsers) = shipped.split_once("# Clinics' browsers").unwrap();
    let part: String = pair
        .fill(&applications.replace("listen 443 ssl", &format!("listen {balancer}")))
        .lines()
        .filter(|line| !line.trim_start().starts_with("ssl_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = nginx_config(folder.path(), &part);
    let script = format!("NGINX='3;' exec {} -c \"$0\"", program("nginx"));
    let _nginx = on_socket(&socket, &script, &file).family();
    known_by_network_and_nobody_else(balancer);
    nobody_notices_that_a_gateway_goes(balancer, pair);
}
