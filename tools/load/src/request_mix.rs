//! The mix as bytes: calls dealt out by weight in a fixed order, accounts spread evenly over them.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method};

use super::target::ResolvedTarget;
use super::{LoadError, LoadPlan};

/// Where a call's path or body names the account.
const ACCOUNT: &str = "{account}";

/// Calls with everything prepared that does not change from one
/// sending to the next; one deck per target and key.
pub struct RequestMix {
    templates: Vec<Rc<RequestTemplate>>,
    accounts: Rc<[String]>,
}

/// One call of the mix.
pub struct RequestTemplate {
    /// Its place in the mix.
    pub index: usize,
    pub is_head: bool,
    /// May be sent again where a kept connection turns out to be dead.
    pub repeatable: bool,
    /// The account's name stands between each two of them.
    head: Vec<Vec<u8>>,
    body: Vec<Vec<u8>>,
}

impl RequestMix {
    pub fn new(
        plan: &LoadPlan,
        target: &ResolvedTarget,
        key: Option<&HeaderValue>,
        accounts: Rc<[String]>,
    ) -> Result<Self, LoadError> {
        let mut templates = Vec::new();
        for (index, call) in plan.mix.iter().enumerate() {
            let prefix = if accounts.is_empty() { "" } else { "/accounts/{account}" };
            let path = format!("{}{prefix}{}", target.base_path, call.path);
            if accounts.is_empty() && path.contains(ACCOUNT) {
                return Err(LoadError::LoadPlan(format!(
                    "{}: {ACCOUNT} needs accounts to be named",
                    call.path
                )));
            }
            let template = Rc::new(RequestTemplate {
                index,
                is_head: call.method == Method::HEAD,
                repeatable: matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS),
                head: head(&call.method, &path, &target.authority, key, &call.headers)?,
                body: split(&call.body),
            });
            templates.extend(std::iter::repeat_n(template, call.weight as usize));
        }
        if templates.is_empty() {
            Err(LoadError::LoadPlan("the mix is empty: name at least one call".into()))
        } else {
            Ok(Self { templates, accounts })
        }
    }

    /// The call of this number, put into `request`.
    pub fn next_request(&self, number: u64, request: &mut Vec<u8>) -> &RequestTemplate {
        let template = &self.templates[(number % self.templates.len() as u64) as usize];
        template.write(self.account(number), request);
        template
    }

    /// Fibonacci hashing: neighbours fall far apart and all accounts get their share, whatever the mix.
    fn account(&self, number: u64) -> &str {
        match self.accounts.len() as u64 {
            0 => "",
            count => {
                let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                &self.accounts[((spread * count) >> 32) as usize]
            }
        }
    }
}

impl RequestTemplate {
    fn write(&self, account: &str, request: &mut Vec<u8>) {
        request.clear();
        join(&self.head, account, request);
        if self.body.iter().all(Vec::is_empty) && self.body.len() == 1 {
            request.extend_from_slice(b"\r\n");
            return;
        }
        let fixed: usize = self.body.iter().map(Vec::len).sum();
        let length = fixed + account.len() * (self.body.len() - 1);
        request.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        join(&self.body, account, request);
    }
}

/// Everything up to the framing fields.
fn head(
    method: &Method,
    path: &str,
    authority: &str,
    key: Option<&HeaderValue>,
    headers: &HeaderMap,
) -> Result<Vec<Vec<u8>>, LoadError> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LoadError::LoadPlan(format!("{path:?}: blanks and the like are written %20 in a path")));
    }
    let mut text = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    };
    if !headers.contains_key(http::header::HOST) {
        field("Host", authority.as_bytes());
    }
    if let Some(key) = key {
        field("X-Gateway-Key", key.as_bytes());
    }
    for (name, value) in headers {
        field(name.as_str(), value.as_bytes());
    }
    Ok(split(&text))
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut from = 0;
    for at in memchr::memmem::find_iter(text, ACCOUNT) {
        parts.push(text[from..at].to_vec());
        from = at + ACCOUNT.len();
    }
    parts.push(text[from..].to_vec());
    parts
}

fn join(parts: &[Vec<u8>], account: &str, into: &mut Vec<u8>) {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            into.extend_from_slice(account.as_bytes());
        }
        into.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(path: &str, body: &str) -> RequestTemplate {
        RequestTemplate {
            index: 0,
            is_head: false,
            repeatable: true,
            head: head(&Method::GET, path, "gw:80", None, &HeaderMap::new()).unwrap(),
            body: split(body.as_bytes()),
        }
    }

    #[test]
    fn the_account_stands_wherever_the_call_names_it_and_is_counted_in_the_length() {
        let mut request = Vec::new();
        template("/accounts/{account}/x?for={account}", "id={account}").write("smile", &mut request);
        let text = String::from_utf8(request).unwrap();
        assert_eq!(
            text,
            "GET /accounts/smile/x?for=smile HTTP/1.1\r\nHost: gw:80\r\nContent-Length: 8\r\n\r\nid=smile"
        );
    }

    #[test]
    fn a_path_that_could_end_the_head_is_refused() {
        for path in ["/a b", "/a\r\nX: y", "/ä"] {
            assert!(head(&Method::GET, path, "gw", None, &HeaderMap::new()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn every_account_gets_its_share_of_every_call() {
        let accounts: Rc<[String]> = (0..400).map(|number| format!("a{number}")).collect();
        let templates = vec![Rc::new(template("/{account}", "")), Rc::new(template("/{account}", ""))];
        let request_mix = RequestMix { templates, accounts };
        for first in [0, 1] {
            let mut counts = std::collections::HashMap::new();
            for number in (first..80_000).step_by(2) {
                *counts.entry(request_mix.account(number).to_owned()).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), 400);
            assert!(counts.values().all(|count| (80..=120).contains(count)), "{counts:?}");
        }
    }
}
