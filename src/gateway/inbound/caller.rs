//! Identifies the caller by its key, client certificate, gateway token or network, in this order. An
//! `Authorization` that is not ours is ignored, not refused: legacy applications go on sending an old bearer.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Timestamp;
use crate::http1::{DuplicateHeader, Headers, KnownHeader, ascii_str};
use crate::model::account::AccountName;

use super::token::{self, GatewayTokenError, TokenKey};
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::{CallerRules, GatewaySettings};

/// What the listener knows about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// After PROXY v2.
    pub addr: IpAddr,
    /// The direct peer is a trusted proxy.
    pub via_trusted_proxy: bool,
    /// SHA-256 of the client certificate, verified.
    pub certificate: Option<[u8; 32]>,
    /// The caller came over TLS.
    pub secure: bool,
}

/// The caller, and the account that its gateway token is bound to.
#[derive(Debug, Clone)]
pub struct AuthenticatedCaller {
    pub rules: Arc<CallerRules>,
    pub token_account: Option<AccountName>,
}

/// First match wins: X-Gateway-Key, client certificate, Authorization, network. A web page is let in by
/// X-Gateway-Key alone, which a browser adds for no page by itself, and only where the key's caller lists the
/// page's origin.
pub fn identify(
    settings: &GatewaySettings,
    tokens: &TokenKey,
    headers: &Headers,
    peer: &PeerInfo,
    now: Timestamp,
) -> Result<AuthenticatedCaller, Refusal> {
    let page = page_of(headers)?;
    let by_key = by_gateway_key(settings, headers);
    if let Some(origin) = page {
        // A page is told the same whether the key is wrong, missing, or of a caller that does not list it.
        let listed = by_key.ok().flatten().filter(|caller| caller.rules.allows_origin(origin));
        return listed.ok_or(Refusal::OriginRefused);
    }
    if let Some(caller) = by_key? {
        return Ok(caller);
    }
    if let Some(caller) = peer.certificate.and_then(|print| settings.caller_by_certificate(&print)) {
        return Ok(caller.into());
    }
    if let Some(caller) = by_authorization(settings, tokens, headers, now)? {
        return Ok(caller);
    }
    address_of(settings, headers, peer)
        .and_then(|addr| settings.caller_by_network(addr))
        .map(AuthenticatedCaller::from)
        .ok_or(Refusal::CallerUnknown("no key, certificate or network of a configured caller"))
}

/// `Bearer`, some blanks, a prefix.
const TOKEN_PREFIX_ENDS: usize = 32;

/// The bearer of a request that has the form of a login's token. Whoever sends a second `Authorization` is an
/// ordinary caller.
pub fn login_token(headers: &Headers) -> Option<&str> {
    let value = headers.get_unique(KnownHeader::Authorization).ok()??;
    bearer_with(token::LOGIN_PREFIX, value)
}

/// The gateway token that a request carries, whatever else identifies it.
pub fn gateway_token(headers: &Headers) -> Option<&str> {
    headers.all(KnownHeader::Authorization).find_map(|value| bearer_with(token::PREFIX, value))
}

fn bearer_with<'a>(prefix: &str, value: &'a [u8]) -> Option<&'a str> {
    // Every call passes here, and a platform's bearer may have 8 KiB: a glance at its beginning is enough.
    memchr::memmem::find(&value[..value.len().min(TOKEN_PREFIX_ENDS)], prefix.as_bytes())?;
    let (scheme, token) = ascii_str(value)?.trim().split_once(' ')?;
    let token = token.trim();
    (token.starts_with(prefix) && scheme.eq_ignore_ascii_case("bearer")).then_some(token)
}

/// The caller whose application has logged in, and the login. Whatever else identifies the request has to
/// agree, and the caller has to be one that still may log people in.
pub fn identify_login(
    settings: &GatewaySettings,
    tokens: &TokenKey,
    headers: &Headers,
    peer: &PeerInfo,
    now: Timestamp,
) -> Result<(Arc<CallerRules>, [u8; 32]), Refusal> {
    let token = login_token(headers).ok_or(Refusal::CallerUnknown("no login of this gateway"))?;
    let claims = tokens.verify_login(token, now).map_err(stale_token)?;
    let rules = settings.caller_by_name(&claims.caller).filter(|rules| rules.has_logins());
    let AuthenticatedCaller { rules, .. } = accept(rules.ok_or(CALLER_GONE)?.clone(), headers)?;
    let by_certificate = peer.certificate.and_then(|print| settings.caller_by_certificate(&print));
    let by_key = by_gateway_key(settings, headers)?.map(|caller| caller.rules);
    let is_other = |other: &Arc<CallerRules>| other.name != rules.name;
    if by_key.iter().chain(by_certificate).any(is_other) {
        return Err(Refusal::CallerUnknown("the key or certificate and the login are of two callers"));
    }
    Ok((rules, claims.login))
}

/// A caller that has shown who it is in another way; browsers are refused all the same.
pub fn accept(rules: Arc<CallerRules>, headers: &Headers) -> Result<AuthenticatedCaller, Refusal> {
    match page_of(headers)? {
        Some(_) => Err(Refusal::OriginRefused),
        None => Ok(AuthenticatedCaller { rules, token_account: None }),
    }
}

/// The address to judge by. Behind a trusted proxy that is the last address in X-Forwarded-For which is not
/// itself a trusted proxy; a proxy's own address identifies nobody. An address from PROXY v2 is final, so
/// that no caller can add to it.
pub fn address_of(settings: &GatewaySettings, headers: &Headers, peer: &PeerInfo) -> Option<IpAddr> {
    let addr = peer.addr.to_canonical();
    if !settings.is_trusted_proxy(addr) {
        return Some(addr);
    }
    if !peer.via_trusted_proxy {
        return None;
    }
    let lines: Vec<&str> = headers.all(KnownHeader::XForwardedFor).map(ascii_str).collect::<Option<_>>()?;
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let addr = forwarded_address(entry.trim())?;
        if !settings.is_trusted_proxy(addr) {
            return Some(addr);
        }
    }
    None
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`; anything else ends the search.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(addr, _port)| addr);
    bare.unwrap_or(entry)
        .parse()
        .or_else(|_| entry.parse().map(|socket: std::net::SocketAddr| socket.ip()))
        .ok()
        .map(|addr: IpAddr| addr.to_canonical())
}

/// The origin of the page that calls. A page in somebody's browser must not act with the rights of the
/// network it runs in. Programs send none of these headers; `Sec-Fetch-Site: none` is a person typing the
/// address.
fn page_of(headers: &Headers) -> Result<Option<&[u8]>, Refusal> {
    match headers.get_unique(KnownHeader::Origin) {
        Ok(Some(origin)) => Ok(Some(origin)),
        Ok(None) if headers.get(KnownHeader::SecFetchSite).is_none_or(|site| site == b"none") => Ok(None),
        Ok(None) | Err(DuplicateHeader) => Err(Refusal::OriginRefused),
    }
}

/// A key that is sent as ours must be right: falling back to the network would hide a typing error for years.
fn by_gateway_key(
    settings: &GatewaySettings,
    headers: &Headers,
) -> Result<Option<AuthenticatedCaller>, Refusal> {
    let key = headers.get_unique(KnownHeader::XGatewayKey);
    let key = key.map_err(|DuplicateHeader| Refusal::BadRequest("more than one X-Gateway-Key"))?;
    let Some(key) = key else { return Ok(None) };
    match settings.caller_by_key(&sha256(key)) {
        Some(caller) => Ok(Some(caller.into())),
        None => Err(Refusal::CallerUnknown("X-Gateway-Key is not the key of a configured caller")),
    }
}

fn by_authorization(
    settings: &GatewaySettings,
    tokens: &TokenKey,
    headers: &Headers,
    now: Timestamp,
) -> Result<Option<AuthenticatedCaller>, Refusal> {
    for value in headers.all(KnownHeader::Authorization) {
        let Some((scheme, credential)) = ascii_str(value).and_then(|text| text.trim().split_once(' ')) else {
            continue;
        };
        let credential = credential.trim();
        let found = if scheme.eq_ignore_ascii_case("bearer") {
            if credential.starts_with(token::PREFIX) {
                Some(by_token(settings, tokens, credential, now)?)
            } else {
                settings.caller_by_key(&sha256(credential.as_bytes())).map(AuthenticatedCaller::from)
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            by_password(settings, credential)
        } else {
            None
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A gateway token is ours, so a stale one is 401 whatever else identifies: that is what makes the
/// application refresh it.
fn by_token(
    settings: &GatewaySettings,
    tokens: &TokenKey,
    text: &str,
    now: Timestamp,
) -> Result<AuthenticatedCaller, Refusal> {
    let claims = tokens.verify(text, now).map_err(stale_token)?;
    let rules = settings.caller_by_name(&claims.caller).ok_or(CALLER_GONE)?;
    Ok(AuthenticatedCaller { rules: rules.clone(), token_account: Some(claims.account) })
}

const CALLER_GONE: Refusal = Refusal::CallerUnknown("the gateway token's caller is no longer configured");

fn stale_token(error: GatewayTokenError) -> Refusal {
    Refusal::CallerUnknown(match error {
        GatewayTokenError::Expired => "the gateway token has expired: refresh it at /oauth2/token",
        GatewayTokenError::Revoked => {
            "the gateway token's grant was revoked: the application has to get a new one"
        }
        GatewayTokenError::Forged => "the gateway token is not one of this gateway",
    })
}

fn by_password(settings: &GatewaySettings, credential: &str) -> Option<AuthenticatedCaller> {
    let decoded = STANDARD.decode(credential).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    settings.caller_by_key(&sha256(&decoded[colon + 1..])).map(AuthenticatedCaller::from)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}

impl From<&Arc<CallerRules>> for AuthenticatedCaller {
    fn from(rules: &Arc<CallerRules>) -> Self {
        Self { rules: rules.clone(), token_account: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::testing;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn settings() -> GatewaySettings {
        let mut config = testing::config();
        config.callers = vec![
            testing::caller("by-key").key(sha256(b"k3y")).build(),
            testing::caller("by-cert").certificate([9; 32]).build(),
            testing::caller("wide").network("10.0.0.0/8").build(),
            testing::caller("narrow").network("10.1.0.0/16").build(),
        ];
        config.gateway.trusted_proxies = vec!["10.9.0.0/16".parse().unwrap()];
        GatewaySettings::compile(&config)
    }

    fn from(addr: &str) -> PeerInfo {
        PeerInfo { addr: addr.parse().unwrap(), via_trusted_proxy: false, certificate: None, secure: false }
    }

    fn headers(lines: &[(&str, &str)]) -> Headers {
        Headers::from_pairs(lines.iter().copied()).unwrap()
    }

    fn who(lines: &[(&str, &str)], peer: PeerInfo) -> Result<String, &'static str> {
        identify(&settings(), &TokenKey::new(&[1; 32]), &headers(lines), &peer, NOW)
            .map(|caller| caller.rules.name.clone())
            .map_err(|refusal| refusal.code().as_str())
    }

    #[test]
    fn the_first_proof_that_matches_wins() {
        let key = ("x-gateway-key", "k3y");
        let with_certificate = PeerInfo { certificate: Some([9; 32]), ..from("10.1.2.3") };
        assert_eq!(who(&[key], with_certificate).unwrap(), "by-key");
        assert_eq!(who(&[], with_certificate).unwrap(), "by-cert");
        assert_eq!(who(&[("authorization", "Bearer k3y")], from("10.1.2.3")).unwrap(), "by-key");
        assert_eq!(who(&[("authorization", "bearer  k3y ")], from("10.1.2.3")).unwrap(), "by-key");
        let basic = format!("Basic {}", STANDARD.encode("anyone:k3y"));
        assert_eq!(who(&[("authorization", &basic)], from("192.0.2.1")).unwrap(), "by-key");
        assert_eq!(who(&[], from("10.1.2.3")).unwrap(), "narrow");
        assert_eq!(who(&[], from("10.2.2.3")).unwrap(), "wide");
        assert_eq!(who(&[], from("::ffff:10.2.2.3")).unwrap(), "wide");
        assert_eq!(who(&[], from("192.0.2.1")), Err("caller_unknown"));
    }

    #[test]
    fn a_wrong_gateway_key_is_refused_at_once_and_a_foreign_authorization_is_ignored() {
        assert_eq!(who(&[("x-gateway-key", "wrong")], from("10.1.2.3")), Err("caller_unknown"));
        assert_eq!(
            who(&[("x-gateway-key", "k3y"), ("x-gateway-key", "k3y")], from("10.1.2.3")),
            Err("bad_request")
        );
        for foreign in ["Bearer eyJhbGciOiJSUzI1NiJ9.e30.x", "Basic !!!", "Digest x", "Bearer", ""] {
            assert_eq!(who(&[("authorization", foreign)], from("10.1.2.3")).unwrap(), "narrow", "{foreign}");
            assert_eq!(
                who(&[("authorization", foreign)], from("192.0.2.1")),
                Err("caller_unknown"),
                "{foreign}"
            );
        }
    }

    #[test]
    fn a_gateway_token_names_caller_and_account_and_a_stale_one_is_401() {
        let key = TokenKey::new(&[1; 32]);
        let account: AccountName = "smile".parse().unwrap();
        let token = |caller: &str, life| {
            let expires_at = NOW + Duration::from_secs(life);
            let new_token = token::NewToken {
                caller,
                account: &account,
                issued_at: NOW,
                expires_at,
                grant: None,
                size: 0,
            };
            format!("Bearer {}", key.mint(new_token).unwrap())
        };
        let lines = [("authorization", token("by-key", 60))];
        let map = headers(&[(lines[0].0, &lines[0].1)]);
        let found = identify(&settings(), &key, &map, &from("192.0.2.1"), NOW).unwrap();
        assert_eq!((found.rules.name.as_str(), found.token_account), ("by-key", Some(account.clone())));
        for stale in [token("by-key", 0), token("gone", 60), "Bearer gwt_junk".to_owned()] {
            assert_eq!(who(&[("authorization", &stale)], from("10.1.2.3")), Err("caller_unknown"));
        }
    }

    #[test]
    fn only_a_trusted_balancer_is_believed_about_addresses() {
        let behind = PeerInfo { via_trusted_proxy: true, ..from("10.9.0.1") };
        let forwarded = |value| who(&[("x-forwarded-for", value)], behind);
        assert_eq!(forwarded("10.1.0.7").unwrap(), "narrow");
        assert_eq!(forwarded("10.1.0.7, 10.9.0.2").unwrap(), "narrow");
        assert_eq!(forwarded("10.1.0.7, 192.0.2.1"), Err("caller_unknown"));
        assert_eq!(forwarded("10.1.0.7, unknown"), Err("caller_unknown"));
        assert_eq!(forwarded("10.1.0.7:4711").unwrap(), "narrow");
        assert_eq!(forwarded("10.9.0.3"), Err("caller_unknown"));
        assert_eq!(who(&[], behind), Err("caller_unknown"), "its own address identifies nobody");
        let two_lines = [("x-forwarded-for", "10.1.0.7"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(who(&two_lines, behind), Err("caller_unknown"));
        assert_eq!(who(&[("x-forwarded-for", "10.1.0.7")], from("192.0.2.1")), Err("caller_unknown"));
        let told_by_proxy_v2 = PeerInfo { via_trusted_proxy: true, ..from("192.0.2.1") };
        assert_eq!(who(&[("x-forwarded-for", "10.1.0.7")], told_by_proxy_v2), Err("caller_unknown"));
    }

    #[test]
    fn a_web_page_is_let_in_with_the_key_of_a_caller_that_lists_it_and_by_nothing_else() {
        let mut config = testing::config();
        config.callers = vec![
            testing::caller("viewer").key(sha256(b"v-key")).network("10.0.0.0/8").origin("file://").build(),
            testing::caller("other").key(sha256(b"o-key")).build(),
        ];
        let settings = GatewaySettings::compile(&config);
        let asked = |headers: &[(&str, &str)], addr: &str| {
            let headers = Headers::from_pairs(headers.iter().copied()).unwrap();
            let found = identify(&settings, &TokenKey::new(&[1; 32]), &headers, &from(addr), NOW);
            found.map(|found| found.rules.name.clone()).map_err(|refusal| refusal.code().as_str())
        };
        let (file, key) = (("origin", "file://"), ("x-gateway-key", "v-key"));
        assert_eq!(asked(&[file, key], "192.0.2.1").unwrap(), "viewer");
        assert_eq!(asked(&[file, key, ("sec-fetch-site", "cross-site")], "192.0.2.1").unwrap(), "viewer");
        let credentials = STANDARD.encode("x:v-key");
        for headers in [
            &[file][..],
            &[file, ("x-gateway-key", "wrong")],
            &[file, ("x-gateway-key", "o-key")],
            &[file, ("authorization", "Bearer v-key")],
            &[file, ("authorization", &format!("Basic {credentials}"))],
            &[("origin", "https://evil.test"), key],
            &[("origin", "file://"), ("origin", "https://evil.test"), key],
            &[("sec-fetch-site", "same-origin"), key],
        ] {
            assert_eq!(asked(headers, "10.1.2.3"), Err("origin_refused"), "{headers:?}");
        }
    }

    #[test]
    fn a_web_page_is_refused_even_with_a_good_key() {
        let key = ("x-gateway-key", "k3y");
        for page in [("origin", "https://evil.test"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            assert_eq!(who(&[key, page], from("10.1.2.3")), Err("origin_refused"), "{page:?}");
        }
        assert_eq!(who(&[key, ("sec-fetch-site", "none")], from("10.1.2.3")).unwrap(), "by-key");
    }
}
