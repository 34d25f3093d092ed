//! Who takes part: the gateway, nginx, HAProxy, each a process of its own with a configuration from its
//! template, and the platform itself.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use genapi_gateway::clock::{Clock, Timestamp};
use genapi_gateway::model::account::AccountId;
use genapi_gateway::model::token::{AccessToken, RefreshToken};
use genapi_gateway::store::{self, NewGrant, StoredAccess, StoredRoute};
use genapi_gateway::{config, model};
use genapi_load::{IdleConnections, Usage};

use super::contest::{Rounds, Workload};
use super::disorder;
use super::platform::{self, LARGE_TOKEN, SMALL_TOKEN};
use super::stage::{BenchEnvironment, Cores, free_port};

/// What kind of program a contestant is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// No proxy: the caller speaks to the platform.
    Direct,
    /// The gateway of this build, or another one to compare with.
    Gateway(PathBuf),
    Nginx,
    Haproxy,
}

/// A contestant before it runs.
#[derive(Clone, Debug)]
pub struct Entrant {
    pub name: String,
    pub kind: Kind,
    pub workers: usize,
    pub access_log: bool,
    /// Accounts beside the two that every contestant has; the gateway alone.
    pub accounts: usize,
    /// Accounts whose token has died, and one in the slow region where there are any; the gateway alone.
    pub dying: usize,
    /// On the generator's core instead of its own.
    pub beside_generator: bool,
}

/// A contestant that runs. Dropping it ends its process.
pub struct Contestant {
    pub name: String,
    pub plain: u16,
    pub tls: u16,
    /// From its start to its first response.
    pub started_in: Duration,
    process: Option<Child>,
}

impl Entrant {
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            workers: 1,
            access_log: false,
            accounts: 0,
            dying: 0,
            beside_generator: false,
        }
    }

    /// Starts it on its core and waits until it answers.
    pub fn start(&self, stage: &BenchEnvironment) -> anyhow::Result<Contestant> {
        if self.kind == Kind::Direct {
            let port = stage.platform;
            let name = self.name.clone();
            return Ok(Contestant {
                name,
                plain: port,
                tls: port,
                started_in: Duration::ZERO,
                process: None,
            });
        }
        let folder = stage.folder.join(format!("{}-{}", self.name, free_port()?));
        std::fs::create_dir_all(&folder)?;
        for file in ["ca.pem", "cert.pem", "key.pem", "both.pem"] {
            std::fs::copy(stage.folder.join(file), folder.join(file))?;
        }
        let ports = Ports { plain: free_port()?, tls: free_port()?, admin: free_port()? };
        let mut command = self.command(stage, &folder, &ports)?;
        let log = File::create(folder.join("output.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        let process = command.spawn().with_context(|| format!("starting {}", self.name))?;
        let mut contestant = Contestant {
            name: self.name.clone(),
            plain: ports.plain,
            tls: ports.tls,
            started_in: Duration::ZERO,
            process: Some(process),
        };
        contestant.wait_until_it_listens(&folder)?;
        // A port may listen before there is anybody behind it.
        let rounds = Rounds { count: 1, warm_up: Duration::ZERO, window: Duration::ZERO };
        let plan = Workload { connections: 1, ..Workload::get("/practice-configuration") }.plan(
            &contestant,
            stage,
            rounds,
        )?;
        drop(IdleConnections::open(&plan)?);
        contestant.started_in = begun.elapsed();
        contestant.wait_until_it_rests();
        Ok(contestant)
    }

    fn command(&self, stage: &BenchEnvironment, folder: &Path, ports: &Ports) -> anyhow::Result<Command> {
        let cores = match self.workers {
            1 if self.beside_generator => &stage.cores.generator,
            1 => &stage.cores.contestant,
            _ => &stage.cores.two,
        };
        let fill = |template: &str| self.fill(template, stage, folder, ports);
        match &self.kind {
            Kind::Direct => bail!("the platform runs already"),
            Kind::Gateway(binary) => {
                let file = folder.join("config.toml");
                std::fs::write(&file, fill(include_str!("gateway.toml")))?;
                self.fill_store(stage, &file)?;
                let mut command = Cores::command(cores, binary);
                command.arg("-c").arg(file).arg("serve").env("BENCH_CLIENT_SECRET", "bench");
                Ok(command)
            }
            Kind::Nginx => {
                let file = folder.join("nginx.conf");
                std::fs::write(&file, fill(include_str!("nginx.conf")))?;
                let mut command = Cores::command(cores, &program("nginx"));
                command
                    .arg("-p")
                    .arg(folder)
                    .arg("-e")
                    .arg(folder.join("nginx-error.log"))
                    .arg("-c")
                    .arg(file);
                Ok(command)
            }
            Kind::Haproxy => {
                let file = folder.join("haproxy.cfg");
                std::fs::write(&file, fill(include_str!("haproxy.cfg")))?;
                let mut command = Cores::command(cores, &program("haproxy"));
                command.arg("-db").arg("-f").arg(file);
                command.env("BENCH_SMALL_TOKEN", platform::token("small", SMALL_TOKEN));
                command.env("BENCH_LARGE_TOKEN", platform::token("large", LARGE_TOKEN));
                Ok(command)
            }
        }
    }

    fn fill(&self, template: &str, stage: &BenchEnvironment, folder: &Path, ports: &Ports) -> String {
        let large = platform::token("large", LARGE_TOKEN);
        let log = self.access_log;
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let user = if is_root { "user root;" } else { "" };
        let nginx_log = format!("{}/access.log", folder.display());
        let access_log = match self.kind {
            Kind::Nginx => {
                if log {
                    nginx_log
                } else {
                    "off".to_owned()
                }
            }
            _ => log.to_string(),
        };
        let values = HashMap::from([
            ("WORKERS", self.workers.to_string()),
            ("FILES", super::stage::file_limit().to_string()),
            ("FOLDER", folder.display().to_string()),
            ("USER", user.to_owned()),
            ("ACCESS_LOG", access_log),
            ("LOG", if log { "log stdout format raw daemon".to_owned() } else { String::new() }),
            ("LOG_HTTP", if log { "log global\n    option httplog".to_owned() } else { String::new() }),
            ("NAME", platform::NAME.to_owned()),
            ("PLATFORM", stage.platform.to_string()),
            ("PLAIN", ports.plain.to_string()),
            ("TLS", ports.tls.to_string()),
            ("ADMIN", ports.admin.to_string()),
            ("SMALL_TOKEN", platform::token("small", SMALL_TOKEN)),
            ("LARGE_TOKEN_1", large[..3000].to_owned()),
            ("LARGE_TOKEN_2", large[3000..6000].to_owned()),
            ("LARGE_TOKEN_3", large[6000..].to_owned()),
        ]);
        let mut text = template.to_owned();
        for (name, value) in values {
            text = text.replace(&format!("@{name}@"), &value);
        }
        text
    }

    /// Puts the accounts into the gateway's store, as pairings of an hour ago would have left them.
    fn fill_store(&self, stage: &BenchEnvironment, file: &Path) -> anyhow::Result<()> {
        let environment = |name: &str| (name == "BENCH_CLIENT_SECRET").then(|| "bench".to_owned());
        let config = match config::load(file, &environment) {
            Ok(loaded) => loaded.config,
            Err(problems) => bail!("the gateway's configuration is not valid:\n{problems}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = store::open(&config.store, Clock::system()).await?;
            let clinics = (0..self.accounts).map(clinic);
            let region = (self.dying > 0).then(|| disorder::REGION.to_owned());
            let troubled = (0..self.dying).map(disorder::dying).chain(region);
            let names = ["small", "large"].map(str::to_owned).into_iter().chain(clinics).chain(troubled);
            for (number, name) in names.enumerate() {
                let size = if name == "large" { LARGE_TOKEN } else { SMALL_TOKEN };
                let port = if name == disorder::REGION { stage.region } else { stage.platform };
                store.put_grant(grant(&name, number as u64 + 1, size, port)?).await?;
            }
            store.close().await?;
            Ok(())
        })
    }
}

/// The ports on which one contestant listens.
struct Ports {
    plain: u16,
    tls: u16,
    admin: u16,
}

/// The name of the n-th of many accounts.
pub fn clinic(number: usize) -> String {
    format!("clinic-{number:05}")
}

fn grant(name: &str, id: u64, size: usize, port: u16) -> anyhow::Result<NewGrant> {
    let now = Clock::system().now();
    // Beyond the end of any contest, so that what is measured is calls.
    let expires_at = Timestamp::from_millis(now.as_millis() + 24 * 3_600_000);
    let access = StoredAccess { token: AccessToken::checked(&platform::token(name, size))?, expires_at };
    let domain = format!("https://{}:{port}", platform::NAME);
    Ok(NewGrant {
        name: name.parse()?,
        realm: "bench".parse::<model::account::RealmName>()?,
        account_id: AccountId::new(id),
        refresh: RefreshToken::checked(&platform::refresh_token(name, size))?,
        access: Some(access),
        route: Some(StoredRoute { domain, path: platform::PATH.to_owned(), discovered_at: now }),
        at: now,
        make_current: true,
        state: None,
        trial: None,
    })
}

fn program(name: &str) -> PathBuf {
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = usual.iter().map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| name.into())
}

impl Contestant {
    /// Its process and everything below it; none for the platform itself.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub fn memory(&self) -> Option<u64> {
        Usage::of_tree(self.pid()?).map(|usage| usage.resident)
    }

    /// Base URL for an application that acts for one account; the platform needs no account in its path.
    pub fn url(&self, tls: bool) -> anyhow::Result<url::Url> {
        let text = match (&self.process, tls) {
            (None, _) => format!("https://127.0.0.1:{}", self.tls),
            (Some(_), true) => format!("https://127.0.0.1:{}", self.tls),
            (Some(_), false) => format!("http://127.0.0.1:{}", self.plain),
        };
        Ok(text.parse()?)
    }

    pub fn is_direct(&self) -> bool {
        self.process.is_none()
    }

    /// What a start leaves to be done must not fall into a window.
    fn wait_until_it_rests(&self) {
        let spent = || self.pid().and_then(Usage::processor_of_tree).unwrap_or_default();
        let patience = Instant::now() + Duration::from_secs(30);
        let mut before = spent();
        while Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
            let now = spent();
            if now.saturating_sub(before) < Duration::from_millis(5) {
                return;
            }
            before = now;
        }
    }

    fn wait_until_it_listens(&mut self, folder: &Path) -> anyhow::Result<()> {
        let patience = Instant::now() + Duration::from_secs(60);
        while [self.plain, self.tls].iter().any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()) {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > patience {
                let said = std::fs::read_to_string(folder.join("output.log")).unwrap_or_default();
                bail!("{} does not start:\n{said}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Asked politely first: nginx's workers end with their master only so.
            if matches!(process.try_wait(), Ok(None)) {
                let _ = Command::new("kill").arg(process.id().to_string()).status();
            }
            let patience = Instant::now() + Duration::from_secs(3);
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
