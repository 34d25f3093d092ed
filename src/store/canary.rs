//! The proof that a held key is a database's key: a known sentence, sealed under each key in use. A wrong key is found at start, not at the first call.

use super::StoreError;
use super::seal::{Place, SealKeys};

const CANARY: &str = "the gateway's store opens with this key";

/// A sealed sentence to be kept under this key id.
#[derive(Debug)]
pub struct NewCanary {
    pub key_id: String,
    pub sealed: Vec<u8>,
}

/// Proves on the sealed canaries that the held keys are this database's. A key that is new to it is taken in beside a proven one:
/// then there is a canary to write down.
pub fn prove(
    keys: &SealKeys,
    canaries: &[(String, Vec<u8>)],
    holds_grants: bool,
    database: &str,
) -> Result<Option<NewCanary>, StoreError> {
    let held: Vec<String> = keys.ids().map(|id| id.to_string()).collect();
    let proven: Vec<&String> = canaries.iter().map(|(id, _)| id).filter(|id| held.contains(id)).collect();
    for (id, sealed) in canaries.iter().filter(|(id, _)| held.contains(id)) {
        keys.unseal(place(id), sealed).map_err(|why| {
            StoreError::Refused(format!("{database}: the proof of key {id} does not open: {why}"))
        })?;
    }
    if proven.is_empty() && (!canaries.is_empty() || holds_grants) {
        let used: Vec<&str> = canaries.iter().map(|(id, _)| id.as_str()).collect();
        return Err(StoreError::Refused(format!(
            "the key does not belong to {database}: that was sealed under key {}, and key {} is held; put the right key back",
            if used.is_empty() { "(not recorded)".to_owned() } else { used.join(", ") },
            held.join(", ")
        )));
    }
    let key_id = keys.sealing_id().to_string();
    if proven.contains(&&key_id) {
        return Ok(None);
    }
    let sealed = keys
        .seal(place(&key_id), CANARY)
        .map_err(|why| StoreError::Refused(format!("the key cannot be used: {why}")))?;
    Ok(Some(NewCanary { key_id, sealed }))
}

fn place(key_id: &str) -> Place<'_> {
    Place { table: "seal_keys", row: key_id, realm: "", column: "canary" }
}
