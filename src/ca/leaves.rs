//! The certificates that callers are shown: one for each kind of key, for all hosts of the CA at once, so
//! that a caller that names no host finds its own in there. Short, made in memory, and replaced at half of
//! their life when somebody asks for one: an idle gateway makes none, and no timer can fail.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rcgen::{KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::OnceCell;

use crate::clock::{Clock, Timestamp};

use super::authority::{Authority, BACKDATED_BY, Validity};
use super::host_names::HostNames;
use super::key_algorithm::KeyAlgorithm;

/// Short enough that nobody has to be able to call one back.
pub const LEAF_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Makes and renews the leaves of one CA.
pub struct LeafSource {
    authority: Authority,
    clock: Clock,
    provider: Arc<CryptoProvider>,
    hosts: Arc<HostNames>,
    ecdsa: RenewingLeaf,
    /// Made when a caller comes that cannot do with the other one; takes a good part of a second.
    rsa: OnceCell<RenewingLeaf>,
}

/// One key and its present leaf. The key lives as long as the process, like that of the CA, which lies in the
/// same memory: whoever can read one can read the other.
struct RenewingLeaf {
    key: KeyPair,
    leaf: ArcSwapOption<Leaf>,
    renewing: Mutex<()>,
}

struct Leaf {
    certified_key: Arc<CertifiedKey>,
    /// A time of day.
    made: Timestamp,
}

/// No leaf can be made: the system gives no randomness, or the key does not sign.
#[derive(Debug, thiserror::Error)]
#[error("no certificate can be made ({0})")]
pub struct LeafError(String);

impl LeafSource {
    pub fn new(authority: Authority, clock: Clock, provider: Arc<CryptoProvider>) -> Result<Self, LeafError> {
        let ecdsa = RenewingLeaf::new(KeyAlgorithm::Ecdsa.generate_for_leaf().map_err(unavailable)?);
        let hosts = Arc::new(authority.summary.hosts.clone());
        let source = Self { authority, clock, provider, hosts, ecdsa, rsa: OnceCell::new() };
        // What cannot be done is known at the start.
        source.ecdsa()?;
        Ok(source)
    }

    /// The names that leaves are for.
    pub fn hosts(&self) -> &Arc<HostNames> {
        &self.hosts
    }

    /// ECDSA P-256.
    pub fn ecdsa(&self) -> Result<Arc<CertifiedKey>, LeafError> {
        self.ecdsa.current(self)
    }

    /// RSA 2048. The first one is made on another thread; many may wait for it.
    pub async fn rsa(&self) -> Result<Arc<CertifiedKey>, LeafError> {
        let make = || async {
            let made = tokio::task::spawn_blocking(|| KeyAlgorithm::Rsa.generate_for_leaf());
            let key = made.await.map_err(unavailable)?.map_err(unavailable)?;
            Ok(RenewingLeaf::new(key))
        };
        self.rsa.get_or_try_init(make).await?.current(self)
    }
}

impl LeafSource {
    /// As [`rsa`](Self::rsa), where its key is there already.
    pub(super) fn rsa_if_made(&self) -> Option<Result<Arc<CertifiedKey>, LeafError>> {
        self.rsa.get().map(|made| made.current(self))
    }
}

impl RenewingLeaf {
    fn new(key: KeyPair) -> Self {
        Self { key, leaf: ArcSwapOption::empty(), renewing: Mutex::new(()) }
    }

    /// The present leaf, or a new one where it is past half of its life or where the clock was set back
    /// before it. Signing takes well under a millisecond, so that it can be done by the thread that needs it.
    fn current(&self, source: &LeafSource) -> Result<Arc<CertifiedKey>, LeafError> {
        let now = source.clock.time_of_day(source.clock.now());
        if let Some(leaf) = self.leaf.load().as_ref().filter(|leaf| leaf.is_fresh(now)) {
            return Ok(leaf.certified_key.clone());
        }
        let _one_at_a_time = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked again: another thread may have made it meanwhile.
        if let Some(leaf) = self.leaf.load().as_ref().filter(|leaf| leaf.is_fresh(now)) {
            return Ok(leaf.certified_key.clone());
        }
        // RSA without ECDHE, which is all that another usage would be for, is not spoken here.
        let usages = [KeyUsagePurpose::DigitalSignature];
        let validity = Validity { made: now, life: LEAF_LIFE };
        let certificate = source.authority.sign_leaf(&self.key, source.hosts(), &usages, validity);
        let certificate = certificate.map_err(unavailable)?;
        let chain = vec![certificate, source.authority.summary.certificate.clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let certified_key = CertifiedKey::from_der(chain, key, &source.provider).map_err(unavailable)?;
        let certified_key = Arc::new(certified_key);
        self.leaf.store(Some(Arc::new(Leaf { certified_key: certified_key.clone(), made: now })));
        Ok(certified_key)
    }
}

impl Leaf {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now + BACKDATED_BY >= self.made && now.since(self.made) < LEAF_LIFE / 2
    }
}

fn unavailable(error: impl std::fmt::Display) -> LeafError {
    LeafError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{self, HostNames};

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn source(clock: &Clock) -> LeafSource {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ca");
        ca::init(&folder, &HostNames::new(["api.old.test"]).unwrap(), KeyAlgorithm::Ecdsa, START).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        LeafSource::new(ca::load(&folder).unwrap(), clock.clone(), provider).unwrap()
    }

    #[test]
    fn a_leaf_serves_for_half_of_its_life_and_is_then_replaced() {
        let clock = Clock::manual(START);
        let source = source(&clock);
        let first = source.ecdsa().unwrap();
        assert_eq!(first.cert.len(), 2, "the CA stands behind it");
        clock.advance(3 * DAY);
        assert!(Arc::ptr_eq(&first, &source.ecdsa().unwrap()));
        clock.advance(DAY / 2);
        let second = source.ecdsa().unwrap();
        assert_ne!(first.cert[0], second.cert[0]);
        assert!(Arc::ptr_eq(&second, &source.ecdsa().unwrap()));
        clock.advance(400 * DAY);
        assert_ne!(source.ecdsa().unwrap().cert[0], second.cert[0]);
    }

    #[test]
    fn a_leaf_from_the_future_serves_as_long_as_it_is_good() {
        let clock = Clock::manual(START);
        let leaf = Leaf { certified_key: source(&clock).ecdsa().unwrap(), made: START };
        assert!(leaf.is_fresh(START - DAY));
        assert!(!leaf.is_fresh(START - DAY - DAY));
    }

    #[tokio::test]
    async fn an_rsa_leaf_is_made_when_one_is_asked_for_with_one_key_and_numbers_of_its_own() {
        let clock = Clock::manual(START);
        let source = source(&clock);
        assert!(source.rsa_if_made().is_none());
        let (first, again) = tokio::join!(source.rsa(), source.rsa());
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &again.unwrap()));
        clock.advance(4 * DAY);
        let second = source.rsa().await.unwrap();
        assert_ne!(first.cert[0], second.cert[0]);
        assert_eq!(second.key.algorithm(), rustls::SignatureAlgorithm::RSA);
    }
}
