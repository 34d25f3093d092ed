//! A CA in memory: made for a set of hosts, or put together again from its two files, and signing leaves for
//! exactly these hosts.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use crate::clock::Timestamp;

use super::certificate::{self, CaFields};
use super::host_names::HostNames;
use super::key_algorithm::KeyAlgorithm;

/// Long enough to outlive the applications, since each trust store takes somebody's hands.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A program whose clock is slow must not refuse what was made a moment ago.
pub(super) const BACKDATED_BY: Duration = Duration::from_secs(86_400);

/// What a CA's certificate says, as people and applications need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySummary {
    pub certificate: CertificateDer<'static>,
    /// The subject's common name.
    pub name: String,
    /// What it may sign for.
    pub hosts: HostNames,
    /// Times of day.
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A CA with its key.
pub struct Authority {
    pub summary: AuthoritySummary,
    issuer: Issuer<'static, KeyPair>,
}

/// How long a leaf is good; `made` is a time of day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub made: Timestamp,
    pub life: Duration,
}

/// Why two files are no CA of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidCaError {
    /// It is not what `ca init` makes, or damaged.
    Certificate,
    /// It does not say which hosts it may sign for: nobody should trust it, and we sign nothing with it.
    Unconstrained,
    Key,
    Mismatch,
}

/// A new CA for `hosts` and its key, in PEM form.
pub(super) fn make(
    hosts: &HostNames,
    algorithm: KeyAlgorithm,
    now: Timestamp,
) -> Result<(CertificateDer<'static>, String), rcgen::Error> {
    let key = algorithm.generate_for_ca()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("genapi-gateway CA {}", hex::encode(random::<4>()?)));
    params.serial_number = Some(serial_number()?);
    params.not_before = offset_time(now - BACKDATED_BY);
    params.not_after = offset_time(now + CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let everywhere = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: hosts.iter().map(|host| GeneralSubtree::DnsName(host.to_owned())).collect(),
        // A kind of name that nothing is said about would be permitted.
        excluded_subtrees: everywhere.map(GeneralSubtree::IpAddress).to_vec(),
    });
    Ok((params.self_signed(&key)?.der().clone(), key.serialize_pem()))
}

impl AuthoritySummary {
    pub(super) fn read(certificate: CertificateDer<'static>) -> Result<(Self, Vec<u8>), InvalidCaError> {
        let fields = certificate::read(&certificate).ok_or(InvalidCaError::Certificate)?;
        let CaFields { common_name, not_before, not_after, public_key, .. } = &fields;
        let written_by_us = subject_der(common_name) == fields.subject;
        if !fields.is_ca || !written_by_us {
            return Err(InvalidCaError::Certificate);
        }
        let hosts = HostNames::new(fields.permitted_names.iter().map(String::as_str));
        let summary = Self {
            name: common_name.clone(),
            hosts: hosts.map_err(|_| InvalidCaError::Unconstrained)?,
            not_before: timestamp(*not_before),
            not_after: timestamp(*not_after),
            certificate,
        };
        Ok((summary, public_key.clone()))
    }

    /// SHA-256 over the DER form, as trust stores show it: `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.certificate);
        hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

impl Authority {
    pub(super) fn from_parts(
        certificate: CertificateDer<'static>,
        key_pem: &str,
    ) -> Result<Self, InvalidCaError> {
        let (summary, public_key) = AuthoritySummary::read(certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| InvalidCaError::Key)?;
        if key.subject_public_key_info() != public_key {
            return Err(InvalidCaError::Mismatch);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&summary.name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { summary, issuer: Issuer::new(params, key) })
    }

    /// A leaf for `hosts`, which have to be this CA's, and no other, good from a day before `now`, which is a
    /// time of day.
    pub(super) fn sign_leaf(
        &self,
        key: &KeyPair,
        hosts: &HostNames,
        usages: &[KeyUsagePurpose],
        validity: Validity,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new(hosts.iter().map(str::to_owned).collect::<Vec<_>>())?;
        params.distinguished_name = subject(hosts.first());
        params.serial_number = Some(serial_number()?);
        params.not_before = offset_time(validity.made - BACKDATED_BY);
        params.not_after = offset_time(validity.made + validity.life);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages.to_vec();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

/// The key stays out.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("name", &self.summary.name).finish_non_exhaustive()
    }
}

fn subject(common_name: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// [`subject`] as rcgen writes it. Leaves name their issuer byte by byte as the CA names itself, so a CA that
/// was written otherwise cannot be used.
fn subject_der(common_name: &str) -> Vec<u8> {
    let id = yasna::models::ObjectIdentifier::from_slice(&[2, 5, 4, 3]);
    yasna::construct_der(|writer| {
        writer.write_sequence(|names| {
            names.next().write_set(|attributes| {
                attributes.next().write_sequence(|attribute| {
                    attribute.next().write_oid(&id);
                    attribute.next().write_utf8_string(common_name);
                });
            });
        });
    })
}

/// Random: rcgen's own follows from the key alone, and a renewed leaf of the same key must not have the
/// number of the one before it.
fn serial_number() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = random::<16>()?;
    // A positive number whose first byte is not left out.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn random<const N: usize>() -> Result<[u8; N], rcgen::Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(bytes)
}

/// Whole seconds: certificates know no others.
fn offset_time(at: Timestamp) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_secs())
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{ServerName, UnixTime};
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const LIFE: Duration = Duration::from_secs(7 * 86_400);

    fn authority() -> Authority {
        let hosts = HostNames::new(["api.old.test", "login.old.test"]).unwrap();
        let (certificate, key) = make(&hosts, KeyAlgorithm::Ecdsa, NOW).unwrap();
        Authority::from_parts(certificate, &key).unwrap()
    }

    /// As a program that trusts the CA judges it.
    fn verify(
        authority: &Authority,
        leaf: &CertificateDer<'_>,
        host: &str,
        at: Timestamp,
    ) -> Result<(), webpki::Error> {
        let anchor = anchor_from_trusted_cert(&authority.summary.certificate).unwrap();
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all,
            &[anchor],
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs())),
            KeyUsage::server_auth(),
            None,
            None,
        )?;
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from(host).unwrap())
    }

    /// What somebody could sign who has stolen the CA's key.
    fn stolen(authority: &Authority, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = subject("x");
        params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().der().clone()
    }

    #[test]
    fn a_leaf_is_good_for_each_host_of_the_ca_and_for_no_other_and_ends() {
        let authority = authority();
        let leaf = authority
            .sign_leaf(
                &KeyPair::generate().unwrap(),
                &authority.summary.hosts,
                &[KeyUsagePurpose::DigitalSignature],
                Validity { made: NOW, life: LIFE },
            )
            .unwrap();
        for host in ["api.old.test", "login.old.test"] {
            verify(&authority, &leaf, host, NOW).unwrap();
            verify(&authority, &leaf, host, NOW - Duration::from_secs(80_000)).unwrap();
            assert!(verify(&authority, &leaf, host, NOW + LIFE + Duration::from_secs(1)).is_err());
        }
        for host in ["x.api.old.test", "old.test", "other.test", "127.0.0.1"] {
            assert!(verify(&authority, &leaf, host, NOW).is_err(), "{host}");
        }
    }

    #[test]
    fn whoever_has_the_key_can_sign_for_no_other_name_and_no_address() {
        let authority = authority();
        verify(&authority, &stolen(&authority, &["api.old.test"]), "api.old.test", NOW).unwrap();
        for names in
            [&["other.test"][..], &["api.old.test", "other.test"], &["127.0.0.1"], &["::1"], &["old.test"]]
        {
            let refused = verify(&authority, &stolen(&authority, names), names[0], NOW).unwrap_err();
            assert_eq!(refused, webpki::Error::NameConstraintViolation, "{names:?}");
        }
    }

    #[test]
    fn a_ca_says_of_itself_what_it_was_made_for() {
        let summary = authority().summary;
        assert!(summary.name.starts_with("genapi-gateway CA "));
        assert_eq!(summary.hosts.to_string(), "api.old.test, login.old.test");
        assert_eq!(summary.not_before, NOW - BACKDATED_BY);
        assert_eq!(summary.not_after, NOW + CA_LIFE);
        assert_eq!(summary.fingerprint().len(), 95);
        assert_ne!(authority().summary.name, summary.name, "two CAs are told apart by their names");
    }

    #[test]
    fn what_is_no_certificate_is_refused_and_ends_nothing() {
        for bytes in [&b""[..], b"0", b"\x30\x84\xff\xff\xff\xff", &[0x30; 40], &[0x30, 0x80, 0, 0]] {
            let read = AuthoritySummary::read(CertificateDer::from(bytes.to_vec()));
            assert_eq!(read.unwrap_err(), InvalidCaError::Certificate);
        }
    }
}
