//! What the request path costs in process: each pure step alone, and link rewriting over three sizes.

use std::hint::black_box;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderValue, Method, StatusCode, Uri, Version};

use genapi_gateway::clock::Timestamp;
use genapi_gateway::config::{self, AccountPattern, Config};
use genapi_gateway::gateway::forward::headers::{self, GatewayHeaders, OutboundFraming, OutboundHead};
use genapi_gateway::gateway::forward::retry::{self, RetryContext};
use genapi_gateway::gateway::inbound::caller::{self, PeerInfo};
use genapi_gateway::gateway::inbound::target;
use genapi_gateway::gateway::inbound::token::TokenKey;
use genapi_gateway::gateway::response::links::{LinkContext, LinkMatcher, Rewriter};
use genapi_gateway::gateway::settings::{BaseUrl, GatewaySettings, RealmPolicy};
use genapi_gateway::http1::{Headers, RequestHead};
use genapi_gateway::model::endpoint::{self, Group};
use genapi_gateway::model::route::{HostPolicy, Route};
use genapi_gateway::model::token::AccessToken;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn steps(criterion: &mut Criterion) {
    let target: Uri = "/accounts/smile/itero-gen-api/v2/orders/lab?status=new".parse().unwrap();
    criterion.bench_function("locate", |bench| {
        bench.iter(|| target::parse(&Method::GET, black_box(&target), "").is_ok());
    });

    let settings = GatewaySettings::compile(&config());
    let tokens = TokenKey::new(&[1; 32]);
    let peer = |addr: IpAddr| PeerInfo { addr, via_trusted_proxy: false, certificate: None, secure: false };
    let by_key = request_head(Some(KEY));
    let by_network = request_head(None);
    for (name, head, addr) in
        [("identify/key", &by_key, [192, 0, 2, 1]), ("identify/network", &by_network, [10, 3, 0, 1])]
    {
        let peer = peer(addr.into());
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                let now = Timestamp::from_millis(0);
                caller::identify(&settings, &tokens, black_box(head), &peer, now).is_ok()
            });
        });
    }

    let context = context(&settings.retry);
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    criterion.bench_function("next_step", |bench| {
        bench.iter(|| retry::next_step(black_box(&context), Ok((failed, ()))))
    });

    header_pass(criterion, by_key);
}

fn header_pass(criterion: &mut Criterion, headers: Headers) {
    let uri = Uri::from_static("/");
    let caller = RequestHead { method: Method::GET, uri, version: Version::HTTP_11, headers };
    let token = AccessToken::new("t".repeat(1500));
    let (via, id) = (HeaderValue::from_static("1.1 genapi-gateway-a"), HeaderValue::from_static("r-1"));
    criterion.bench_function("headers/outbound", |bench| {
        bench.iter(|| {
            let gateway_headers = GatewayHeaders {
                host: HeaderValue::from_static("eu.iterocloud.com"),
                bearer: token.expose_bearer(),
                via: &via,
                request_id: &id,
                framing: OutboundFraming::AsReceived,
                links: false,
            };
            let head = OutboundHead {
                caller: black_box(&caller),
                path: ["/itero-gen-api/v2", "/orders/lab"],
                query: None,
                gateway_headers,
            };
            let mut out = Vec::with_capacity(1024);
            head.write_up_to_bearer(&mut out);
            out.len()
        });
    });
    let response = || {
        Headers::from_pairs([
            ("content-type", "application/json"),
            ("content-length", "200"),
            ("date", "Sat, 21 Nov 2026 10:00:00 GMT"),
            ("connection", "keep-alive"),
            ("cache-control", "no-cache"),
        ])
        .unwrap()
    };
    criterion.bench_function("headers/inbound", |bench| {
        bench.iter_batched(
            response,
            |mut response| headers::prepare_response(&mut response, &id),
            criterion::BatchSize::SmallInput,
        );
    });
}

fn links(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("links");
    for (name, size) in [("1KB", 1024), ("100KB", 100 * 1024), ("10MB", 10 * 1024 * 1024)] {
        let list = order_list(size);
        group.throughput(Throughput::Bytes(list.len() as u64));
        let matcher = Rc::new(LinkMatcher::new("/itero-gen-api/v2").unwrap());
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut out = Vec::with_capacity(list.len() + list.len() / 4);
                let mut rewriter = Rewriter::new(link_context(), matcher.clone());
                rewriter.pass(black_box(list.as_bytes()), &mut out);
                rewriter.finish(&mut out);
                rewriter.links()
            });
        });
    }
    group.finish();
}

/// As many orders as fit, a link in every 500 bytes.
fn order_list(size: usize) -> String {
    let order = format!(
        r#"{{"OrderId":12345678,"PatientName":"{}","Url":"https://eu.iterocloud.com/itero-gen-api/v2/order/12345678/download/IDE"}},"#,
        "x".repeat(380)
    );
    order.repeat((size / order.len()).max(1))
}

fn link_context() -> LinkContext {
    let policy = policy();
    let route = Route::parse("https://eu.iterocloud.com", "/itero-gen-api/v2", &policy).unwrap();
    let realm = RealmPolicy { hosts: policy, link_hosts: vec![], discovery: discovery() };
    let base = BaseUrl::new(&"http://gateway:8080".parse().unwrap());
    LinkContext::new(&base, &"smile".parse().unwrap(), &Arc::new(route), &Arc::new(realm))
}

fn request_head(key: Option<&[u8]>) -> Headers {
    let plain: [(&str, &[u8]); 8] = [
        ("host", b"gateway:8080"),
        ("user-agent", b"LabSync/4.2 (Windows NT 10.0)"),
        ("accept", b"application/json"),
        ("accept-encoding", b"gzip, deflate"),
        ("authorization", b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"),
        ("connection", b"keep-alive"),
        ("cache-control", b"no-cache"),
        ("cookie", b"session=abcdef"),
    ];
    Headers::from_pairs(plain.into_iter().chain(key.map(|key| ("x-gateway-key", key)))).unwrap()
}

fn context(limits: &config::RetryConfig) -> RetryContext<'_> {
    RetryContext {
        endpoint: endpoint::find(&Method::GET, "/orders/lab"),
        limits,
        retryable: true,
        replayable: true,
        attempts: 1,
        renewed: false,
        retried_transparently: false,
        elapsed: Duration::ZERO,
        budget: true,
        jitter: 0.5,
    }
}

fn policy() -> HostPolicy {
    HostPolicy { allowed: vec!["*.iterocloud.com".parse().unwrap()], allow_insecure: false }
}

fn discovery() -> config::Discovery {
    config::Discovery { path: "/d".into(), name: "third-party".into(), version: "2".into() }
}

/// A hundred callers, known by key and by network.
fn config() -> Config {
    let url = || "https://prod-iteroapi.iterocloud.com".parse().unwrap();
    let digest: [u8; 32] =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY).as_ref().try_into().unwrap();
    let caller = |n: u8| config::CallerConfig {
        reach: config::Reach::Group(None),
        limit: None,
        name: format!("caller-{n}"),
        accounts: vec![AccountPattern::Name("*".into())],
        key: Some(if n == 0 { digest } else { [n; 32] }),
        networks: vec![format!("10.{n}.0.0/16").parse().unwrap()],
        certificate: None,
        facade: None,
        origins: Vec::new(),
        allow: Group::ALL.to_vec(),
        url: None,
    };
    let mut config = Config::for_tests();
    let realm = config.realms.values_mut().next().unwrap();
    (realm.oauth_base, realm.base_url) = (url(), url());
    (realm.login_page, realm.redirect_uri) = (url(), url());
    realm.hosts = policy();
    realm.link_hosts = vec![];
    realm.discovery = discovery();
    config.gateway.url = "http://gateway:8080".parse().unwrap();
    config.callers = (0..100).map(caller).collect();
    config.log.access = true;
    config
}

criterion_group!(benches, steps, links);
criterion_main!(benches);
