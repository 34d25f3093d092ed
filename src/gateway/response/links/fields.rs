//! The response headers that carry addresses, in one list: whoever follows one must come back to the gateway.
//! Headers that are not listed pass unchanged.

use std::borrow::Cow;

use http::HeaderValue;

use crate::http1::{HeaderSet, Headers, KnownHeader, ascii_str};

use super::LinkContext;

/// How a field writes its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressForm {
    /// The value is one address.
    SingleUrl,
    /// `<gateway_url>; rel="next", <gateway_url>` (RFC 8288, 3).
    AngleBrackets,
    /// `5; url=gateway_url`
    UrlParameter,
}

const ADDRESSES: [(KnownHeader, AddressForm); 5] = [
    (KnownHeader::Location, AddressForm::SingleUrl),
    (KnownHeader::ContentLocation, AddressForm::SingleUrl),
    (KnownHeader::OperationLocation, AddressForm::SingleUrl),
    (KnownHeader::Link, AddressForm::AngleBrackets),
    (KnownHeader::Refresh, AddressForm::UrlParameter),
];

/// The same as a set.
pub const ADDRESS_FIELDS: HeaderSet = {
    let mut names = HeaderSet::NONE;
    let mut at = 0;
    while at < ADDRESSES.len() {
        names = names.union(HeaderSet::new(&[ADDRESSES[at].0]));
        at += 1;
    }
    names
};

impl LinkContext {
    /// As in bodies, and every absolute path too, since it means the platform's host.
    pub fn rewrite_addresses(&self, headers: &mut Headers) {
        headers.change(|field| {
            let (_, address_form) = ADDRESSES.iter().find(|(name, _)| *name == field.name)?;
            let value = ascii_str(field.value)?;
            let ours = match address_form {
                AddressForm::SingleUrl => self.location(value)?,
                AddressForm::AngleBrackets => self.in_angles(value)?,
                AddressForm::UrlParameter => self.behind_url(value)?,
            };
            HeaderValue::try_from(ours).ok()
        });
    }

    /// `None` where nothing in it is ours to change. What stands in quotes is a parameter's.
    fn in_angles(&self, value: &str) -> Option<String> {
        let mut out = String::with_capacity(value.len() + 64);
        let (mut copied, mut at, mut quoted) = (0, 0, false);
        let bytes = value.as_bytes();
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                b'<' if !quoted => {
                    let Some(length) = value[at + 1..].find('>') else { break };
                    let end = at + 1 + length;
                    if let Some(ours) = self.location(value[at + 1..end].trim()) {
                        out.push_str(&value[copied..=at]);
                        out.push_str(&ours);
                        copied = end;
                    }
                    at = end;
                }
                _ => {}
            }
            at += 1;
        }
        (copied > 0).then(|| out + &value[copied..])
    }

    fn behind_url(&self, value: &str) -> Option<String> {
        let at = value.to_ascii_lowercase().find("url=")? + "url=".len();
        let gateway_url = value[at..].trim_matches(|c: char| matches!(c, ' ' | '"' | '\''));
        let begins = at + value[at..].find(gateway_url)?;
        let ours = self.location(gateway_url)?;
        Some(format!("{}{ours}{}", &value[..begins], &value[begins + gateway_url.len()..]))
    }

    /// Our address for a single one, if it is one of the account's.
    fn location(&self, url: &str) -> Option<String> {
        if url.starts_with('/') && !url.starts_with("//") {
            return Some(self.gateway_url(&self.relative, &self.authority, url.as_bytes()).to_string() + url);
        }
        let scheme = if self.route.secure() { "https://" } else { "http://" };
        // An address without its scheme takes that of the response, which is the platform's.
        let url = if url.starts_with("//") {
            Cow::Owned(format!("{}{}", scheme.trim_end_matches('/'), url))
        } else {
            Cow::Borrowed(url)
        };
        let rest = url.get(scheme.len()..).filter(|_| url[..scheme.len()].eq_ignore_ascii_case(scheme))?;
        let (authority, tail) = rest.split_at(super::authority_end(rest.as_bytes())?);
        self.is_rewritten_host(authority)
            .then(|| self.gateway_url(&self.absolute, authority, tail.as_bytes()).to_string() + tail)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::link_context;
    use super::*;

    const OURS: &str = "http://gw:8080/accounts/smile";

    #[test]
    fn a_single_address_is_treated_as_in_bodies() {
        let table = [
            ("https://eu.iterocloud.com/itero-gen-api/v2/x?y#z", "{}/itero-gen-api/v2/x?y#z"),
            ("HTTPS://EU.iterocloud.com./itero-gen-api/v2/x", "{}/itero-gen-api/v2/x"),
            ("https://EU.iterocloud.com.:443/itero-gen-api/v2/x", "{}/itero-gen-api/v2/x"),
            ("//eu.iterocloud.com/itero-gen-api/v2/x", "{}/itero-gen-api/v2/x"),
            ("/itero-gen-api/v2/x", "/accounts/smile/itero-gen-api/v2/x"),
            ("/login", "/accounts/smile/@eu.iterocloud.com/login"),
            ("https://store.test/x", "https://store.test/x"),
            ("//store.test/x", "//store.test/x"),
            ("http://eu.iterocloud.com/x", "http://eu.iterocloud.com/x"),
            ("x", "x"),
        ];
        for name in ["Location", "content-location", "Operation-Location"] {
            for (from, to) in table {
                let mut headers = Headers::from_pairs([(name, from)]).unwrap();
                link_context().rewrite_addresses(&mut headers);
                let field = headers.iter().next().unwrap();
                assert_eq!(ascii_str(field.value).unwrap(), to.replace("{}", OURS), "{name}: {from}");
                assert_eq!(field.raw_name, name.as_bytes());
            }
        }
    }

    #[test]
    fn every_address_of_a_link_field_is_ours_and_nothing_else_is_touched() {
        let links = [
            r#"<https://eu.iterocloud.com/itero-gen-api/v2/orders?page=2>; rel="next"; title="<https://eu.iterocloud.com/x>, \"y\"", </itero-gen-api/v2/orders?page=9>;rel=last"#,
            "<https://store.test/x>; rel=help",
            "< https://eu.iterocloud.com/itero-gen-api/v2/a,b > ; rel=up",
            "<?page=3>; rel=next",
            "<https://eu.iterocloud.com/broken",
            "</itero-gen-api/v2/x>; rel=next, <https://eu.iterocloud.com/broken",
        ];
        let mut headers = Headers::from_pairs(links.map(|link| ("Link", link))).unwrap();
        link_context().rewrite_addresses(&mut headers);
        let values: Vec<_> =
            headers.all(KnownHeader::Link).map(|value| ascii_str(value).unwrap().to_owned()).collect();
        let expected = [
            r#"<{}/itero-gen-api/v2/orders?page=2>; rel="next"; title="<https://eu.iterocloud.com/x>, \"y\"", </accounts/smile/itero-gen-api/v2/orders?page=9>;rel=last"#,
            links[1],
            "<{}/itero-gen-api/v2/a,b> ; rel=up",
            links[3],
            links[4],
            "</accounts/smile/itero-gen-api/v2/x>; rel=next, <https://eu.iterocloud.com/broken",
        ];
        assert_eq!(values, expected.map(|value| value.replace("{}", OURS)));
    }

    #[test]
    fn the_address_of_a_refresh_field_is_ours() {
        for (from, to) in [
            ("5; url=https://eu.iterocloud.com/itero-gen-api/v2/x", "5; url={}/itero-gen-api/v2/x"),
            ("0;URL='/itero-gen-api/v2/x'", "0;URL='/accounts/smile/itero-gen-api/v2/x'"),
            ("5", "5"),
            ("5; url=", "5; url="),
            ("5; url=https://store.test/", "5; url=https://store.test/"),
        ] {
            let mut headers = Headers::from_pairs([("Refresh", from)]).unwrap();
            link_context().rewrite_addresses(&mut headers);
            assert_eq!(
                ascii_str(headers.get(KnownHeader::Refresh).unwrap()).unwrap(),
                to.replace("{}", OURS),
                "{from}"
            );
        }
    }
}
