//! Discovery: which region's Domain and Path an account's calls go to (S1 4.2). No response leads anywhere
//! that the realm does not allow.

use serde_json::Value;
use url::Url;

use crate::config::Discovery;
use crate::model::account::ApiVersion;
use crate::model::route::Route;
use crate::model::token::AccessToken;

use super::control_call::ControlCall;
use super::control_client::append_path;
use super::{Blame, PlatformClient, PlatformError, PlatformErrorKind};

impl PlatformClient {
    /// At `base_url`: the first discovery, and the fallback of the later ones.
    pub async fn discover_first(&self, bearer: &AccessToken) -> Result<Route, PlatformError> {
        self.at_base(None, bearer).await
    }

    async fn at_base(
        &self,
        version: Option<ApiVersion>,
        bearer: &AccessToken,
    ) -> Result<Route, PlatformError> {
        let url = append_path(&self.realm.base_url, &self.realm.discovery.path);
        match &self.pinned {
            Some(pinned) => Ok(pinned.clone()),
            None => self.ask(url, version, bearer).await,
        }
    }

    /// At Domain/Path, then at `base_url` where that has failed. A pinned route is returned without a call.
    ///
    /// 401 and 403 fall back too: the bearer has just been renewed, and a region that an account has left may
    /// well answer so. `base_url` has the last word on whether the bearer is good; both places are named when
    /// both have failed.
    ///
    /// `version` is asked for in the place of the realm's.
    pub async fn discover(
        &self,
        last: Option<&Route>,
        version: Option<ApiVersion>,
        bearer: &AccessToken,
    ) -> Result<Route, PlatformError> {
        let (None, Some(last)) = (&self.pinned, last) else { return self.at_base(version, bearer).await };
        let near = match self.near(last, version, bearer).await {
            Ok(route) => return Ok(route),
            Err(error) => error,
        };
        self.at_base(version, bearer).await.map_err(|error| PlatformError {
            detail: format!("{}; before that, at {}: {}", error.detail, last.domain(), near.detail),
            ..error
        })
    }

    /// The later discovery over a route that is not in use yet (S1 4.2.2): shows that an API is there which
    /// takes this bearer, and tells where that says calls go. A pinned route needs no proof.
    pub async fn prove(
        &self,
        route: &Route,
        version: Option<ApiVersion>,
        bearer: &AccessToken,
    ) -> Result<Route, PlatformError> {
        match &self.pinned {
            Some(pinned) => Ok(pinned.clone()),
            None => self.near(route, version, bearer).await,
        }
    }

    async fn near(
        &self,
        last: &Route,
        version: Option<ApiVersion>,
        bearer: &AccessToken,
    ) -> Result<Route, PlatformError> {
        // Below a route the call has no prefix of its own: S1 4.2.2 prints
        // `{{Domain}}/{{Path}}/api-discovery-by-name-and-version`.
        let path = self.realm.discovery.path.trim_end_matches('/');
        let endpoint = path.rsplit('/').next().unwrap_or(path);
        self.ask(self.below(ControlCall::Discovery, last, endpoint)?, version, bearer).await
    }

    async fn ask(
        &self,
        mut url: Url,
        version: Option<ApiVersion>,
        bearer: &AccessToken,
    ) -> Result<Route, PlatformError> {
        let wanted = &self.realm.discovery;
        let own_version = version.map(|version| version.to_string());
        let wanted_version = own_version.as_deref().unwrap_or(&wanted.version);
        url.query_pairs_mut()
            .append_pair("discoveryName", &wanted.name)
            .append_pair("version", wanted_version);
        let response = self.client.get(ControlCall::Discovery, url, bearer).await?;
        let response = response.json(ControlCall::Discovery)?;
        let chosen = self.choose(entries(&response)?, wanted_version, own_version.is_some())?;
        Route::parse(text(chosen, "Domain")?, text(chosen, "Path")?, &self.realm.hosts).map_err(|problem| {
            PlatformError::new(
                ControlCall::Discovery,
                Blame::Realm,
                PlatformErrorKind::RouteRefused,
                Some(200),
                problem.to_string(),
            )
        })
    }

    /// The entry with the wanted name and version, else the only one: a single entry is what the call is
    /// documented to answer. Where the account has a version of its own, one that says another is none.
    fn choose<'a>(
        &self,
        entries: &'a [Value],
        wanted_version: &str,
        is_own: bool,
    ) -> Result<&'a Value, PlatformError> {
        let wanted = &self.realm.discovery;
        let version = |entry: &&Value| is(entry.get("Version"), wanted_version);
        let exact = |entry: &&Value| is(entry.get("Name"), &wanted.name) && version(entry);
        let alike = |entry: &&Value| is_named_like(entry.get("Name"), &wanted.name) && version(entry);
        let found = entries.iter().find(exact).or_else(|| entries.iter().find(alike));
        match (found, entries) {
            (Some(found), _) => Ok(found),
            (None, [only]) if !is_own || only.get("Version").is_none() => Ok(only),
            (None, []) if is_own => {
                Err(nothing(format!("the list is empty: Align has no version {wanted_version} for this account")))
            }
            (None, []) => Err(nothing(
                "the list is empty: ask Align to enable discovery for this integration, and check `discovery` of the realm"
                    .to_owned(),
            )),
            (None, several) => Err(nothing(format!(
                "none of {} entries is {} version {}: check `discovery` of the realm",
                several.len(),
                wanted.name,
                wanted_version
            ))),
        }
    }
}

/// S1 4.2.2 prints an object with `APIs` and speaks of an "empty array" in the same breath; a bare array is
/// taken too.
fn entries(response: &Value) -> Result<&[Value], PlatformError> {
    match response.get("APIs").unwrap_or(response) {
        Value::Array(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        _ => Err(PlatformError::malformed(ControlCall::Discovery, "the answer has no list `APIs`")),
    }
}

fn text<'a>(entry: &'a Value, name: &str) -> Result<&'a str, PlatformError> {
    let unsound =
        || PlatformError::malformed(ControlCall::Discovery, format!("the entry's {name} is not a string"));
    entry.get(name).and_then(Value::as_str).ok_or_else(unsound)
}

fn is(value: Option<&Value>, wanted: &str) -> bool {
    match value {
        Some(Value::String(text)) => text.trim().eq_ignore_ascii_case(wanted.trim()),
        Some(Value::Number(number)) => number.to_string() == wanted.trim(),
        _ => false,
    }
}

/// The vendor's documents print the name in two spellings.
fn is_named_like(value: Option<&Value>, wanted: &str) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| Discovery::same_name(text, wanted))
}

fn nothing(detail: String) -> PlatformError {
    PlatformError::new(
        ControlCall::Discovery,
        Blame::Account,
        PlatformErrorKind::NothingDiscovered,
        Some(200),
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::super::responder::{
        Play, Responder, bare_platform, json_response, platform, realm_of, status_response,
    };
    use super::*;
    use crate::config::PinnedRoute;

    fn bearer() -> AccessToken {
        AccessToken::new("the-bearer")
    }

    async fn first(body: &str) -> Result<Route, PlatformError> {
        let responder = Responder::start(vec![json_response(body)]).await;
        platform(&responder).discover_first(&bearer()).await
    }

    fn found(domain: &str, path: &str) -> Play {
        let entry = r#"{"Name":"third-party","Version":"2","Path":"PATH","Domain":"DOMAIN"}"#;
        json_response(&format!(r#"{{"APIs":[{entry}]}}"#).replace("PATH", path).replace("DOMAIN", domain))
    }

    #[tokio::test]
    async fn the_first_call_goes_to_base_url_with_the_documented_parameters() {
        let responder = Responder::start(vec![found("http://127.0.0.1:9", "/itero-gen-api/v2")]).await;
        let mut realm = realm_of(&responder);
        // The old platform's base has a path of its own (migration notice, Base URL).
        realm.base_url = realm.base_url.join("/itero-gen-api/v2/").unwrap();
        let route = bare_platform(&realm).discover_first(&bearer()).await.unwrap();
        assert_eq!(route.to_string(), "http://127.0.0.1:9/itero-gen-api/v2");
        let request = responder.only_request();
        assert_eq!(
            request.line(),
            "GET /itero-gen-api/v2/api/third-party/v2/api-discovery-by-name-and-version\
             ?discoveryName=third-party&version=2 HTTP/1.1"
        );
        assert_eq!(request.header("authorization"), Some("Bearer the-bearer"));
    }

    #[tokio::test]
    async fn a_later_call_asks_the_region_and_only_the_region() {
        let responder = Responder::start(vec![found("http://127.0.0.1:9", "/v3")]).await;
        let route =
            platform(&responder).discover(Some(&responder.route("/v2")), None, &bearer()).await.unwrap();
        assert_eq!(route.path(), "/v3");
        assert_eq!(
            responder.only_request().line(),
            "GET /v2/api-discovery-by-name-and-version?discoveryName=third-party&version=2 HTTP/1.1"
        );
    }

    #[tokio::test]
    async fn whatever_the_region_responds_base_url_is_asked_next() {
        for failure in [
            status_response(401, ""),
            status_response(403, ""),
            status_response(404, ""),
            status_response(500, ""),
            json_response(r#"{"APIs":[]}"#),
            found("http://169.254.169.254", "/v2"),
            Play::Cut,
        ] {
            let responder = Responder::start(vec![failure, found("http://127.0.0.1:9", "/v2")]).await;
            let route = platform(&responder).discover(Some(&responder.route("/v2")), None, &bearer()).await;
            assert_eq!(route.unwrap().port(), 9);
            let asked: Vec<String> = responder.requests().iter().map(|r| r.line().to_owned()).collect();
            assert!(asked[1].starts_with("GET /api/third-party/v2/"), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn an_accounts_own_version_is_asked_for_and_a_lone_entry_of_another_is_not_taken() {
        let two = || found("http://127.0.0.1:9", "/v2");
        let responder = Responder::start(vec![two(), two()]).await;
        let route = responder.route("/v2");
        let error = platform(&responder).discover(Some(&route), ApiVersion::new(3), &bearer()).await;
        assert!(error.unwrap_err().detail.contains("version 3"));
        let asked: Vec<String> = responder.requests().iter().map(|r| r.line().to_owned()).collect();
        assert!(asked.len() == 2 && asked.iter().all(|line| line.contains("&version=3 ")), "{asked:?}");
    }

    #[tokio::test]
    async fn when_both_fail_base_url_has_the_last_word_and_both_are_named() {
        let plays = vec![status_response(401, ""), status_response(500, "")];
        let responder = Responder::start(plays).await;
        let route = responder.route("/v2");
        let error = platform(&responder).discover(Some(&route), None, &bearer()).await.unwrap_err();
        assert_eq!((error.kind, error.blame), (PlatformErrorKind::Failed, Blame::Realm));
        assert!(error.detail.contains("500") && error.detail.contains("401"), "{}", error.detail);
    }

    #[tokio::test]
    async fn a_region_that_is_no_longer_allowed_is_skipped() {
        let responder = Responder::start(vec![found("http://127.0.0.1:9", "/v2")]).await;
        let foreign = Responder::start(vec![found("http://127.0.0.1:8", "/v2")]).await;
        let last = foreign.route_as("localhost", "/v2");
        assert_eq!(platform(&responder).discover(Some(&last), None, &bearer()).await.unwrap().port(), 9);
        assert!(foreign.requests().is_empty());
    }

    #[tokio::test]
    async fn a_pinned_route_is_returned_without_a_call() {
        let responder = Responder::start(Vec::new()).await;
        let mut realm = realm_of(&responder);
        realm.route =
            Some(PinnedRoute { domain: "http://127.0.0.1:9".to_owned(), path: "/lab-sw/v1".to_owned() });
        let platform = bare_platform(&realm);
        let last = responder.route("/v2");
        for route in
            [platform.discover_first(&bearer()).await, platform.discover(Some(&last), None, &bearer()).await]
        {
            assert_eq!(route.unwrap().to_string(), "http://127.0.0.1:9/lab-sw/v1");
        }
        assert!(responder.requests().is_empty());
    }

    #[tokio::test]
    async fn an_empty_list_is_nothing_discovered_in_every_form() {
        for body in [r#"{"APIs":[]}"#, "[]", r#"{"APIs":null}"#] {
            let error = first(body).await.unwrap_err();
            assert_eq!(
                (error.kind, error.blame),
                (PlatformErrorKind::NothingDiscovered, Blame::Account),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn of_several_entries_name_and_version_choose() {
        let entry = |name: &str, version: &str, port: u16| {
            format!(r#"{{"Name":{name},"Version":{version},"Path":"/v","Domain":"http://127.0.0.1:{port}"}}"#)
        };
        let other = entry(r#""labs""#, r#""2""#, 1);
        for ours in [
            entry(r#""third-party""#, r#""2""#, 9),
            entry(r#"" Third-Party ""#, "2", 9),
            entry(r#""thirdparty""#, "2", 9),
        ] {
            let route = first(&format!(r#"{{"APIs":[{other},{ours}]}}"#)).await.unwrap();
            assert_eq!(route.port(), 9);
        }
        assert_eq!(first(&format!(r#"{{"APIs":[{other}]}}"#)).await.unwrap().port(), 1);
        let neither = first(&format!(r#"{{"APIs":[{other},{other}]}}"#)).await.unwrap_err();
        assert_eq!(neither.kind, PlatformErrorKind::NothingDiscovered);
    }

    #[tokio::test]
    async fn a_place_that_is_not_allowed_is_refused() {
        for domain in ["http://evil.test", "http://127.0.0.1@evil.test", "", "ftp://127.0.0.1"] {
            let responder = Responder::start(vec![found(domain, "/v2")]).await;
            let error = platform(&responder).discover_first(&bearer()).await.unwrap_err();
            assert_eq!(error.kind, PlatformErrorKind::RouteRefused, "{domain}");
        }
        for body in [r#"{"APIs":[{"Domain":1,"Path":"/v2"}]}"#, r#"{"APIs":[{"Path":"/v2"}]}"#, "{}"] {
            assert_eq!(first(body).await.unwrap_err().kind, PlatformErrorKind::Malformed, "{body}");
        }
    }
}
