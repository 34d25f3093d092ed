//! A stand-in for the platform that costs next to nothing, so that the contestants are what is measured. It
//! runs as a process of its own, speaks HTTP/1.1 over TLS, and checks method, path and bearer of every
//! request: a wrong one is answered 500 and counted.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memmem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::disorder::{self, FaultState};

/// The name under which it is reached; contestants are told its address.
pub const NAME: &str = "platform.bench.test";
/// The vendor's Path as discovery returns it (gen-api, section 3).
pub const PATH: &str = "/itero-gen-api/v2";
pub const LINKS: usize = 400;
pub const LIST_BYTES: usize = 200 * 1024;
pub const SMALL_BYTES: usize = 512;
/// A list of a few orders without a link.
pub const SMALL_LIST_BYTES: usize = 1200;
pub const ASSET_BYTES: u64 = 100 * 1024 * 1024;
pub const POST_BYTES: usize = 2048;
/// Token sizes: usual, and the largest that the vendor's documents allow.
pub const SMALL_TOKEN: usize = 1536;
pub const LARGE_TOKEN: usize = 8192;

const FILLER: &[u8] = &[b'x'; LARGE_TOKEN];

/// The access token of an account: its name, filled up to the size.
pub fn token(account: &str, size: usize) -> String {
    let begin = format!("bench.{account}.");
    let filler = "x".repeat(size - begin.len());
    begin + &filler
}

/// What a refresh token looks like; it tells the token endpoint all it needs to know.
pub fn refresh_token(account: &str, size: usize) -> String {
    format!("refresh.{size}.{account}")
}

/// Serves until its standard input ends, so that it never outlives the bench. Prints its ports first.
pub fn serve(folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    runtime.block_on(async {
        let acceptor = acceptor(folder)?;
        let (listener, region) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let port = listener.local_addr()?.port();
        println!("{port} {}", region.local_addr()?.port());
        std::io::stdout().flush()?;
        let responses = Arc::new(RenderedResponses::new(port));
        let slow = listen(region, acceptor.clone(), responses.clone(), true);
        tokio::try_join!(listen(listener, acceptor, responses, false), slow)?;
        Ok(())
    })
}

async fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    responses: Arc<RenderedResponses>,
    slow: bool,
) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, responses) = (acceptor.clone(), responses.clone());
        tokio::spawn(async move {
            if slow {
                tokio::time::sleep(responses.disorder.slowness()).await;
            }
            if let Ok(stream) = acceptor.accept(stream).await {
                // However a connection ends, it is the caller's affair.
                let _ = converse(stream, &responses).await;
            }
        });
    }
}

fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Responses rendered once.
struct RenderedResponses {
    domain: String,
    small: Vec<u8>,
    list: Vec<u8>,
    /// The order list as a row that carries no links, to tell what rewriting costs.
    plain_list: Vec<u8>,
    small_list: Vec<u8>,
    stored: Vec<u8>,
    requests: AtomicU64,
    wrong: AtomicU64,
    refreshes: AtomicU64,
    disorder: FaultState,
}

/// What the platform responds.
enum Response<'a> {
    Made(&'a [u8]),
    Now(Vec<u8>),
    Late(Duration, Vec<u8>),
    /// And then nothing.
    Half(&'a [u8]),
    Asset,
}

/// A request's head, as far as it is looked at.
struct Request<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    bearer: &'a [u8],
    body: &'a [u8],
}

impl RenderedResponses {
    fn new(port: u16) -> Self {
        let domain = format!("https://{NAME}:{port}");
        let list = order_list(&domain);
        Self {
            small: response(200, "application/json", &small_json()),
            plain_list: response(200, "application/json", &list),
            list: response(200, "application/json", &list),
            small_list: response(200, "application/json", &small_list()),
            stored: response(200, "application/json", br#"{"Data":[],"Status":1,"Errors":[]}"#),
            domain,
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
            disorder: FaultState::default(),
        }
    }

    fn to(&self, request: &Request) -> Response<'_> {
        if request.path == b"/bench/counters" {
            return self.counters();
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if request.path == b"/oauth2/token" && request.method == b"POST" {
            return self.token(request);
        }
        let Some(account) = account_of(request.bearer) else { return self.wrong() };
        // A call that names its account tells whether the bearer is that account's.
        if let Some(named) = parameter(request.query, b"for=")
            && named != account
        {
            return self.wrong();
        }
        if request.path.ends_with(b"/api-discovery-by-name-and-version") {
            let apis = format!(
                r#"{{"APIs":[{{"Name":"third-party","Version":"2","Path":"{PATH}","Domain":"{}"}}]}}"#,
                self.domain
            );
            return Response::Now(response(200, "application/json", apis.as_bytes()));
        }
        let Some(path) = request.path.strip_prefix(PATH.as_bytes()) else { return self.wrong() };
        if let Some(ordered) = parameter(request.query, b"trouble=")
            && let Some(response) = self.trouble(ordered, account)
        {
            return response;
        }
        match (request.method, path) {
            (b"GET", b"/practice-configuration" | b"/orders/lab")
                if parameter(request.query, b"as=") == Some(b"small-list") =>
            {
                Response::Made(&self.small_list)
            }
            (b"GET", b"/practice-configuration") if parameter(request.query, b"as=").is_some() => {
                Response::Made(&self.plain_list)
            }
            (b"GET", b"/practice-configuration") => Response::Made(&self.small),
            (b"GET", b"/orders/lab") => Response::Made(&self.list),
            (b"GET", b"/order/1/download/IDE") => Response::Asset,
            (b"POST", b"/patient/search") if request.body.len() == POST_BYTES => Response::Made(&self.stored),
            _ => self.wrong(),
        }
    }

    fn wrong(&self) -> Response<'_> {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        Response::Now(response(500, "text/plain", b"not what the bench sends"))
    }

    /// What a call has ordered: one of its kinds, or now and then an error.
    fn trouble(&self, ordered: &[u8], account: &[u8]) -> Option<Response<'_>> {
        match ordered {
            b"slow" => Some(Response::Late(self.disorder.slowness(), self.small.clone())),
            b"half-head" => Some(Response::Half(&self.small[..self.small.len() - SMALL_BYTES - 20])),
            b"half-body" => Some(Response::Half(&self.small[..self.small.len() - SMALL_BYTES / 2])),
            b"dead" => (!self.disorder.lives(account)).then(|| ordered_error(401)),
            _ => self.disorder.error().map(ordered_error),
        }
    }

    fn token(&self, request: &Request) -> Response<'_> {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        let form: HashMap<_, _> = form_urlencoded::parse(request.body).into_owned().collect();
        let refresh = form.get("refresh_token").cloned().unwrap_or_default();
        let known = refresh.strip_prefix("refresh.").and_then(|rest| rest.split_once('.'));
        let Some((size, account)) = known.and_then(|(size, name)| Some((size.parse().ok()?, name))) else {
            return self.wrong();
        };
        let access = token(account, size);
        let tokens = format!(
            r#"{{"access_token":"{access}","refresh_token":"{refresh}","scope":"openid","token_type":"Bearer","expires_in":3600}}"#
        );
        let tokens = response(200, "application/json", tokens.as_bytes());
        if disorder::is_dying(account) {
            self.disorder.revive(account);
            return Response::Late(disorder::SLOW_REFRESH, tokens);
        }
        Response::Now(tokens)
    }

    fn counters(&self) -> Response<'_> {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let text = format!(
            r#"{{"requests":{},"wrong":{},"refreshes":{},"stalled":{}}}"#,
            read(&self.requests),
            read(&self.wrong),
            read(&self.refreshes),
            read(&self.disorder.stalled)
        );
        Response::Now(response(200, "application/json", text.as_bytes()))
    }
}

fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("");
    let mut text = format!(
        "HTTP/1.1 {status} {reason}\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Type: {content_type}\r\nX-Sandbox: genapi-gateway\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    text
}

fn ordered_error(status: u16) -> Response<'static> {
    Response::Now(response(status, "application/json", b"{\"Errors\":[\"ordered\"]}"))
}

fn small_json() -> Vec<u8> {
    let (begin, end) = (r#"{"Data":{"Name":""#, r#""},"Status":1}"#);
    format!("{begin}{}{end}", "n".repeat(SMALL_BYTES - begin.len() - end.len())).into_bytes()
}

/// As long as promised; what could be the beginning of a link never is.
fn small_list() -> Vec<u8> {
    let order = r#"{"OrderId":1,"Patient":"x","Status":"http","Notes":"/itero"},"#;
    let mut text = String::from("[");
    while text.len() + order.len() + 2 < SMALL_LIST_BYTES {
        text += order;
    }
    let (begin, end) = (r#"""#, r#""]"#);
    let filler = SMALL_LIST_BYTES - text.len() - begin.len() - end.len();
    (text + begin + &"n".repeat(filler) + end).into_bytes()
}

/// As long as promised, with a link in each order.
fn order_list(domain: &str) -> Vec<u8> {
    let each = LIST_BYTES / LINKS;
    let mut text = String::from("[");
    for number in 0..LINKS {
        let link = format!("{domain}{PATH}/order/{number}/download/IDE");
        let begin = format!(r#"{{"OrderId":{number},"URL":"{link}","Notes":""#);
        // One byte less in the first, for the bracket before it.
        let filler = each - begin.len() - 3 - usize::from(number == 0);
        text += &begin;
        text.extend(std::iter::repeat_n('n', filler));
        text += if number + 1 < LINKS { "\"}," } else { "\"}]" };
    }
    text.into_bytes()
}

/// The account that a bearer of ours belongs to; every byte of it is looked at.
fn account_of(bearer: &[u8]) -> Option<&[u8]> {
    let rest = bearer.strip_prefix(b"Bearer bench.")?;
    let dot = memchr::memchr(b'.', rest)?;
    let filler = &rest[dot + 1..];
    let size = bearer.len() - b"Bearer ".len();
    let right = matches!(size, SMALL_TOKEN | LARGE_TOKEN) && filler == &FILLER[..filler.len()];
    right.then_some(&rest[..dot])
}

fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|part| part.strip_prefix(name))
}

async fn converse(mut stream: TlsStream<TcpStream>, responses: &RenderedResponses) -> std::io::Result<()> {
    let mut read = Vec::with_capacity(32 * 1024);
    loop {
        let end = loop {
            if let Some(end) = memmem::find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            if read.len() > 256 * 1024 || stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let length = field(&read[..end], b"content-length")
            .and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok())
            .unwrap_or(0);
        while read.len() < end + length {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let Some(request) = parse(&read[..end], &read[end..end + length]) else { return Ok(()) };
        match responses.to(&request) {
            Response::Made(bytes) => stream.write_all(bytes).await?,
            Response::Now(bytes) => stream.write_all(&bytes).await?,
            Response::Late(delay, bytes) => {
                tokio::time::sleep(delay).await;
                stream.write_all(&bytes).await?;
            }
            Response::Half(bytes) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
                responses.disorder.stalled.fetch_add(1, Ordering::Relaxed);
                // Until the other side gives up.
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                return Ok(());
            }
            Response::Asset => send_asset(&mut stream).await?,
        }
        stream.flush().await?;
        read.drain(..end + length);
    }
}

async fn send_asset(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nX-Sandbox: genapi-gateway\r\nContent-Length: {ASSET_BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let chunk = vec![b'z'; 256 * 1024];
    let mut remaining = ASSET_BYTES;
    while remaining > 0 {
        let part = &chunk[..chunk.len().min(remaining as usize)];
        stream.write_all(part).await?;
        remaining -= part.len() as u64;
    }
    Ok(())
}

fn parse<'a>(head: &'a [u8], body: &'a [u8]) -> Option<Request<'a>> {
    let line = &head[..memchr::memchr(b'\r', head)?];
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, &[][..]),
    };
    Some(Request { method, path, query, bearer: field(head, b"authorization").unwrap_or_default(), body })
}

/// The value of the first field of this name.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let is_it = line.len() > name.len()
            && line[name.len()] == b':'
            && line[..name.len()].eq_ignore_ascii_case(name);
        is_it.then(|| line[name.len() + 1..].trim_ascii())
    })
}
