//! Responds to a caller's discovery call: given the vendor's own address, the caller would bypass the
//! gateway, or lose its account.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::ResponseBody;
use crate::access::Access;
use crate::config;
use crate::gateway::access_log::RequestLog;
use crate::gateway::forward::resolved_request::ResolvedRequest;
use crate::gateway::refusal::X_REQUEST_ID;
use crate::gateway::worker::{Gateway, GatewayResponse};
use crate::http1::client::Dial;
use crate::model::account::AccountName;
use crate::model::route::Route;

use crate::gateway::settings::BaseUrl;

/// The parameters of the call (Authentication and Pairing V2, 4.2.2).
const NAME: &str = "discoveryName";
const VERSION: &str = "version";

/// How a caller's discovery call names what it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryQuery {
    Matches,
    /// `thirdparty` for `third-party`: the vendor's own table prints both.
    MatchesOtherSpelling,
    NoMatch,
}

/// The vendor's shape, our address. A wrong or missing parameter gets an empty array, as the vendor's does.
/// Without an account, for a login that has none yet, the Path is the vendor's.
pub fn response<B>(
    wanted: &config::Discovery,
    parse_query: DiscoveryQuery,
    base: &BaseUrl,
    account: Option<&AccountName>,
    route: &Route,
    body: impl FnOnce(Bytes) -> B,
    head_only: bool,
) -> Response<B> {
    let prefix = account.map(|name| format!("/accounts/{name}")).unwrap_or_default();
    let apis = match parse_query {
        DiscoveryQuery::Matches | DiscoveryQuery::MatchesOtherSpelling => serde_json::json!([{
            "Name": wanted.name,
            "Version": wanted.version,
            "Path": format!("{}{prefix}{}", base.path, route.path()),
            "Domain": base.origin,
        }]),
        DiscoveryQuery::NoMatch => serde_json::json!([]),
    };
    let text = Bytes::from(serde_json::json!({ "APIs": apis }).to_string());
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(body(if head_only { Bytes::new() } else { text }));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub fn parse_query(wanted: &config::Discovery, query: Option<&str>) -> DiscoveryQuery {
    let query = query.unwrap_or_default();
    let has = |key: &str, fits: &dyn Fn(&str) -> bool| {
        form_urlencoded::parse(query.as_bytes())
            .any(|(name, text)| name.eq_ignore_ascii_case(key) && fits(text.trim()))
    };
    if !has(VERSION, &|text| text.eq_ignore_ascii_case(&wanted.version)) {
        DiscoveryQuery::NoMatch
    } else if has(NAME, &|text| text.eq_ignore_ascii_case(&wanted.name)) {
        DiscoveryQuery::Matches
    } else if has(NAME, &|text| config::Discovery::same_name(text, &wanted.name)) {
        DiscoveryQuery::MatchesOtherSpelling
    } else {
        DiscoveryQuery::NoMatch
    }
}

impl<D: Dial> Gateway<D> {
    /// The response to a caller's discovery call.
    pub(in crate::gateway) fn discovery_response(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        log: &mut RequestLog,
    ) -> GatewayResponse<D> {
        let query = request.head.uri.query();
        let own = access.version().map(|version| config::Discovery {
            version: version.to_string(),
            ..request.realm.discovery.clone()
        });
        // An account with a version of its own is found by that one and by the realm's, which applications
        // go on asking for; both lead to where its calls go.
        let own = own.filter(|wanted| parse_query(wanted, query) != DiscoveryQuery::NoMatch);
        let wanted = own.as_ref().unwrap_or(&request.realm.discovery);
        let asked = parse_query(wanted, query);
        log.odd_discovery_name = asked == DiscoveryQuery::MatchesOtherSpelling;
        let mut response = response(
            wanted,
            asked,
            &request.rules.url,
            Some(&request.account.name),
            access.route(),
            ResponseBody::full,
            request.head.method == Method::HEAD,
        );
        response.headers_mut().insert(X_REQUEST_ID.clone(), log.request_id.clone());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;
    use crate::model::route::HostPolicy;

    fn response_text(query: &str, url: &str) -> String {
        let config = testing::config();
        let policy = HostPolicy { allowed: vec!["*.iterocloud.com".parse().unwrap()], allow_insecure: false };
        let route = Route::parse("https://eu.iterocloud.com", "/itero-gen-api/v2", &policy).unwrap();
        let base = BaseUrl::new(&url.parse().unwrap());
        let wanted = &config.realms.values().next().unwrap().discovery;
        let response = response(
            wanted,
            parse_query(wanted, Some(query)),
            &base,
            Some(&"smile".parse().unwrap()),
            &route,
            |b| b,
            false,
        );
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn discovery_leads_back_to_us_and_keeps_the_account() {
        let ours = r#"{"APIs":[{"Domain":"http://gw:8080","Name":"third-party","Path":"/accounts/smile/itero-gen-api/v2","Version":"2"}]}"#;
        assert_eq!(response_text("discoveryName=third-party&version=2", "http://gw:8080"), ours);
        assert!(response_text("version=2&discoveryName=third-party", "https://old.internal/x").contains(
            r#""Domain":"https://old.internal","Name":"third-party","Path":"/x/accounts/smile/itero-gen-api/v2""#
        ));
    }

    #[test]
    fn the_name_in_the_spelling_of_the_vendors_table_is_responded_alike_and_told_apart() {
        let plain = response_text("discoveryName=third-party&version=2", "http://gw:8080");
        let config = testing::config();
        let wanted = &config.realms.values().next().unwrap().discovery;
        for name in ["thirdparty", "ThirdParty", "third_party", "third%20party", "third+party"] {
            let query = format!("discoveryName={name}&version=2");
            assert_eq!(response_text(&query, "http://gw:8080"), plain, "{name}");
            assert_eq!(parse_query(wanted, Some(&query)), DiscoveryQuery::MatchesOtherSpelling, "{name}");
        }
        assert_eq!(parse_query(wanted, Some("discoveryName=third-party&version=2")), DiscoveryQuery::Matches);
        for name in ["thirdpart", "third-party-x", "", "-"] {
            let query = format!("discoveryName={name}&version=2");
            assert_eq!(parse_query(wanted, Some(&query)), DiscoveryQuery::NoMatch, "{name}");
        }
    }

    #[test]
    fn a_wrong_parameter_gets_an_empty_array_as_the_vendors_does() {
        for query in [
            "",
            "discoveryName=third-party",
            "discoveryName=x&version=2",
            "discoveryName=third-party&version=3",
        ] {
            assert_eq!(response_text(query, "http://gw"), r#"{"APIs":[]}"#, "{query}");
        }
    }
}
