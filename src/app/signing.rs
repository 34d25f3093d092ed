//! The secrets that follow from the store's key: they sign gateway tokens and name this gateway in `Via`.

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::gateway::inbound::token::TokenKey;
use crate::store::{StoreError, key_file};

/// Gateway tokens are signed with a secret that follows from the store's key, so that they outlive a restart
/// and every replica reads them. Those that follow from older keys still read, so that a change of keys ends
/// no token.
pub struct SigningSecrets {
    /// Of the key that seals.
    signing: [u8; 32],
    older: Vec<[u8; 32]>,
}

impl SigningSecrets {
    pub fn derive(config: &Config) -> Result<Self, StoreError> {
        let environment = |name: &str| std::env::var_os(name);
        let mut secrets = key_file::derive(&config.store.key, "gateway tokens, version 1", &environment)?;
        Ok(Self { signing: secrets.remove(0), older: secrets })
    }

    pub fn token_key(&self) -> TokenKey {
        self.older.iter().fold(TokenKey::new(&self.signing), TokenKey::with_older_key)
    }

    /// Names this gateway in `Via`: the same for all replicas, and another one for a gateway that may rightly
    /// stand behind this one.
    pub fn instance(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.signing);
        hex::encode(&digest.as_ref()[..4])
    }
}

/// Before a rotation: the key that seals here, whose gateway is called `instance`, is the one that stands
/// first in the file now.
pub fn refuse_stale_key(config: &ArcSwap<Config>, instance: &str) -> Result<(), StoreError> {
    if SigningSecrets::derive(&config.load())?.instance() == instance {
        return Ok(());
    }
    Err(StoreError::Refused(
        "the first line of the store's key is not the key that this gateway seals with: restart the gateway, so that it \
         takes the new one, then rotate"
            .to_owned(),
    ))
}
