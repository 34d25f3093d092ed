//! What each realm needs at run time: the way to its hosts and its control calls. Made at start and again at
//! every reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context;
use http::HeaderValue;

use crate::access::control_calls::ControlCalls;
use crate::access::registry::RouteRules;
use crate::config::{Config, RealmConfig, UpstreamConfig};
use crate::model::account::RealmName;
use crate::pairing::PairingRealm;
use crate::platform::PlatformClient;
use crate::upstream::{Connector, ProxyVariables};

/// One realm, ready to be spoken to.
#[derive(Clone)]
pub struct RealmParts {
    pub connector: Connector,
    pub platform: Arc<PlatformClient>,
}

/// `via` as [`PlatformClient::with_via`] has it.
pub fn build(
    realm: &RealmConfig,
    upstream: &UpstreamConfig,
    via: Option<&HeaderValue>,
) -> anyhow::Result<RealmParts> {
    let connector = Connector::new(realm, upstream, &ProxyVariables::from_env())
        .with_context(|| format!("realm {}", realm.name))?;
    let platform =
        PlatformClient::new(realm, connector.clone()).with_context(|| format!("realm {}", realm.name))?;
    let platform = match via {
        Some(via) => platform.with_via(via.clone()),
        None => platform,
    };
    Ok(RealmParts { connector, platform: Arc::new(platform) })
}

pub fn build_all(config: &Config, via: &HeaderValue) -> anyhow::Result<BTreeMap<RealmName, RealmParts>> {
    let built = config.realms.values().map(|realm| {
        let parts = build(realm, &config.upstream, Some(via))?;
        Ok((realm.name.clone(), parts))
    });
    built.collect()
}

pub fn control_calls(realms: &BTreeMap<RealmName, RealmParts>) -> HashMap<RealmName, Arc<dyn ControlCalls>> {
    realms
        .iter()
        .map(|(name, parts)| (name.clone(), parts.platform.clone() as Arc<dyn ControlCalls>))
        .collect()
}

pub fn for_pairing(
    config: &Config,
    realms: &BTreeMap<RealmName, RealmParts>,
) -> BTreeMap<RealmName, PairingRealm> {
    let with_config = realms.iter().filter_map(|(name, parts)| Some((name, parts, config.realms.get(name)?)));
    with_config
        .map(|(name, parts, realm)| (name.clone(), PairingRealm::new(realm, parts.platform.clone())))
        .collect()
}

pub fn rules(config: &Config) -> HashMap<RealmName, RouteRules> {
    config.realms.iter().map(|(name, realm)| (name.clone(), RouteRules::of(realm))).collect()
}

/// Realms whose credentials or addresses differ: accounts that needed a login are tried again there.
pub fn changed(old: &Config, new: &Config) -> Vec<RealmName> {
    let face = |realm: &RealmConfig| {
        (
            realm.client_id.clone(),
            realm.client_secret.clone(),
            realm.oauth_base.clone(),
            realm.base_url.clone(),
        )
    };
    let differs = |(name, realm): &(&RealmName, &RealmConfig)| {
        old.realms.get(*name).is_none_or(|before| face(before) != face(realm))
    };
    new.realms.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}
