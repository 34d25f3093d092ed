//! Seals secrets at rest with AES-256-GCM: a stolen disk or dump gives nothing away, and a changed or moved
//! value does not open.
//!
//! Every sealed value names its key, so that keys can be changed while old values remain.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;

/// The keys that are held: the first one seals, all of them open.
pub struct SealKeys {
    sealing: SealKey,
    older: Vec<SealKey>,
}

/// 256 bits that no database holds.
///
/// Nonces are random, 96 bits: good for 2^32 values under one key (NIST SP 800-38D, 8.3), which is decades of
/// 50,000 accounts refreshed every hour by one token each, and years with every column counted.
pub struct SealKey {
    id: KeyId,
    cipher: RandomizedNonceKey,
}

/// What a key is called where it may be seen: taken from its hash, tells nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_LEN]);

/// Where a sealed value belongs. It opens nowhere else, so no row can be given another's secret.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    pub table: &'static str,
    /// The account's name, or what else names the row.
    pub row: &'a str,
    pub realm: &'a str,
    pub column: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("it was sealed under key {0}, which is not held")]
    UnknownKey(KeyId),
    #[error("it was changed, or belongs elsewhere")]
    Broken,
    #[error("it is no sealed value")]
    Malformed,
    #[error("the cipher refused to work")]
    Cipher,
}

pub const KEY_LEN: usize = 32;
const KEY_ID_LEN: usize = 8;
const NONCE_LEN: usize = 12;
/// Format of a sealed value: this byte, key id, nonce, ciphertext, tag.
const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

impl SealKeys {
    pub fn new(sealing: SealKey, older: Vec<SealKey>) -> Self {
        Self { sealing, older }
    }

    pub fn sealing_id(&self) -> KeyId {
        self.sealing.id
    }

    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        std::iter::once(&self.sealing).chain(&self.older).map(|key| key.id)
    }

    /// Prefix of every value sealed with the current key.
    pub fn prefix(&self) -> [u8; 1 + KEY_ID_LEN] {
        let mut prefix = [FORMAT; 1 + KEY_ID_LEN];
        prefix[1..].copy_from_slice(&self.sealing.id.0);
        prefix
    }

    pub fn seal(&self, context: SealContext<'_>, secret: &str) -> Result<Vec<u8>, SealError> {
        let key = &self.sealing;
        let mut text = secret.as_bytes().to_vec();
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(context.associated_data(key.id)), &mut text)
            .map_err(|_| SealError::Cipher)?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + text.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&key.id.0);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    pub fn unseal(&self, context: SealContext<'_>, sealed: &[u8]) -> Result<String, SealError> {
        let (head, text) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Malformed)?;
        let (format, head) = head.split_at(1);
        let (id, nonce) = head.split_at(KEY_ID_LEN);
        if format != [FORMAT] {
            return Err(SealError::Malformed);
        }
        let id = KeyId(id.try_into().map_err(|_| SealError::Malformed)?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
        let key = std::iter::once(&self.sealing)
            .chain(&self.older)
            .find(|key| key.id == id)
            .ok_or(SealError::UnknownKey(id))?;
        let mut text = text.to_vec();
        let opened = key
            .cipher
            .open_in_place(nonce, Aad::from(context.associated_data(id)), &mut text)
            .map_err(|_| SealError::Broken)?
            .len();
        text.truncate(opened);
        String::from_utf8(text).map_err(|_| SealError::Broken)
    }
}

impl SealKey {
    pub fn new(key: &[u8; KEY_LEN]) -> Result<Self, SealError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Cipher)?;
        Ok(Self { id: KeyId::of(key), cipher })
    }
}

impl KeyId {
    fn of(key: &[u8; KEY_LEN]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"genapi-gateway seal key id\n");
        hash.update(key);
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&hash.finish().as_ref()[..KEY_ID_LEN]);
        Self(id)
    }
}

impl SealContext<'_> {
    /// The additional authenticated data: each part behind its length, so that no two places read alike.
    fn associated_data(&self, key: KeyId) -> Vec<u8> {
        let mut bound = Vec::with_capacity(128);
        for part in [
            self.table.as_bytes(),
            self.row.as_bytes(),
            self.realm.as_bytes(),
            self.column.as_bytes(),
            &key.0,
        ] {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part);
        }
        bound
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SealContext<'_> =
        SealContext { table: "grants", row: "smile-berlin", realm: "global", column: "refresh" };

    fn key(fill: u8) -> SealKey {
        SealKey::new(&[fill; KEY_LEN]).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let keys = SealKeys::new(key(1), vec![]);
        let sealed = keys.seal(HERE, "s3cret").unwrap();
        assert_eq!(keys.unseal(HERE, &sealed).unwrap(), "s3cret");
        for elsewhere in [
            SealContext { table: "pending_logins", ..HERE },
            SealContext { row: "smile-paris", ..HERE },
            SealContext { realm: "china", ..HERE },
            SealContext { column: "access", ..HERE },
            SealContext { row: "smile-berling", realm: "lobal", ..HERE },
        ] {
            assert_eq!(keys.unseal(elsewhere, &sealed), Err(SealError::Broken), "{elsewhere:?}");
        }
    }

    #[test]
    fn no_changed_bit_is_overlooked() {
        let keys = SealKeys::new(key(1), vec![]);
        let sealed = keys.seal(HERE, "s3cret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.unseal(HERE, &changed).is_err(), "byte {at}");
        }
        for short in 0..sealed.len() {
            assert!(keys.unseal(HERE, &sealed[..short]).is_err(), "{short} bytes");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let keys = SealKeys::new(key(1), vec![]);
        assert_ne!(keys.seal(HERE, "s3cret").unwrap(), keys.seal(HERE, "s3cret").unwrap());
    }

    #[test]
    fn an_older_key_still_opens_and_an_unknown_one_is_named() {
        let old = SealKeys::new(key(1), vec![]);
        let sealed = old.seal(HERE, "s3cret").unwrap();
        let rotated = SealKeys::new(key(2), vec![key(1)]);
        assert_eq!(rotated.unseal(HERE, &sealed).unwrap(), "s3cret");
        let new = rotated.seal(HERE, "s3cret").unwrap();
        assert_eq!(old.unseal(HERE, &new), Err(SealError::UnknownKey(rotated.sealing_id())));
    }

    #[test]
    fn a_key_prints_its_id_only() {
        let keys = SealKeys::new(key(0x41), vec![]);
        assert_eq!(format!("{keys:?}"), format!("[{}]", keys.sealing_id()));
        assert_eq!(keys.sealing_id().to_string().len(), 16);
    }
}
