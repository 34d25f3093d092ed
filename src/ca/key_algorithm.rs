//! The two kinds of keys of a CA and its leaves, each of one size: what all programs of the last decade take,
//! and what older ones know.

use rcgen::{KeyPair, RsaKeySize};

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA P-256.
    Ecdsa,
    /// For programs that know no elliptic curves. Takes a good part of a second to make.
    Rsa,
}

impl KeyAlgorithm {
    /// For a CA's ten years, longer than the leaves': 3072 bits are what NIST SP 800-57 part 1 (rev. 5,
    /// 5.6.1) counts equal to P-256.
    pub(super) fn generate_for_ca(self) -> Result<KeyPair, rcgen::Error> {
        self.generate(RsaKeySize::_3072)
    }

    pub(super) fn generate_for_leaf(self) -> Result<KeyPair, rcgen::Error> {
        self.generate(RsaKeySize::_2048)
    }

    fn generate(self, rsa_size: RsaKeySize) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ecdsa => KeyPair::generate(),
            Self::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rsa_size),
        }
    }
}
