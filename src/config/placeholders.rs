//! What can be used and is hardly meant: values that were left as the example prints them, and hosts that the
//! vendor gave up.

use url::{Host, Url};

use super::reader::TomlValue;

/// Hosts of the old platform with the address that takes each one's place (migration notice, "Current URL"
/// and "New URL").
const RETIRED: [(&str, &str); 3] = [
    ("identity-cus.aligntech.com", "https://prod-identity.iterocloud.com"),
    ("api-proxy.aligntech.com", "https://prod-iteroapi.iterocloud.com"),
    ("gateway-cus.aligntech.com", "https://prod-iteroapi.iterocloud.com"),
];

/// A text that somebody has to replace: `your-client-id`, `<secret>`, `changeme`, `xxxx`.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let bracketed = [('<', '>'), ('{', '}'), ('[', ']')];
    let mut letters = plain.chars();
    let first = letters.next();
    let starts = |word: &str| text.starts_with(word) || text.contains(&format!("-{word}"));
    bracketed.iter().any(|(open, close)| text.starts_with(*open) && text.ends_with(*close))
        || text.contains('…')
        || text.contains("...")
        || ["your-", "your_", "my-client-", "my_client_"].into_iter().any(starts)
        || ["changeme", "replaceme", "placeholder", "fixme", "insert"]
            .into_iter()
            .any(|word| plain.starts_with(word))
        || matches!(
            plain.as_str(),
            "todo" | "clientid" | "clientsecret" | "example" | "yourclientid" | "yourclientsecret"
        )
        || (plain.len() > 2 && letters.all(|letter| Some(letter) == first))
}

/// A digest that no key has: those of the examples, and what is typed to have something there. 32 bytes by
/// chance hold some thirty different ones.
pub(super) fn is_placeholder_digest(digest: &[u8; 32]) -> bool {
    let mut bytes = digest.to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.len() <= 8
}

/// Warns of a host that is set aside for examples (RFC 2606) or still has to be filled in.
pub(super) fn warn_of_placeholder_host(value: &TomlValue<'_>, url: &Url) {
    let Some(Host::Domain(host)) = url.host() else { return };
    let is_example =
        |label: &str| matches!(label, "example" | "yourdomain" | "yourcompany") || is_placeholder(label);
    if host.split('.').any(is_example) {
        value.warn(format!("{host} is a placeholder"), "write the host that is really meant");
    }
}

/// Warns of a text that was left as the example has it. The text itself is shown where it is no secret.
pub(super) fn warn_of_placeholder(value: &TomlValue<'_>, text: &str, is_secret: bool) {
    if is_placeholder(text) {
        let what =
            if is_secret { "is a placeholder".to_owned() } else { format!("{text:?} is a placeholder") };
        value.warn(what, "write what Align gave you");
    }
}

/// Warns of an address that the vendor gave up, with the one that replaces it.
pub(super) fn warn_of_retired_host(value: &TomlValue<'_>, host: &str) {
    let host = host.trim_end_matches('.');
    if let Some((_, new)) = RETIRED.into_iter().find(|(retired, _)| host.eq_ignore_ascii_case(retired)) {
        let what = format!("{host} is the retired platform's, due to be switched off on 31 October 2025");
        let fix =
            format!("write {new}, once Align has moved this realm's accounts; each then needs one new login");
        value.warn(what, fix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_filled_in_is_told_from_what_was() {
        for placeholder in [
            "your-client-id",
            "YOUR_CLIENT_SECRET",
            "<client id>",
            "changeme",
            "Change-Me!",
            "xxxx",
            "XXXX-XXXX",
            "TODO",
            "client_id",
            "{{ secret }}",
            "…",
            "replace-me-please",
        ] {
            assert!(is_placeholder(placeholder), "{placeholder}");
        }
        for given in
            ["id", "sandbox-client-new", "canary-4711", "0oa1b2c3", "yourdent", "s3cret", "a", "myclinic"]
        {
            assert!(!is_placeholder(given), "{given}");
        }
    }

    #[test]
    fn a_digest_that_was_typed_is_told_from_one_that_was_computed() {
        let mut counted = [0; 32];
        counted[31] = 3;
        assert!(is_placeholder_digest(&counted));
        assert!(is_placeholder_digest(&[0xab; 32]));
        let row: Vec<u8> = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(4);
        assert!(is_placeholder_digest(&row.try_into().unwrap()));
        let mut real = [0; 32];
        real.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a key").as_ref());
        assert!(!is_placeholder_digest(&real));
    }
}
