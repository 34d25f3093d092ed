//! The old platform's hosts, which legacy applications have compiled in, and what each of them served.

/// What a host of the old platform served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRole {
    /// Authorize, token and revoke.
    OAuth,
    /// Discovery and all other calls.
    Api,
}

/// A host of the old platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyHost {
    pub name: &'static str,
    pub role: HostRole,
}

/// Migration notice, "Current URL": `oauth_base`, then `base_url` of V2 and of V1.
pub const LEGACY_HOSTS: [LegacyHost; 3] = [
    LegacyHost { name: "identity-cus.aligntech.com", role: HostRole::OAuth },
    LegacyHost { name: "api-proxy.aligntech.com", role: HostRole::Api },
    LegacyHost { name: "gateway-cus.aligntech.com", role: HostRole::Api },
];

impl HostRole {
    /// What `host` (without a port) served; `None` for a host that is none of the old platform's, whose role
    /// nobody has told.
    pub fn of(host: &str) -> Option<HostRole> {
        let host = host.strip_suffix('.').unwrap_or(host);
        LEGACY_HOSTS.iter().find(|known| known.name.eq_ignore_ascii_case(host)).map(|known| known.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_in_any_case_and_with_its_final_dot() {
        assert_eq!(HostRole::of("identity-cus.aligntech.com"), Some(HostRole::OAuth));
        assert_eq!(HostRole::of("API-Proxy.AlignTech.com."), Some(HostRole::Api));
        for other in ["aligntech.com", "x.api-proxy.aligntech.com", "api-proxy.aligntech.com..", ""] {
            assert_eq!(HostRole::of(other), None, "{other}");
        }
    }
}
