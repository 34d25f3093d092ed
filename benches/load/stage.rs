//! What a contest needs before it can begin: a folder, certificates, the platform's process, free ports, and
//! which core is whose.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

use super::platform;

/// Everything that all contestants share. Dropping it ends the platform and removes the folder.
pub struct BenchEnvironment {
    pub folder: PathBuf,
    pub platform: u16,
    /// Where the platform's slow region listens.
    pub region: u16,
    pub trust: Arc<rustls::ClientConfig>,
    pub cores: Cores,
    keep: bool,
    process: Child,
}

/// As `taskset -c` takes them. With two cores the generator and the platform share one, and the contestant
/// has the other to itself.
#[derive(Clone)]
pub struct Cores {
    pub contestant: String,
    pub two: String,
    pub platform: String,
    pub generator: String,
}

/// Files that a process may open: ten thousand idle connections are to fit.
const FILES: u64 = 40_000;
const STAGED: &str = "GENAPI_BENCH_STAGED";
/// Given to the re-executed bench that plays the platform.
pub const PLAY_PLATFORM: &str = "--play-platform";

/// Starts this program again with more files and on its own core: both
/// are inherited, and set without unsafe code.
pub fn settle() -> anyhow::Result<()> {
    if std::env::var_os(STAGED).is_some() {
        return Ok(());
    }
    use std::os::unix::process::CommandExt;
    let core = Cores::here().generator;
    let pin = if has_program("taskset") { format!("taskset -c {core}") } else { String::new() };
    let script = format!("ulimit -n {FILES} 2>/dev/null; exec {pin} \"$0\" \"$@\"");
    let error = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(STAGED, Cores::here().text())
        .exec();
    Err(anyhow!("cannot start again: {error}"))
}

pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where an unprivileged PATH does not look.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// How many files this process may open.
pub fn file_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}

impl Cores {
    /// As they were found before this process was pinned to its own.
    fn inherited() -> Self {
        let text = std::env::var(STAGED).unwrap_or_default();
        match text.split(' ').collect::<Vec<_>>()[..] {
            [contestant, two, platform, generator] => Self::of([contestant, two, platform, generator]),
            _ => Self::here(),
        }
    }

    fn of([contestant, two, platform, generator]: [&str; 4]) -> Self {
        Self {
            contestant: contestant.to_owned(),
            two: two.to_owned(),
            platform: platform.to_owned(),
            generator: generator.to_owned(),
        }
    }

    fn text(&self) -> String {
        [&*self.contestant, &self.two, &self.platform, &self.generator].join(" ")
    }

    fn here() -> Self {
        match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => Self::of(["0", "0", "0", "0"]),
            2 => Self::of(["0", "0,1", "1", "1"]),
            3 => Self::of(["0", "0,1", "1", "2"]),
            _ => Self::of(["0", "0,1", "2", "3"]),
        }
    }

    /// A command that runs on these cores and is killed should this process die before it can end it.
    pub fn command(cores: &str, program: &Path) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if has_program("setpriv") {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(Into::into));
        }
        if has_program("taskset") {
            words.extend(["taskset", "-c", cores].map(Into::into));
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

impl BenchEnvironment {
    pub fn set_up(keep: bool) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("genapi-bench-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let trust = certificates(&folder)?;
        let cores = Cores::inherited();
        let mut process = Cores::command(&cores.platform, &std::env::current_exe()?)
            .arg(PLAY_PLATFORM)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the platform")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
        let ports = line.trim().split_once(' ').context("the platform did not say its ports")?;
        let (platform, region) = (ports.0.parse()?, ports.1.parse()?);
        Ok(Self { folder, platform, region, trust, cores, keep, process })
    }

    /// The platform's count of how many requests came, and how many of them were not what the bench sends.
    pub fn counters(&self) -> anyhow::Result<serde_json::Value> {
        use std::io::{Read, Write};
        let tcp = std::net::TcpStream::connect(("127.0.0.1", self.platform))?;
        let name = platform::NAME.try_into()?;
        let session = rustls::ClientConnection::new(self.trust.clone(), name)?;
        let mut stream = rustls::StreamOwned::new(session, tcp);
        stream.write_all(b"GET /bench/counters HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let mut response = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk)?;
            response.extend_from_slice(&chunk[..count]);
            if let Some(at) = response.iter().position(|byte| *byte == b'{')
                && (response.ends_with(b"}") || count == 0)
            {
                return Ok(serde_json::from_slice(&response[at..])?);
            }
        }
    }

    /// Requests that were not what they should have been.
    pub fn wrong(&self) -> anyhow::Result<u64> {
        Ok(self.counters()?["wrong"].as_u64().unwrap_or(0))
    }
}

impl Drop for BenchEnvironment {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One authority and one certificate, for the platform and for every contestant's own listener.
fn certificates(folder: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Subject and issuer must differ, or OpenSSL takes the certificate for self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = [platform::NAME, "localhost", "127.0.0.1"].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    std::fs::write(folder.join("ca.pem"), authority.pem())?;
    std::fs::write(folder.join("cert.pem"), certificate.pem())?;
    write_private(&folder.join("key.pem"), &key.serialize_pem())?;
    write_private(&folder.join("both.pem"), &(certificate.pem() + &key.serialize_pem()))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}
