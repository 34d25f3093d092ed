//! Warnings about a certificate: expiry, chain order, names. It is read without being trusted; what is served
//! is judged by rustls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};

use crate::clock::Timestamp;

/// A certificate that can be served and that callers will refuse, now or soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateWarning {
    pub file: PathBuf,
    /// A sentence that begins with the file.
    pub what: String,
    pub fix: String,
}

/// Authorities renew at a third of 90 days: whoever is later than that is not renewed by itself.
const SOON: Duration = Duration::from_secs(30 * DAY as u64);
const DAY: i64 = 86_400;

/// The fields of a certificate that say what it is for (RFC 5280, 4.1).
struct CertificateFields<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    /// Seconds since the epoch.
    not_before: i64,
    not_after: i64,
}

/// Whether each certificate of a file is good now and for a while.
pub(super) fn expiry_warnings(
    file: &Path,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Vec<CertificateWarning> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut warnings = Vec::new();
    for (at, certificate) in chain.iter().enumerate() {
        let Some(certificate_fields) = certificate_fields(certificate) else { continue };
        let which = which(file, at, chain.len());
        let remaining = certificate_fields.not_after - seconds;
        let (what, fix) = if remaining < 0 {
            (
                format!("{which} ended on {}", day(certificate_fields.not_after)),
                "renew it: whoever checks it refuses it".to_owned(),
            )
        } else if certificate_fields.not_before > seconds {
            let what = format!("{which} is good only from {} on", day(certificate_fields.not_before));
            (what, "set this machine's clock, or wait: whoever checks it refuses it until then".to_owned())
        } else if remaining < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX) {
            let what =
                format!("{which} ends on {}, in {} days", day(certificate_fields.not_after), remaining / DAY);
            (what, "renew it; a new file is taken over without a restart".to_owned())
        } else {
            continue;
        };
        warnings.push(CertificateWarning { file: file.to_owned(), what, fix });
    }
    warnings
}

/// Whether each certificate is followed by the one that signed it: strict callers put no chain in order
/// themselves.
pub(super) fn chain_order_warning(file: &Path, chain: &[CertificateDer<'_>]) -> Option<CertificateWarning> {
    let certificate_fields: Vec<_> = chain.iter().map(certificate_fields).collect::<Option<_>>()?;
    let broken = (1..certificate_fields.len())
        .find(|at| certificate_fields[*at].subject != certificate_fields[*at - 1].issuer)?;
    let elsewhere =
        certificate_fields.iter().any(|other| other.subject == certificate_fields[broken - 1].issuer);
    let why = if elsewhere { "the chain is in the wrong order" } else { "it does not belong to the chain" };
    let what =
        format!("{} did not sign the one before it: {why}", which(file, broken, certificate_fields.len()));
    let fix = "write the server's own certificate first, then the one that signed it, and so on".to_owned();
    Some(CertificateWarning { file: file.to_owned(), what, fix })
}

/// Whether the certificate is for a name by which callers come.
pub(super) fn name_warning(file: &Path, leaf: &CertificateDer<'_>, name: &str) -> Option<CertificateWarning> {
    let wanted = ServerName::try_from(name.trim_matches(['[', ']']).trim_end_matches('.')).ok()?;
    let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
    if certificate.verify_is_valid_for_subject_name(&wanted).is_ok() {
        return None;
    }
    let known: Vec<&str> = certificate.valid_dns_names().collect();
    let known = if known.is_empty() {
        "names no host among its alternative names".to_owned()
    } else {
        format!("is for {}", known.join(", "))
    };
    let what = format!("{} {known} and not for {name}, by which callers come", file.display());
    let fix = format!("get one for {name}, or write another url");
    Some(CertificateWarning { file: file.to_owned(), what, fix })
}

fn which(file: &Path, at: usize, count: usize) -> String {
    match count {
        1 => format!("the certificate in {}", file.display()),
        _ => format!("certificate {} in {}", at + 1, file.display()),
    }
}

fn day(seconds: i64) -> String {
    let moment = Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    moment.to_string().split('T').next().unwrap_or_default().to_owned()
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

fn certificate_fields<'a>(der: &'a CertificateDer<'_>) -> Option<CertificateFields<'a>> {
    let mut certificate = content(&mut der.as_ref(), SEQUENCE)?;
    let mut fields = content(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        content(&mut fields, VERSION)?;
    }
    content(&mut fields, INTEGER)?;
    content(&mut fields, SEQUENCE)?;
    let issuer = content(&mut fields, SEQUENCE)?;
    let mut validity = content(&mut fields, SEQUENCE)?;
    let subject = content(&mut fields, SEQUENCE)?;
    Some(CertificateFields {
        issuer,
        subject,
        not_before: time(&mut validity)?,
        not_after: time(&mut validity)?,
    })
}

/// Takes the next element, which has to be of this kind, off `rest`.
fn content<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let [found, length, after @ ..] = *rest else { return None };
    let (length, after) = match *length {
        short @ 0..0x80 => (usize::from(short), after),
        long => {
            let (bytes, after) = after.split_at_checked(usize::from(long & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), after)
        }
    };
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    (*found == tag).then_some(content)
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` (RFC 5280, 4.1.2.5).
fn time(rest: &mut &[u8]) -> Option<i64> {
    let tag = *rest.first()?;
    let text = std::str::from_utf8(content(rest, tag)?).ok()?.strip_suffix('Z')?;
    let (year, text) = match tag {
        UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (year.parse().ok()?, text)
        }
        _ => return None,
    };
    let mut parts = [0i64; 5];
    for (at, part) in parts.iter_mut().enumerate() {
        *part = text.get(2 * at..2 * at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    (1..=12).contains(&month).then(|| days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

/// Days since 1 January 1970 in the Gregorian calendar. Years begin in March, so that the leap day is the
/// last of one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    fn at(text: &str) -> Timestamp {
        let since = humantime::parse_rfc3339(text).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since.as_millis() as u64)
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2026, 3, 1);
        params.not_after = rcgen::date_time_ymd(2051, 3, 1);
        params
    }

    #[test]
    fn an_end_that_is_past_near_or_far_is_told_in_days() {
        let mut params = params("leaf");
        params.not_after = rcgen::date_time_ymd(2028, 3, 1);
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let told = |now: &str| {
            let warnings = expiry_warnings(Path::new("c.pem"), &[leaf.der().clone()], at(now));
            warnings.into_iter().map(|doubt| doubt.what).collect::<String>()
        };
        assert_eq!(told("2026-02-28T23:59:59Z"), "the certificate in c.pem is good only from 2026-03-01 on");
        assert_eq!(told("2026-03-01T00:00:00Z"), "");
        assert_eq!(told("2028-01-31T00:00:00Z"), "");
        // 2028 is a leap year.
        assert_eq!(told("2028-01-31T00:00:01Z"), "the certificate in c.pem ends on 2028-03-01, in 29 days");
        assert_eq!(told("2028-03-01T00:00:01Z"), "the certificate in c.pem ended on 2028-03-01");
    }

    #[test]
    fn a_year_beyond_2049_is_written_in_four_digits_and_read() {
        let leaf = params("leaf").self_signed(&KeyPair::generate().unwrap()).unwrap();
        let warnings = expiry_warnings(Path::new("c.pem"), &[leaf.der().clone()], at("2051-02-20T00:00:00Z"));
        assert!(warnings[0].what.contains("ends on 2051-03-01, in 9 days"), "{warnings:?}");
    }

    #[test]
    fn a_chain_is_doubted_where_a_certificate_did_not_sign_the_one_before_it() {
        let key = || KeyPair::generate().unwrap();
        let authority = |name: &str| {
            let mut params = params(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let (root_key, middle_key) = (key(), key());
        let root = authority("root").self_signed(&root_key).unwrap();
        let middle =
            authority("middle").signed_by(&middle_key, &Issuer::new(authority("root"), root_key)).unwrap();
        let leaf = params("leaf").signed_by(&key(), &Issuer::new(authority("middle"), middle_key)).unwrap();
        let other = params("other").self_signed(&key()).unwrap();
        let [root, middle, leaf, other] = [root, middle, leaf, other].map(|made| made.der().clone());
        let told = |chain: &[CertificateDer<'static>]| {
            chain_order_warning(Path::new("c.pem"), chain).map(|doubt| doubt.what)
        };
        assert_eq!(told(&[leaf.clone(), middle.clone(), root.clone()]), None);
        assert_eq!(told(std::slice::from_ref(&leaf)), None);
        let swapped = told(&[leaf.clone(), root, middle]).unwrap();
        assert_eq!(
            swapped,
            "certificate 2 in c.pem did not sign the one before it: the chain is in the wrong order"
        );
        let foreign = told(&[leaf, other]).unwrap();
        assert!(foreign.contains("does not belong"), "{foreign}");
    }

    #[test]
    fn a_name_that_the_certificate_is_not_for_is_told_with_those_it_is_for() {
        let leaf = params("leaf").self_signed(&KeyPair::generate().unwrap()).unwrap();
        let told = |name: &str| name_warning(Path::new("c.pem"), leaf.der(), name).map(|doubt| doubt.what);
        assert_eq!(told("gateway.test"), None);
        assert_eq!(told("GATEWAY.test."), None);
        assert!(told("other.test").unwrap().contains("is for gateway.test and not for other.test"));
        assert!(told("10.0.0.1").unwrap().contains("not for 10.0.0.1"));
    }

    #[test]
    fn what_is_no_certificate_tells_nothing_and_ends_nothing() {
        for bytes in [&b""[..], b"0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", &[0x30; 40]] {
            assert!(certificate_fields(&CertificateDer::from(bytes)).is_none());
        }
    }
}
