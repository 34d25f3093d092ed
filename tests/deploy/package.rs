//! The Debian package is built, judged by lintian, and goes through its life in a root of its own: installed,
//! configured, upgraded, removed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use genapi_gateway::cli::Arguments;

use crate::process::{PROGRAM, output};
use crate::{project, write_secret};

/// Built from the program under test, and quickly: packing it tight is for releases.
fn build(folder: &Path, revision: &str, compression: &str) -> PathBuf {
    let script = project().join("deploy/debian/build.sh");
    let mut build = Command::new("sh");
    build
        .arg(script)
        .arg(PROGRAM)
        .arg(folder)
        .env("DEB_COMPRESSION", compression)
        .env("DEB_REVISION", revision);
    PathBuf::from(output(&mut build).trim())
}

fn field(package: &Path, name: &str) -> String {
    output(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

/// A machine's worth of folders without the machine. Files look owned by root, whoever runs the test.
struct InstallRoot(tempfile::TempDir);

impl InstallRoot {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "root"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The maintainer scripts run too, told by DPKG_ROOT where. What the package depends on is not there and
    /// is not asked for.
    fn dpkg(&self, arguments: &[&str]) -> String {
        let mut dpkg = Command::new("fakeroot");
        dpkg.arg("dpkg").arg("--root").arg(self.0.path());
        dpkg.args(["--force-script-chrootless", "--force-depends", "--force-confold", "--log=/dev/null"]);
        output(dpkg.args(arguments))
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

#[test]
fn the_package_says_what_it_is_and_lintian_has_nothing_to_say_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path(), "1", "gzip");
    assert_eq!(field(&package, "Package"), "genapi-gateway");
    assert_eq!(field(&package, "Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        field(&package, "Architecture"),
        output(Command::new("dpkg").arg("--print-architecture")).trim()
    );
    let depends = field(&package, "Depends");
    for needed in ["libc6 (>= 2.", "ca-certificates", "systemd-sysusers"] {
        assert!(depends.contains(needed), "{depends}");
    }
    let mut lintian = Command::new("lintian");
    let said = output(lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(&package));
    assert_eq!(said, "");
}

#[test]
fn the_package_holds_what_a_stranger_needs_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path(), "1", "none");
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let mut files = BTreeSet::new();
    for line in listed.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(columns[1], "root/root", "{line}");
        if !columns[0].starts_with('d') {
            files.insert(format!("{} {}", columns[0], columns[5].trim_start_matches('.')));
        }
    }
    let expected = [
        "-rw-r--r-- /etc/genapi-gateway/config.toml",
        "-rw-r--r-- /usr/lib/systemd/system/genapi-gateway.service",
        "-rw-r--r-- /usr/lib/systemd/system/genapi-gateway.socket",
        "-rw-r--r-- /usr/lib/sysusers.d/genapi-gateway.conf",
        "-rw-r--r-- /usr/share/bash-completion/completions/genapi-gateway",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/README.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/changelog.Debian.gz",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/changelog.gz",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/config.toml.example",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/copyright",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/deployment.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/examples/haproxy-old-tls.cfg",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/examples/haproxy.cfg",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/examples/nginx.conf",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/hosts.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/migrate.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/operations.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/refusals.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/signals.md",
        "-rw-r--r-- /usr/share/doc/genapi-gateway/store.md",
        "-rw-r--r-- /usr/share/fish/vendor_completions.d/genapi-gateway.fish",
        "-rw-r--r-- /usr/share/lintian/overrides/genapi-gateway",
        "-rw-r--r-- /usr/share/man/man8/genapi-gateway.8.gz",
        "-rw-r--r-- /usr/share/zsh/vendor-completions/_genapi-gateway",
        "-rwxr-xr-x /usr/bin/genapi-gateway",
    ];
    assert_eq!(files, expected.map(str::to_owned).into());
}

#[test]
fn installed_upgraded_and_purged_it_keeps_what_was_written_into_it_and_the_accounts_logins() {
    let folder = tempfile::tempdir().unwrap();
    let root = InstallRoot::new();
    let said = root.dpkg(&["--install", &build(folder.path(), "1", "none").display().to_string()]);
    assert!(said.contains("installed and not started yet"), "{said}");
    assert!(root.text("var/lib/dpkg/status").contains("Status: install ok installed"));
    let user = root.text("etc/passwd");
    assert!(user.starts_with("genapi-gateway:x:") && user.contains(":/var/lib/genapi-gateway:"), "{user}");
    let version = output(Command::new(root.at("usr/bin/genapi-gateway")).arg("--version"));
    assert_eq!(version.trim(), format!("genapi-gateway {}", env!("CARGO_PKG_VERSION")));
    let credentials = root.at("etc/genapi-gateway/credentials");
    assert_eq!(std::fs::metadata(&credentials).unwrap().permissions().mode() & 0o777, 0o700);

    // As an administrator and a running gateway leave it.
    write_secret(&credentials.join("client.secret"), "s3cret\n");
    let written =
        root.text("etc/genapi-gateway/config.toml").replace("your-client-id", "the-client-id-of-a-vendor");
    std::fs::write(root.at("etc/genapi-gateway/config.toml"), &written).unwrap();
    std::fs::create_dir_all(root.at("var/lib/genapi-gateway")).unwrap();
    write_secret(&root.at("var/lib/genapi-gateway/gateway.db"), "logins");

    let said = root.dpkg(&["--install", &build(folder.path(), "2", "none").display().to_string()]);
    assert!(!said.contains("not started yet"), "{said}");
    assert!(root.text("var/lib/dpkg/status").contains(&format!("Version: {}-2", env!("CARGO_PKG_VERSION"))));
    assert_eq!(root.text("etc/genapi-gateway/config.toml"), written);

    root.dpkg(&["--remove", "genapi-gateway"]);
    assert!(!root.at("usr/bin/genapi-gateway").exists());
    assert_eq!(root.text("etc/genapi-gateway/config.toml"), written, "for when it comes back");
    let said = root.dpkg(&["--purge", "genapi-gateway"]);
    assert!(!root.at("etc/genapi-gateway").exists(), "the secret goes with the rest");
    assert_eq!(root.text("var/lib/genapi-gateway/gateway.db"), "logins");
    assert!(said.contains("/var/lib/genapi-gateway is kept"), "{said}");
}

#[test]
fn a_binary_that_is_not_there_is_named() {
    let script = project().join("deploy/debian/build.sh");
    let built = Command::new("sh").arg(script).arg("target/nothing").output().unwrap();
    assert_eq!(built.status.code(), Some(1));
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(said.contains("target/nothing is no program; build it: cargo build"), "{said}");
}

#[test]
fn the_manual_page_names_every_command() {
    let page = std::fs::read_to_string(project().join("deploy/debian/genapi-gateway.8")).unwrap();
    let app = Arguments::command();
    let mut commands = 0;
    for command in app.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        let named = page.lines().any(|line| {
            let mut words = line.split_whitespace();
            let bold = matches!(words.next(), Some(".B" | ".BR" | ".BI"));
            bold && words.next() == Some(name)
        });
        assert!(named, "{name} is not in the page");
        commands += 1;
    }
    assert!(commands > 5);
    let mut man = Command::new("man");
    let rendered =
        output(man.args(["--warnings", "-l"]).arg(project().join("deploy/debian/genapi-gateway.8")));
    assert!(rendered.contains("EXIT STATUS"), "{rendered}");
}
