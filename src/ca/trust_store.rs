//! The CA's certificate in the forms that programs read: never with the key, which is in none of them.

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag};

use crate::clock::Timestamp;

/// The password of `p12` and `jks`: Java's own default. It protects nothing, since a certificate is no
/// secret.
pub const TRUST_STORE_PASSWORD: &str = "changeit";

/// A form of trust store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustStoreFormat {
    /// OpenSSL, Debian, PHP, Python, curl.
    Pem,
    /// Windows, .NET.
    Der,
    /// Java 9 and later (`-Djavax.net.ssl.trustStoreType=PKCS12`).
    Pkcs12,
    /// Java 8 and before.
    Jks,
}

/// The certificate as a file of this form. `now` is when the entry was made, where the form keeps that.
pub fn encode(format: TrustStoreFormat, certificate: &CertificateDer<'_>, now: Timestamp) -> Vec<u8> {
    match format {
        TrustStoreFormat::Pem => pem(certificate),
        TrustStoreFormat::Der => certificate.to_vec(),
        TrustStoreFormat::Pkcs12 => pkcs12(certificate),
        TrustStoreFormat::Jks => jks(certificate, now),
    }
}

const ALIAS: &str = "genapi-gateway-ca";

fn pem(certificate: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem.into_bytes()
}

/// One trusted certificate as `sun.security.provider.JavaKeyStore` writes it, version 2.
fn jks(certificate: &[u8], now: Timestamp) -> Vec<u8> {
    let text = |store: &mut Vec<u8>, text: &str| {
        store.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
        store.extend_from_slice(text.as_bytes());
    };
    let number = |store: &mut Vec<u8>, number: usize| {
        store.extend_from_slice(&u32::try_from(number).unwrap_or_default().to_be_bytes());
    };
    let mut store = vec![0xfe, 0xed, 0xfe, 0xed];
    number(&mut store, 2);
    number(&mut store, 1);
    // A trusted certificate; 1 would be a key.
    number(&mut store, 2);
    text(&mut store, ALIAS);
    store.extend_from_slice(&now.as_millis().to_be_bytes());
    text(&mut store, "X.509");
    number(&mut store, certificate.len());
    store.extend_from_slice(certificate);
    let mut keyed = utf16(TRUST_STORE_PASSWORD);
    keyed.extend_from_slice(b"Mighty Aphrodite");
    keyed.extend_from_slice(&store);
    store.extend_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &keyed).as_ref());
    store
}

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
/// Java's: without it, an entry is a certificate and not a trusted one.
const TRUSTED_KEY_USAGE: &[u64] = &[2, 16, 840, 1, 113_894, 746_875, 1, 1];
const ANY_USAGE: &[u64] = &[2, 5, 29, 37, 0];
const SHA1: &[u64] = &[1, 3, 14, 3, 2, 26];

/// RFC 7292. Not encrypted, since a certificate is no secret; with a MAC, without which old Javas and Windows
/// take no file, by SHA-1, the only one that they all know.
fn pkcs12(certificate: &[u8]) -> Vec<u8> {
    let bags = yasna::construct_der(|writer| {
        writer.write_sequence_of(|bags| bags.next().write_sequence(|bag| certificate_bag(bag, certificate)));
    });
    let contents = yasna::construct_der(|writer| {
        writer.write_sequence_of(|parts| data(parts.next(), &bags));
    });
    let mut salt = [0; 16];
    // The MAC keeps nobody out, whatever its salt: the password is printed in the documents.
    let _ = rand::fill(&mut salt);
    let key = hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        &mac_key(TRUST_STORE_PASSWORD, &salt, ITERATIONS),
    );
    let mac = hmac::sign(&key, &contents);
    yasna::construct_der(|writer| {
        writer.write_sequence(|store| {
            store.next().write_u8(3);
            data(store.next(), &contents);
            store.next().write_sequence(|mac_data| {
                mac_data.next().write_sequence(|info| {
                    info.next().write_sequence(|algorithm| {
                        algorithm.next().write_oid(&id(SHA1));
                        algorithm.next().write_null();
                    });
                    info.next().write_bytes(mac.as_ref());
                });
                mac_data.next().write_bytes(&salt);
                mac_data.next().write_u32(ITERATIONS);
            });
        });
    })
}

fn certificate_bag(bag: &mut yasna::DERWriterSeq<'_>, certificate: &[u8]) {
    bag.next().write_oid(&id(CERTIFICATE_BAG));
    bag.next().write_tagged(Tag::context(0), |writer| {
        writer.write_sequence(|content| {
            content.next().write_oid(&id(X509_CERTIFICATE));
            content.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
        });
    });
    bag.next().write_set_of(|attributes| {
        attributes.next().write_sequence(|attribute| {
            attribute.next().write_oid(&id(FRIENDLY_NAME));
            attribute.next().write_set_of(|values| values.next().write_bmp_string(ALIAS));
        });
        attributes.next().write_sequence(|attribute| {
            attribute.next().write_oid(&id(TRUSTED_KEY_USAGE));
            attribute.next().write_set_of(|values| values.next().write_oid(&id(ANY_USAGE)));
        });
    });
}

/// A ContentInfo that holds bytes as they are.
fn data(writer: DERWriter<'_>, bytes: &[u8]) {
    writer.write_sequence(|info| {
        info.next().write_oid(&id(DATA));
        info.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(bytes));
    });
}

fn id(words: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(words)
}

const ITERATIONS: u32 = 2048;

/// RFC 7292, B.2, for SHA-1 and a key no longer than its output: one block, so that no second one has to be
/// derived from the first.
fn mac_key(password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
    const BLOCK: usize = 64;
    /// The purpose of the key: a MAC (RFC 7292, B.3).
    const PURPOSE: u8 = 3;
    let filled = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(bytes.len().div_ceil(BLOCK) * BLOCK).collect()
    };
    let mut password = utf16(password);
    password.extend_from_slice(&[0, 0]);
    let mut block = vec![PURPOSE; BLOCK];
    block.extend(filled(salt));
    block.extend(filled(&password));
    for _ in 0..iterations {
        block = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &block).as_ref().to_vec();
    }
    block
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vector for a MAC key by SHA-1, as BouncyCastle and others test it.
    #[test]
    fn the_mac_key_is_derived_as_elsewhere() {
        let key = mac_key("smeg", &hex::decode("3d83c0e4546ac140").unwrap(), 1);
        assert_eq!(hex::encode(key), "8d967d88f6caa9d714800ab3d48051d63f73a312");
    }

    #[test]
    fn every_form_holds_the_certificate_as_it_is() {
        let certificate = CertificateDer::from((0..=255).cycle().take(700).collect::<Vec<u8>>());
        let now = Timestamp::from_millis(1);
        let holds =
            |format| encode(format, &certificate, now).windows(700).any(|part| part == &certificate[..]);
        for format in [TrustStoreFormat::Der, TrustStoreFormat::Pkcs12, TrustStoreFormat::Jks] {
            assert!(holds(format), "{format:?}");
        }
        let pem = String::from_utf8(encode(TrustStoreFormat::Pem, &certificate, now)).unwrap();
        assert!(pem.lines().all(|line| line.len() <= 64) && pem.ends_with("-----END CERTIFICATE-----\n"));
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(STANDARD.decode(body).unwrap(), certificate.to_vec());
    }

    /// Read field by field, as `JavaKeyStore.engineLoad` does.
    #[test]
    fn a_jks_has_one_trusted_certificate_and_the_digest_that_java_computes() {
        let store =
            encode(TrustStoreFormat::Jks, &CertificateDer::from(vec![7; 300]), Timestamp::from_millis(5));
        let (content, sum) = store.split_at(store.len() - 20);
        let mut keyed: Vec<u8> = "changeit".bytes().flat_map(|letter| [0, letter]).collect();
        keyed.extend_from_slice(b"Mighty Aphrodite");
        keyed.extend_from_slice(content);
        assert_eq!(sum, digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &keyed).as_ref());
        assert_eq!(hex::encode(&content[..16]), "feedfeed000000020000000100000002");
        assert_eq!(&content[16..18], [0, 17]);
        assert_eq!(&content[18..35], b"genapi-gateway-ca");
        assert_eq!(&content[35..43], 5u64.to_be_bytes());
        assert_eq!(&content[43..50], b"\0\x05X.509");
        assert_eq!(&content[50..54], 300u32.to_be_bytes());
        assert_eq!(&content[54..], [7; 300]);
    }
}
