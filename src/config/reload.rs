//! What a reload can take over at once, and what needs a restart: sockets, threads and files that were opened
//! at start.

use super::{Config, StoreUrl};

/// The changed keys that a reload cannot take over. Whatever is not named here is taken over live: realms,
/// callers, url, retry, renewal, upstream, log level, …
pub fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    compared(old, new).into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// Each key that needs a restart, and whether it changed.
pub fn compared(old: &Config, new: &Config) -> Vec<(&'static str, bool)> {
    let (was, is) = (&old.gateway, &new.gateway);
    let public =
        |config: &Config| config.public.as_ref().map(|public| (public.listen.clone(), public.tls.clone()));
    vec![
        ("gateway.listen", was.listen != is.listen),
        ("gateway.tls", was.tls != is.tls),
        ("gateway.forward_proxy", was.forward_proxy != is.forward_proxy),
        // The worker count is fixed for a process; the limits are handed to each worker's connections when it
        // starts.
        ("gateway.workers", was.workers != is.workers),
        ("gateway.max_connections", was.max_connections != is.max_connections),
        ("gateway.max_head", was.max_head != is.max_head),
        ("gateway.max_headers", was.max_headers != is.max_headers),
        ("gateway.head_timeout", was.head_timeout != is.head_timeout),
        ("gateway.body_idle_timeout", was.body_idle_timeout != is.body_idle_timeout),
        ("gateway.keep_alive_timeout", was.keep_alive_timeout != is.keep_alive_timeout),
        ("gateway.drain_timeout", was.drain_timeout != is.drain_timeout),
        // Read where a connection is accepted and where a caller is identified: the two must never differ.
        ("gateway.trusted_proxies", was.trusted_proxies != is.trusted_proxies),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.tls", old.admin.tls != new.admin.tls),
        ("admin.token", old.admin.token != new.admin.token),
        ("admin.audit", old.admin.audit != new.admin.audit),
        ("public", public(old) != public(new)),
        ("store.url", urls(old).0 != urls(new).0),
        ("store.listen_url", urls(old).1 != urls(new).1),
        ("store.key", old.store.key != new.store.key),
        // The thread that writes it is started once; off works at any time.
        ("log.access", !old.log.access && new.log.access),
        ("log.format", old.log.format != new.log.format),
    ]
}

/// Apart, so that a change of the listening address alone names its own key.
fn urls(config: &Config) -> (StoreUrl, Option<&str>) {
    match &config.store.url {
        StoreUrl::Postgres { url, listen_url } => {
            (StoreUrl::Postgres { url: url.clone(), listen_url: None }, listen_url.as_deref())
        }
        StoreUrl::Sqlite(path) => (StoreUrl::Sqlite(path.clone()), None),
    }
}
