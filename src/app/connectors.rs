//! The gateway's way to the platform's hosts: each realm's own `Connector`, swapped as a whole by a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::http1::client::{Dial, DialError, PoolKey};
use crate::model::account::RealmName;
use crate::upstream::{ConnectError, Connector, Stream};

use super::realms::RealmParts;

#[derive(Clone)]
pub struct RealmConnectors(Arc<ArcSwap<BTreeMap<RealmName, Connector>>>);

impl RealmConnectors {
    pub fn new(realms: &BTreeMap<RealmName, RealmParts>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(connectors_of(realms))))
    }

    pub fn replace(&self, realms: &BTreeMap<RealmName, RealmParts>) {
        self.0.store(Arc::new(connectors_of(realms)));
    }
}

fn connectors_of(realms: &BTreeMap<RealmName, RealmParts>) -> BTreeMap<RealmName, Connector> {
    realms.iter().map(|(name, parts)| (name.clone(), parts.connector.clone())).collect()
}

impl Dial for RealmConnectors {
    type Stream = Stream;

    async fn dial(&self, key: PoolKey<'_>) -> Result<Stream, DialError> {
        let PoolKey { partition: realm, host, port, secure } = key;
        let connector = self.0.load().get(realm).cloned();
        let connector = connector.ok_or_else(|| DialError {
            reason: format!("realm {realm} is not configured"),
            permanent: true,
        })?;
        connector
            .connect(host, port, secure)
            .await
            .map_err(|error| DialError { permanent: is_permanent(&error), reason: error.to_string() })
    }
}

/// A refused certificate or address is not cured by trying again at once.
fn is_permanent(error: &ConnectError) -> bool {
    match error {
        ConnectError::AddressRefused { .. } | ConnectError::Setup { .. } => true,
        ConnectError::Tls { .. } => error.is_certificate(),
        ConnectError::NameUnknown { .. }
        | ConnectError::ConnectFailed { .. }
        | ConnectError::TimedOut { .. }
        | ConnectError::Proxy { .. } => false,
    }
}
