//! Reads what a CA's certificate says of itself. It is read without being trusted: it came from our own
//! folder, and whether the key beside it fits is `authority`'s question.

use yasna::models::ObjectIdentifier;
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, BERReaderSeq, Tag, tags};

/// The fields of a CA's certificate (RFC 5280, 4.1 and 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CaFields {
    /// As DER.
    pub subject: Vec<u8>,
    pub common_name: String,
    /// Seconds since the epoch.
    pub not_before: i64,
    pub not_after: i64,
    /// SubjectPublicKeyInfo as DER.
    pub public_key: Vec<u8>,
    pub is_ca: bool,
    /// The permitted DNS names of critical name constraints; empty where there are none, or where something
    /// else than DNS names is permitted too.
    pub permitted_names: Vec<String>,
}

const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];

/// `None` for what cannot be read as a certificate.
pub(super) fn read(der: &[u8]) -> Option<CaFields> {
    yasna::parse_der(der, |reader| {
        reader.read_sequence(|certificate| {
            let fields = certificate.next().read_sequence(to_be_signed)?;
            certificate.next().read_der()?;
            certificate.next().read_der()?;
            Ok(fields)
        })
    })
    .ok()
}

fn to_be_signed(fields: &mut BERReaderSeq<'_, '_>) -> ASN1Result<CaFields> {
    fields.next().read_tagged(Tag::context(0), |version| version.read_u8())?;
    for _serial_algorithm_issuer in 0..3 {
        fields.next().read_der()?;
    }
    let (not_before, not_after) =
        fields.next().read_sequence(|validity| Ok((time(validity.next())?, time(validity.next())?)))?;
    let subject = fields.next().read_der()?;
    let public_key = fields.next().read_der()?;
    let mut read = CaFields {
        common_name: common_name(&subject)?,
        subject,
        not_before,
        not_after,
        public_key,
        is_ca: false,
        permitted_names: Vec::new(),
    };
    fields.next().read_tagged(Tag::context(3), |extensions| {
        extensions.read_sequence_of(|extension| extension.read_sequence(|one| read.take_extension(one)))
    })?;
    Ok(read)
}

impl CaFields {
    fn take_extension(&mut self, extension: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
        let id = extension.next().read_oid()?;
        let critical = extension.read_default(false, |critical| critical.read_bool())?;
        let content = extension.next().read_bytes()?;
        if is(&id, &BASIC_CONSTRAINTS) {
            self.is_ca = yasna::parse_der(&content, |reader| {
                reader.read_sequence(|constraints| {
                    let is_ca = constraints.read_default(false, |is_ca| is_ca.read_bool())?;
                    constraints.read_optional(|path_length| path_length.read_u32())?;
                    Ok(is_ca)
                })
            })?;
        } else if is(&id, &NAME_CONSTRAINTS) && critical {
            self.permitted_names = yasna::parse_der(&content, |reader| {
                reader.read_sequence(|subtrees| {
                    let permitted = subtrees
                        .next()
                        .read_tagged_implicit(Tag::context(0), |list| list.collect_sequence_of(dns_name))?;
                    subtrees.read_optional(|excluded| excluded.read_der())?;
                    Ok(permitted)
                })
            })?;
        }
        Ok(())
    }
}

/// One permitted subtree, which has to be a DNS name.
fn dns_name(subtree: BERReader<'_, '_>) -> ASN1Result<String> {
    subtree.read_sequence(|base| {
        base.next().read_tagged_implicit(Tag::context(2), |name| name.read_ia5_string())
    })
}

/// The one attribute of a subject that is a common name and nothing else.
fn common_name(subject: &[u8]) -> ASN1Result<String> {
    yasna::parse_der(subject, |reader| {
        reader.read_sequence(|names| {
            names.next().read_set_of_one(|attribute| {
                attribute.read_sequence(|parts| {
                    let id = parts.next().read_oid()?;
                    if !is(&id, &COMMON_NAME) {
                        return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
                    }
                    parts.next().read_utf8string()
                })
            })
        })
    })
}

/// `SET OF` with one element.
trait ReadSetOfOne {
    fn read_set_of_one<T>(self, read: impl Fn(BERReader<'_, '_>) -> ASN1Result<T>) -> ASN1Result<T>;
}

impl ReadSetOfOne for BERReader<'_, '_> {
    fn read_set_of_one<T>(self, read: impl Fn(BERReader<'_, '_>) -> ASN1Result<T>) -> ASN1Result<T> {
        let mut found = None;
        self.read_set_of(|element| {
            found = Some(read(element)?);
            Ok(())
        })?;
        found.ok_or(ASN1Error::new(ASN1ErrorKind::Invalid))
    }
}

fn is(id: &ObjectIdentifier, words: &[u64]) -> bool {
    id.components().as_slice() == words
}

fn time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    if reader.lookahead_tag()? == tags::TAG_UTCTIME {
        Ok(reader.read_utctime()?.datetime().unix_timestamp())
    } else {
        Ok(reader.read_generalized_time()?.datetime().unix_timestamp())
    }
}
