//! The OAuth libraries: which program is written with each, and what runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An OAuth library that others wrote, and the application that is written with it.
pub struct Library {
    pub name: &'static str,
    program: &'static str,
}

pub const AUTHLIB: Library = Library { name: "Authlib", program: "authlib_application.py" };
pub const REQUESTS_OAUTHLIB: Library =
    Library { name: "requests-oauthlib", program: "requests_oauthlib_application.py" };
pub const OAUTH4WEBAPI: Library = Library { name: "oauth4webapi", program: "oauth4webapi_application.mjs" };
pub const SIMPLE_OAUTH2: Library =
    Library { name: "simple-oauth2", program: "simple_oauth2_application.mjs" };
pub const GOOGLE_JAVA: Library =
    Library { name: "Google's OAuth client for Java", program: "GoogleOAuthApplication.java" };

pub const ALL: [&Library; 5] = [&AUTHLIB, &REQUESTS_OAUTHLIB, &OAUTH4WEBAPI, &SIMPLE_OAUTH2, &GOOGLE_JAVA];

/// Of Debian's libgoogle-oauth-client-java and what that depends on.
const JARS: [&str; 8] = [
    "google-oauth-client",
    "google-http-client",
    "google-http-client-gson",
    "gson",
    "guava",
    "opencensus-api",
    "opencensus-contrib-http-util",
    "grpc-context",
];

impl Library {
    /// What starts the application, in `folder`, where what it needs beside it is put.
    pub fn command(&self, folder: &Path) -> Command {
        let program = programs().join(self.program);
        let mut command = match program.extension().and_then(|ending| ending.to_str()) {
            Some("py") => Command::new(installed().join("bin/python")),
            Some("mjs") => {
                // Node looks for packages beside the program and above it, and nowhere else.
                for file in ["node_application.mjs", self.program] {
                    std::fs::copy(programs().join(file), folder.join(file)).unwrap();
                }
                std::os::unix::fs::symlink(installed().join("node_modules"), folder.join("node_modules"))
                    .unwrap();
                let mut node = Command::new("node");
                node.arg(folder.join(self.program));
                return node;
            }
            _ => {
                let mut java = Command::new("java");
                java.arg("-cp").arg(class_path());
                java
            }
        };
        command.arg(program);
        command
    }
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oauth_libraries/programs")
}

/// Where `run.sh` has installed the libraries.
fn installed() -> PathBuf {
    let folder = std::env::var_os("OAUTH_LIBRARIES");
    folder.expect("OAUTH_LIBRARIES is not set: sh tests/oauth_libraries/run.sh installs and sets it").into()
}

fn class_path() -> OsString {
    let jars = JARS.map(|jar| {
        let path = format!("/usr/share/java/{jar}.jar");
        assert!(Path::new(&path).is_file(), "{path} is missing: apt-get install libgoogle-oauth-client-java");
        path
    });
    jars.join(":").into()
}
