//! A certificate authority of the sandbox's own, and a leaf for all of its names.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::host_role::HostRole;
use super::options::{CertificateKind, TlsIdentity};

/// A certificate, and what answers connections with it.
pub struct TlsServer {
    pub identity: TlsIdentity,
    pub acceptor: TlsAcceptor,
}

/// With the identity of an earlier run, or a new one.
pub fn authority(
    bind: IpAddr,
    certificate: CertificateKind,
    earlier: Option<TlsIdentity>,
) -> anyhow::Result<TlsServer> {
    let identity = match earlier {
        Some(earlier) => earlier,
        None => make_identity(bind, certificate)?,
    };
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the sandbox's own certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsServer { identity, acceptor: TlsAcceptor::from(Arc::new(config)) })
}

fn make_identity(bind: IpAddr, certificate: CertificateKind) -> anyhow::Result<TlsIdentity> {
    let (shown_pem, shown) = make_authority("Sandbox CA")?;
    let issuer = match certificate {
        CertificateKind::OtherAuthority => make_authority("Some other CA")?.1,
        _ => shown,
    };
    let key = KeyPair::generate()?;
    let leaf = leaf_params(bind, certificate)?.signed_by(&key, &issuer)?;
    Ok(TlsIdentity { ca_pem: shown_pem, cert_pem: leaf.pem(), key_pem: key.serialize_pem() })
}

fn make_authority(name: &str) -> anyhow::Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((pem, Issuer::new(params, key)))
}

fn leaf_params(bind: IpAddr, certificate: CertificateKind) -> anyhow::Result<CertificateParams> {
    let names = match certificate {
        CertificateKind::OtherName => vec!["somebody-else.test".to_owned()],
        _ => {
            let own = HostRole::ALL.iter().map(|role| role.host_name().to_owned());
            own.chain(["127.0.0.1".to_owned(), "::1".to_owned(), bind.to_string()]).collect()
        }
    };
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Sandbox");
    if certificate == CertificateKind::Expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    Ok(params)
}
