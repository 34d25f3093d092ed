//! A PostgreSQL server of a test's own. It ends with the process that started it, however that ends: a
//! watchdog waits for its pipe to close.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server and its folder, both gone with the process.
pub struct Server {
    pub folder: PathBuf,
    /// Its standard input is what the watchdog watches.
    _watchdog: Child,
}

/// The sockets' name carries it; no port is taken, so nothing can collide.
pub const PORT: &str = "5432";
pub const SUPERUSER: &str = "postgres";

/// Starts a server, says so, and ends it when the standard input does.
const POSTGRES: &str = r#"
    trap '' INT TERM HUP PIPE
    folder=$1 programs=$2
    "$programs/initdb" -D "$folder/data" -A trust -U postgres --no-sync -E UTF8 --locale=C >"$folder/log" 2>&1 &&
    "$programs/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/log" -o "-k $folder -F \
        -c full_page_writes=off -c shared_buffers=16MB -c max_connections=300 $3" start >>"$folder/log" 2>&1
    if [ $? -eq 0 ]; then echo ready; else cat "$folder/log"; fi
    exec 1>/dev/null 2>&1
    read -r _
    "$programs/pg_ctl" -D "$folder/data" -m immediate stop
    rm -rf "$folder"
"#;

impl Server {
    /// An address for the superuser.
    pub fn url(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@{folder}:{PORT}/{SUPERUSER}")
    }

    /// Ends every connection and stays away for a while. `mode`: `fast`
    /// in good order, `immediate` as after a crash.
    pub fn restart(&self, mode: &str, away: Duration) {
        // What the server was started with; every word of it is quoted.
        let options = std::fs::read_to_string(self.folder.join("data/postmaster.opts")).unwrap();
        let (_, options) = options.split_once(' ').unwrap();
        self.control(&["stop", "-m", mode]);
        std::thread::sleep(away);
        self.control(&["start", "-o", options.trim()]);
    }

    fn control(&self, words: &[&str]) {
        let done = as_somebody(&self.folder)
            .arg(programs().join("pg_ctl"))
            .args(words)
            .args(["-w", "-t", "60", "-D"])
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(self.folder.join("log"))
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "{}", std::fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }
}

/// Starts one. `settings` go to its command line, `prepare` fills its folder before.
pub fn start(settings: &str, prepare: impl FnOnce(&Path)) -> Server {
    let programs = programs();
    watched(POSTGRES, &[programs.as_os_str(), settings.as_ref()], prepare)
}

/// Runs a script that says "ready", in a folder that is its own.
pub fn watched(script: &str, arguments: &[&OsStr], prepare: impl FnOnce(&Path)) -> Server {
    let folder = tempfile::Builder::new().prefix("gapi-pg-").tempdir().unwrap().keep();
    prepare(&folder);
    let mut command = as_somebody(&folder);
    command.args(["sh", "-c", script, "watchdog"]).arg(&folder).args(arguments);
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut watchdog = command.spawn().expect("setpriv (util-linux) starts the server's watchdog");
    let said: Vec<String> = BufReader::new(watchdog.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .scan(false, |ended, line| {
            let go_on = !std::mem::replace(ended, line == "ready");
            go_on.then_some(line)
        })
        .collect();
    assert_eq!(said.last().map(String::as_str), Some("ready"), "the server did not start: {said:#?}");
    Server { folder, _watchdog: watchdog }
}

/// PostgreSQL does not run as root.
fn as_somebody(folder: &Path) -> Command {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new("env");
    }
    let given = Command::new("chown").args(["-R", "postgres:postgres"]).arg(folder).status().unwrap();
    assert!(given.success(), "the user postgres exists where Debian's package is installed");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("these tests need PostgreSQL's programs: apt-get install postgresql")
}
