//! The addresses of the sandbox: which worlds there are, what listens where, and under what name.
//! A wrong address must show, so no two places share a listener.

use serde::{Deserialize, Serialize};

/// The V2 API's path prefix, which holds the version (migration notice of 2025, "Note").
pub const V2_PATH: &str = "/itero-gen-api/v2";
/// The old platform's V1 prefix.
pub const V1_PATH: &str = "/lab-sw/v1";
/// The prefix of the calls that are made before any discovery.
pub const FIRST_PATH: &str = "/api/third-party/v2";

/// Three worlds with credentials, accounts and tokens of their own.
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
pub enum Place {
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

impl Place {
    pub const ALL: [Place; 13] = [
        Place::Identity(Platform::New),
        Place::Base(Platform::New),
        Place::Region(Region::NorthAmerica),
        Place::Region(Region::Europe),
        Place::Region(Region::AsiaPacific),
        Place::Identity(Platform::Old),
        Place::Base(Platform::Old),
        Place::OldV1,
        Place::Identity(Platform::China),
        Place::Base(Platform::China),
        Place::Region(Region::China),
        Place::Storage,
        Place::Control,
    ];

    pub fn host_name(self) -> &'static str {
        match self {
            Place::Identity(Platform::New) => "identity.sandbox.test",
            Place::Identity(Platform::Old) => "identity.old.sandbox.test",
            Place::Identity(Platform::China) => "identity.china.sandbox.test",
            Place::Base(Platform::New) => "iteroapi.sandbox.test",
            Place::Base(Platform::Old) => "api-proxy.old.sandbox.test",
            Place::Base(Platform::China) => "api-proxy.china.sandbox.test",
            Place::OldV1 => "gateway.old.sandbox.test",
            Place::Region(Region::NorthAmerica) => "na.iteroapi.sandbox.test",
            Place::Region(Region::Europe) => "eu.iteroapi.sandbox.test",
            Place::Region(Region::AsiaPacific) => "ap.iteroapi.sandbox.test",
            Place::Region(Region::China) => "cn.api.china.sandbox.test",
            Place::Storage => "storage.elsewhere.test",
            Place::Control => "localhost",
        }
    }

    /// The world that a place belongs to; storage and the control port belong to none.
    pub fn platform(self) -> Option<Platform> {
        match self {
            Place::Identity(platform) | Place::Base(platform) => Some(platform),
            Place::OldV1 => Some(Platform::Old),
            Place::Region(Region::China) => Some(Platform::China),
            Place::Region(_) => Some(Platform::New),
            Place::Storage | Place::Control => None,
        }
    }

    /// The place that discovery names for an account, and that answers its calls.
    pub fn home(platform: Platform, region: Region) -> Place {
        match platform {
            Platform::Old => Place::Base(Platform::Old),
            Platform::China => Place::Region(Region::China),
            Platform::New => Place::Region(region),
        }
    }
}
