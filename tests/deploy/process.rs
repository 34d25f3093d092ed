//! Real processes: gateways and the programs that stand in front of them. Whatever happens in a test, its
//! processes go with it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ready::until_ready;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_genapi-gateway");
/// For responses that come: a busy machine may take its time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ended when it is dropped.
pub struct Process {
    child: Child,
    /// Has children of its own, which a kill would leave behind.
    family: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.family && matches!(self.child.try_wait(), Ok(None)) {
            self.signal("-TERM")
        } else {
            drop(self.child.kill())
        }
        let _ = self.child.wait();
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, family: false }
    }

    pub fn family(mut self) -> Self {
        self.family = true;
        self
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its exit code, once it has ended by itself.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// `serve` that has said where it listens.
pub struct Gateway {
    pub process: Process,
    pub data: SocketAddr,
    pub admin: SocketAddr,
}

impl Gateway {
    pub fn start(command: &mut Command) -> Self {
        command.env_remove("GENAPI_GATEWAY_LOG").stderr(Stdio::piped());
        let mut process = Process::start(command);
        let ready = until_ready(&mut process.child);
        let at = |field: &str| ready[field].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        Self { process, data: at("data"), admin: at("admin") }
    }
}

/// One request on a connection of its own, sent and not yet answered.
pub struct PendingRequest(TcpStream);

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl PendingRequest {
    pub fn get(to: SocketAddr, path: &str) -> std::io::Result<Self> {
        Self::send([127, 0, 0, 1].into(), to, &format!("GET {path} HTTP/1.1"), &[], "")
    }

    /// From an address of this machine that the test chooses.
    pub fn send(
        source: IpAddr,
        to: SocketAddr,
        line: &str,
        fields: &[&str],
        body: &str,
    ) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&to.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("{line}\r\nHost: gateway.test\r\nConnection: close\r\n");
        for field in fields {
            head.push_str(&format!("{field}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        Ok(Self(stream))
    }

    pub fn response(mut self) -> std::io::Result<Response> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))?;
        Ok(Response { status, head: head.to_lowercase(), body: body.to_owned() })
    }
}

/// Runs a tool to its end. One that is missing fails the test: `sh tests/run.sh` installs it.
pub fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `sh tests/run.sh` installs what tests need"));
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{said}{complained}");
    said.into_owned()
}
