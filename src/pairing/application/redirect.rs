//! The way back to the application, in the vendor's parameters and RFC 6749's errors.

use serde::{Deserialize, Serialize};

use super::super::code::Code;
use super::super::outcome::LoginError;
use super::code_challenge::CodeChallenge;

/// What an application has asked for at the gateway's authorize endpoint, found good.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::pairing) struct ApplicationRequest {
    /// The caller's name.
    pub caller: String,
    /// As it was sent; one that was left out is the only one that is listed.
    pub redirect_uri: String,
    /// Whether it was sent: then it has to come with the code too (RFC 6749, 4.1.3).
    pub sent_redirect_uri: bool,
    /// Optional to the vendor, and a constant in its own sample (Authentication and Pairing V2, 4.5.1.1).
    pub state: Option<String>,
    pub challenge: Option<CodeChallenge>,
    /// OpenID Connect's, for the `id_token`.
    pub nonce: Option<String>,
}

impl ApplicationRequest {
    /// `<redirect_uri>?code=…&state=…&session_state=…` (Authentication and Pairing V2, 4.1.1). The session
    /// state is the gateway's, and means nothing.
    pub fn with_code(&self, code: &Code) -> String {
        let mut query = self.query();
        query.append_pair("code", code.expose());
        self.append_state(&mut query);
        query.append_pair("session_state", Code::fresh().expose());
        self.location(query)
    }

    /// RFC 6749, 4.1.2.1.
    pub fn with_error(&self, error: &str, description: &str) -> String {
        let mut query = self.query();
        query.append_pair("error", error).append_pair("error_description", description);
        self.append_state(&mut query);
        self.location(query)
    }

    /// How a login's failure reads to an application; the person reads the rest there.
    pub fn with_login_error(&self, error: &LoginError) -> String {
        let message = error.message();
        let description = format!("{}: {}. {}", error.code(), message.title, message.todo);
        self.with_error(oauth_word(error), &description)
    }

    fn query(&self) -> form_urlencoded::Serializer<'static, String> {
        form_urlencoded::Serializer::new(String::new())
    }

    fn append_state(&self, query: &mut form_urlencoded::Serializer<'static, String>) {
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
    }

    /// The redirect URI's own text stays as it is.
    fn location(&self, mut query: form_urlencoded::Serializer<'static, String>) -> String {
        // Some programs read a plus sign in a query as itself.
        let query = query.finish().replace('+', "%20");
        let joint = match self.redirect_uri.split_once('?') {
            None => "?",
            Some((_, own)) if own.is_empty() || own.ends_with('&') => "",
            Some(_) => "&",
        };
        format!("{}{joint}{query}", self.redirect_uri)
    }
}

/// RFC 6749's word, so that a library knows whether trying again may help.
fn oauth_word(error: &LoginError) -> &'static str {
    match error {
        LoginError::Cancelled
        | LoginError::NoAccounts
        | LoginError::Forbidden { .. }
        | LoginError::AccountNotListed { .. } => "access_denied",
        LoginError::PlatformDown { .. } | LoginError::StoreDown => "temporarily_unavailable",
        LoginError::LoginRefused { error } => match error.as_str() {
            "temporarily_unavailable" => "temporarily_unavailable",
            _ => "server_error",
        },
        _ => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(redirect_uri: &str) -> ApplicationRequest {
        ApplicationRequest {
            caller: "oldpms".to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            sent_redirect_uri: true,
            state: Some("447 a+b&c".to_owned()),
            challenge: None,
            nonce: None,
        }
    }

    #[test]
    fn what_goes_back_stands_behind_what_the_redirect_uri_has_already() {
        for (redirect_uri, start) in [
            ("http://127.0.0.1:5000/cb", "http://127.0.0.1:5000/cb?error=e&"),
            ("https://x.test/cb?a=1", "https://x.test/cb?a=1&error=e&"),
            ("https://x.test/cb?", "https://x.test/cb?error=e&"),
            ("com.example.pms:/cb", "com.example.pms:/cb?error=e&"),
        ] {
            let location = request(redirect_uri).with_error("e", "why not");
            let expected = format!("{start}error_description=why%20not&state=447%20a%2Bb%26c");
            assert_eq!(location, expected);
        }
    }

    #[test]
    fn a_code_comes_with_the_state_as_it_was_sent_and_without_one_where_none_was() {
        let location = request("http://127.0.0.1/cb").with_code(&Code::fresh());
        let url: url::Url = location.parse().unwrap();
        let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["code", "state", "session_state"]);
        assert_eq!(url.query_pairs().nth(1).unwrap().1, "447 a+b&c");
        let without = ApplicationRequest { state: None, ..request("http://127.0.0.1/cb") };
        assert!(!without.with_error("e", "d").contains("&state="));
    }
}
