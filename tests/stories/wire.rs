//! HTTP as bytes, both ways: a legacy program's odd spellings go out as
//! they are, and nothing of a response is tidied up.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::test_bed::TestBed;

/// A response with its head as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub status_line: String,
    /// Order and letter case as they came.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// One connection to a listener that speaks plain HTTP.
pub struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

/// No response takes longer in a test that is right.
const PATIENCE: Duration = Duration::from_secs(30);

impl Raw {
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let fits = |(given, _): &&(String, String)| given.eq_ignore_ascii_case(name);
        self.headers.iter().filter(fits).map(|(_, value)| value.as_str()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The head without the named fields, each as one line, sorted.
    pub fn head_without(&self, names: &[&str]) -> Vec<String> {
        let stays = |(name, _): &&(String, String)| !names.iter().any(|gone| name.eq_ignore_ascii_case(gone));
        let mut lines: Vec<_> =
            self.headers.iter().filter(stays).map(|(name, value)| format!("{name}: {value}")).collect();
        lines.sort();
        lines
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Line {
    /// Ends the connection by a reset, as a program does that is killed or gives up with data unread. A mere
    /// end of what the caller sends is no hang-up: it may wait for its response (RFC 9112, 9.6).
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// `origin`: `http://127.0.0.1:1234`
    pub async fn to(origin: &str) -> Self {
        let stream = TcpStream::connect(origin.trim_start_matches("http://")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads one response. `head_only`: it is the response to a HEAD. `Err` holds what came before the
    /// connection broke.
    pub async fn response(&mut self, head_only: bool) -> Result<Raw, Raw> {
        tokio::time::timeout(PATIENCE, self.read_response(head_only)).await.expect("an answer in time")
    }

    /// Whether the other side has closed, with nothing more to read.
    pub async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.more()).await;
        self.read.is_empty() && matches!(read, Ok(false))
    }

    async fn read_response(&mut self, head_only: bool) -> Result<Raw, Raw> {
        let (status_line, headers) = self.head().await?;
        let mut raw = Raw { status_line, headers, body: Bytes::new() };
        if head_only || matches!(raw.status(), 100..=199 | 204 | 304) {
            return Ok(raw);
        }
        let chunked = raw.header("transfer-encoding").is_some();
        let length = raw.header("content-length").map(|length| length.parse::<usize>().unwrap());
        let (body, complete) = match (chunked, length) {
            (true, _) => self.chunks().await,
            (false, Some(length)) => self.exactly(length).await,
            (false, None) => (self.rest().await, true),
        };
        raw.body = body.into();
        if complete { Ok(raw) } else { Err(raw) }
    }

    async fn head(&mut self) -> Result<(String, Vec<(String, String)>), Raw> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
                self.read.drain(..end + 4);
                let mut lines = head.split("\r\n");
                let status_line = lines.next().unwrap().to_owned();
                let field = |line: &str| {
                    let (name, value) = line.split_once(':').unwrap();
                    (name.to_owned(), value.trim().to_owned())
                };
                return Ok((status_line, lines.map(field).collect()));
            }
            if !self.more().await {
                let body = std::mem::take(&mut self.read).into();
                return Err(Raw { status_line: String::new(), headers: Vec::new(), body });
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.read.len() < length {
            if !self.more().await {
                return (std::mem::take(&mut self.read), false);
            }
        }
        (self.read.drain(..length).collect(), true)
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, false) };
            let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
            let (mut chunk, complete) = self.exactly(size + 2).await;
            if !complete {
                body.append(&mut chunk);
                return (body, false);
            }
            if size == 0 {
                return (body, true);
            }
            chunk.truncate(size);
            body.append(&mut chunk);
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8(self.read[..end].to_vec()).unwrap();
                self.read.drain(..end + 2);
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// False at the connection's end, orderly or not.
    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.read.extend_from_slice(&chunk[..count]);
                true
            }
        }
    }
}

/// One request on a connection of its own.
pub async fn exchange(origin: &str, request: impl AsRef<[u8]>) -> Raw {
    let request = request.as_ref();
    let mut line = Line::to(origin).await;
    line.send(request).await;
    line.response(request.starts_with(b"HEAD ")).await.unwrap_or_else(|cut| panic!("cut short: {cut:?}"))
}

impl TestBed {
    /// A request to the gateway: request line and fields are given without Host and key, which are added
    /// behind the request line.
    pub async fn raw(&self, head: &str, body: impl AsRef<[u8]>) -> Raw {
        exchange(&self.gateway, self.request(head, body)).await
    }

    pub fn request(&self, head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        let (request_line, fields) = head.split_once('\n').unwrap_or((head, ""));
        let fields: String = fields.lines().map(|line| format!("{}\r\n", line.trim_start())).collect();
        let key = &self.key;
        let mut bytes =
            format!("{request_line} HTTP/1.1\r\nHost: gateway.test\r\nX-Gateway-Key: {key}\r\n{fields}\r\n")
                .into_bytes();
        bytes.extend_from_slice(body.as_ref());
        bytes
    }
}
