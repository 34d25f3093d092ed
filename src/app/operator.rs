//! `accounts call`: one call of an operator through the whole request path, by a caller that exists in memory
//! only.
//!
//! It enters behind the server, so that there is no further port and nothing of the path is left out.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri, Version};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::admin::view::{CallRequest, CallResponse};
use crate::admin::{OperatorCall, OperatorCalls};
use crate::config::{self, Config};
use crate::gateway::ResponseBody;
use crate::gateway::inbound::caller::PeerInfo;
use crate::http1::{ForwardedHeaders, Headers, KnownHeader, Request, RequestBody, RequestHead, ascii_str};
use crate::model::account::AccountName;
use crate::model::endpoint::Group;
use crate::server::MakeHandler;
use crate::upstream::Stream;

use super::data_plane::{DataHandler, HandlerFactory};

/// The thread on which the operator's gateway lives.
pub struct Operator {
    handler: DataHandler,
    key: String,
}

/// What came back.
struct CallOutcome {
    status: u16,
    code: Option<String>,
    content_type: Option<String>,
    request_id: Option<String>,
    body: Vec<u8>,
    bytes: u64,
    links: u64,
}

/// No configured caller can have this name: it holds brackets.
const NAME: &str = "(operator)";
/// What is shown of a body, and searched for links.
const MAX_BODY_SHOWN: usize = 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A caller that may use every account, with a key that nobody else ever sees.
pub fn caller() -> anyhow::Result<(String, config::CallerConfig)> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("no random numbers can be had from the system")?;
    let key = URL_SAFE_NO_PAD.encode(bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    let caller = config::CallerConfig {
        name: NAME.to_owned(),
        reach: config::Reach::Everything,
        accounts: vec![config::AccountPattern::Name("*".to_owned())],
        key: Some(hash),
        networks: Vec::new(),
        certificate: None,
        facade: None,
        allow: Group::ALL.into_iter().filter(|group| group.allowed_by_default()).collect(),
        url: None,
        limit: None,
        origins: Vec::new(),
    };
    Ok((key, caller))
}

/// The configuration as the request path is to see it.
pub fn with(config: &Config, operator: config::CallerConfig) -> Config {
    let mut config = config.clone();
    config.callers.push(operator);
    config
}

impl Operator {
    /// Starts the thread; it ends when nobody can ask any more.
    pub fn start(factory: Arc<HandlerFactory>, key: String) -> anyhow::Result<OperatorCalls> {
        let (calls, received) = OperatorCalls::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            let operator = Rc::new(Self { handler: factory.make(usize::MAX), key });
            LocalSet::new().block_on(&runtime, operator.serve(received));
        };
        std::thread::Builder::new().name("operator".to_owned()).spawn(serve)?;
        Ok(calls)
    }

    async fn serve(self: Rc<Self>, mut calls: mpsc::Receiver<OperatorCall>) {
        while let Some(OperatorCall { account, call, respond }) = calls.recv().await {
            let operator = self.clone();
            tokio::task::spawn_local(async move {
                let made = tokio::time::timeout(CALL_TIMEOUT, operator.call(&account, call)).await;
                let _ = respond.send(made.unwrap_or_else(|_| Err("no answer in 120 s".to_owned())));
            });
        }
    }

    /// Makes one call as an account and reports on it. The error is a sentence for people.
    async fn call(&self, account: &AccountName, call: CallRequest) -> Result<CallResponse, String> {
        let with_body = call.with_body;
        let (head, body) = self.request(account, call)?;
        let started = Instant::now();
        let request = Request { head, body: RequestBody::from_bytes(body) };
        let outcome = read_response(self.handler.response(request, peer(), Ok(None)).await).await?;
        Ok(CallResponse {
            status: outcome.status,
            code: outcome.code,
            bytes: outcome.bytes,
            links: outcome.links,
            millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            content_type: outcome.content_type,
            request_id: outcome.request_id,
            body: with_body.then(|| String::from_utf8_lossy(&outcome.body).into_owned()),
        })
    }

    fn request(&self, account: &AccountName, call: CallRequest) -> Result<(RequestHead, Bytes), String> {
        let method = Method::from_bytes(call.method.as_bytes())
            .map_err(|_| format!("{:?} is no method", call.method))?;
        let slash = if call.path.starts_with('/') { "" } else { "/" };
        let uri = Uri::try_from(format!("/accounts/{account}{slash}{}", call.path))
            .map_err(|error| format!("that is no call that can be made: {error}"))?;
        let body = Bytes::from(call.body.unwrap_or_default());
        let length = Some(body.len().to_string()).filter(|_| !body.is_empty());
        let headers = [
            ("host", Some("gateway.internal")),
            ("x-gateway-key", Some(&*self.key)),
            ("content-type", call.content_type.as_deref()),
            ("content-length", length.as_deref()),
        ];
        let headers =
            Headers::from_pairs(headers.into_iter().filter_map(|(name, value)| Some((name, value?))))
                .map_err(|_| "that is no call that can be made: its content type is none".to_owned())?;
        Ok((RequestHead { method, uri, version: Version::HTTP_11, headers }, body))
    }
}

fn peer() -> PeerInfo {
    PeerInfo {
        addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
        via_trusted_proxy: false,
        certificate: None,
        secure: true,
    }
}

async fn read_response(response: Response<ResponseBody<Stream>>) -> Result<CallOutcome, String> {
    let (head, mut body) = response.into_parts();
    // Those of the platform come with the body, our own in the head.
    let value = |name: KnownHeader| {
        let passed = body.forwarded_headers().and_then(|headers| headers.get(name));
        let value = passed.or_else(|| head.headers.get(name.as_str()).map(HeaderValue::as_bytes));
        value.and_then(ascii_str).map(str::to_owned)
    };
    let mut seen = CallOutcome {
        status: head.status.as_u16(),
        code: None,
        content_type: value(KnownHeader::ContentType),
        request_id: value(KnownHeader::XRequestId),
        body: Vec::new(),
        bytes: 0,
        links: 0,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| format!("status {}, then the answer broke off", seen.status))?;
        let Some(data) = frame.data_ref() else { continue };
        seen.bytes += data.len() as u64;
        let room = MAX_BODY_SHOWN.saturating_sub(seen.body.len()).min(data.len());
        seen.body.extend_from_slice(&data[..room]);
    }
    if head.headers.contains_key("proxy-status") {
        seen.code = code_of(&seen.body);
    }
    seen.links = links_in(&seen.body);
    Ok(seen)
}

/// The gateway's own code in a refusal.
fn code_of(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    problem["code"].as_str().map(str::to_owned)
}

fn links_in(body: &[u8]) -> u64 {
    let count = |needle: &[u8]| memchr::memmem::find_iter(body, needle).count() as u64;
    count(b"\"http://") + count(b"\"https://") + count(b"\"http:\\/\\/") + count(b"\"https:\\/\\/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_plain_and_escaped() {
        let body = br#"{"a":"https://x/1","b":"http:\/\/x\/2","c":"see https in text","d":["https:\/\/x"]}"#;
        assert_eq!(links_in(body), 3);
    }
}
