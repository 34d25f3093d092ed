//! The proof that a held key is a database's key: a known sentence, sealed under each key in use. A wrong key
//! is found at start, not at the first call.

use super::StoreError;
use super::seal::{SealContext, SealKeys};

const KEY_CHECK_TEXT: &str = "the gateway's store opens with this key";

/// A sealed sentence to be kept under this key id.
#[derive(Debug)]
pub struct NewKeyCheck {
    pub key_id: String,
    pub sealed: Vec<u8>,
}

/// Proves on the sealed canaries that the held keys are this database's. A key that is new to it is taken in
/// beside a proven one: then there is a canary to write down.
pub fn verify(
    keys: &SealKeys,
    key_checks: &[(String, Vec<u8>)],
    holds_grants: bool,
    database: &str,
) -> Result<Option<NewKeyCheck>, StoreError> {
    let held: Vec<String> = keys.ids().map(|id| id.to_string()).collect();
    let verified: Vec<&String> = key_checks.iter().map(|(id, _)| id).filter(|id| held.contains(id)).collect();
    for (id, sealed) in key_checks.iter().filter(|(id, _)| held.contains(id)) {
        keys.unseal(context(id), sealed).map_err(|why| {
            StoreError::Refused(format!("{database}: the proof of key {id} does not open: {why}"))
        })?;
    }
    if verified.is_empty() && (!key_checks.is_empty() || holds_grants) {
        let used: Vec<&str> = key_checks.iter().map(|(id, _)| id.as_str()).collect();
        return Err(StoreError::Refused(format!(
            "the key does not belong to {database}: that was sealed under key {}, and key {} is held; put the right key back",
            if used.is_empty() { "(not recorded)".to_owned() } else { used.join(", ") },
            held.join(", ")
        )));
    }
    let key_id = keys.sealing_id().to_string();
    if verified.contains(&&key_id) {
        return Ok(None);
    }
    let sealed = keys
        .seal(context(&key_id), KEY_CHECK_TEXT)
        .map_err(|why| StoreError::Refused(format!("the key cannot be used: {why}")))?;
    Ok(Some(NewKeyCheck { key_id, sealed }))
}

fn context(key_id: &str) -> SealContext<'_> {
    SealContext { table: "seal_keys", row: key_id, realm: "", column: "canary" }
}
