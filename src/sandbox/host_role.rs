//! The addresses of the sandbox: which platforms there are, what listens where, and under what name.
//! A wrong address must show, so no two hosts share a listener.

use serde::{Deserialize, Serialize};

/// The V2 API's path prefix, which holds the version (migration notice of 2025, "Note").
pub const V2_PATH: &str = "/itero-gen-api/v2";
/// Where the sandbox has its V3; the vendor's is announced, and no document prints its path.
pub const V3_PATH: &str = "/itero-gen-api/v3";
/// The old platform's V1 prefix.
pub const V1_PATH: &str = "/lab-sw/v1";
/// The prefix of the calls that are made before any discovery.
pub const FIRST_PATH: &str = "/api/third-party/v2";

/// Three platforms with credentials, accounts and tokens of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    New,
    Old,
    China,
}

impl Platform {
    pub const ALL: [Platform; 3] = [Platform::New, Platform::Old, Platform::China];
}

/// A region of the vendor's platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    NorthAmerica,
    Europe,
    AsiaPacific,
    China,
}

/// One listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRole {
    /// OAuth and the login page.
    Identity(Platform),
    /// `base_url`. On the new platform it knows discovery and pairing alone.
    Base(Platform),
    /// The old platform's V1 host.
    OldV1,
    Region(Region),
    /// Pre-signed downloads, foreign to every platform.
    Storage,
    /// The port for people.
    Control,
}

impl HostRole {
    pub const ALL: [HostRole; 13] = [
        HostRole::Identity(Platform::New),
        HostRole::Base(Platform::New),
        HostRole::Region(Region::NorthAmerica),
        HostRole::Region(Region::Europe),
        HostRole::Region(Region::AsiaPacific),
        HostRole::Identity(Platform::Old),
        HostRole::Base(Platform::Old),
        HostRole::OldV1,
        HostRole::Identity(Platform::China),
        HostRole::Base(Platform::China),
        HostRole::Region(Region::China),
        HostRole::Storage,
        HostRole::Control,
    ];

    pub fn host_name(self) -> &'static str {
        match self {
            HostRole::Identity(Platform::New) => "identity.sandbox.test",
            HostRole::Identity(Platform::Old) => "identity.old.sandbox.test",
            HostRole::Identity(Platform::China) => "identity.china.sandbox.test",
            HostRole::Base(Platform::New) => "iteroapi.sandbox.test",
            HostRole::Base(Platform::Old) => "api-proxy.old.sandbox.test",
            HostRole::Base(Platform::China) => "api-proxy.china.sandbox.test",
            HostRole::OldV1 => "gateway.old.sandbox.test",
            HostRole::Region(Region::NorthAmerica) => "na.iteroapi.sandbox.test",
            HostRole::Region(Region::Europe) => "eu.iteroapi.sandbox.test",
            HostRole::Region(Region::AsiaPacific) => "ap.iteroapi.sandbox.test",
            HostRole::Region(Region::China) => "cn.api.china.sandbox.test",
            HostRole::Storage => "storage.elsewhere.test",
            HostRole::Control => "localhost",
        }
    }

    /// The platform that a host belongs to; storage and the control port belong to none.
    pub fn platform(self) -> Option<Platform> {
        match self {
            HostRole::Identity(platform) | HostRole::Base(platform) => Some(platform),
            HostRole::OldV1 => Some(Platform::Old),
            HostRole::Region(Region::China) => Some(Platform::China),
            HostRole::Region(_) => Some(Platform::New),
            HostRole::Storage | HostRole::Control => None,
        }
    }

    /// The host that discovery names for an account, and that answers its calls.
    pub fn home(platform: Platform, region: Region) -> HostRole {
        match platform {
            Platform::Old => HostRole::Base(Platform::Old),
            Platform::China => HostRole::Region(Region::China),
            Platform::New => HostRole::Region(region),
        }
    }
}
