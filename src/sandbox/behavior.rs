//! The vendor's unknowns, each a switch that may be moved while the sandbox runs.
//! The defaults are what the documents print where they print something.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The vendor's largest access token: "up to 8K" (Authentication & Pairing V2, 4.1.2).
pub const LARGEST_TOKEN: usize = 8192;
/// Below this a token could not hold its random part.
pub const SMALLEST_TOKEN: usize = 48;

/// How the sandbox behaves where the vendor's documents leave it open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behavior {
    /// Exact length of access tokens; they look like a JWT where there is room for one.
    pub token_size: usize,
    /// A refresh returns a new refresh token, and the one that was used is dead.
    pub rotate_refresh: bool,
    /// A refresh response names the refresh token at all.
    #[serde(alias = "refresh_token_in_answer")]
    pub refresh_token_in_response: bool,
    /// A refresh ends the access tokens issued before it.
    pub refresh_ends_older_access: bool,
    /// A refresh while the newest access token lives returns that one, with the seconds it has left.
    pub refresh_returns_living_access: bool,
    #[serde(with = "super::duration_text")]
    pub access_token_life: Duration,
    /// Data calls with a missing, unknown or expired token: 401 or 403, both occur in the documents.
    pub expiry_status: u16,
    /// A region asked for an account that is not its own.
    pub wrong_region_status: u16,
    pub link_form: LinkForm,
    /// Links on the API's own hosts carry a ticket, and a download without it is not found: an address that
    /// was built by hand leads nowhere.
    pub download_ticket: bool,
    /// How long a pre-signed link lives.
    #[serde(with = "super::duration_text")]
    pub link_life: Duration,
    /// The download endpoint asks for the bearer.
    pub download_wants_bearer: bool,
    /// The storage host asks for the bearer; otherwise it refuses calls that bring one.
    pub storage_wants_bearer: bool,
    /// Related accounts print their first three names with a trailing
    /// blank, as the specification's sample does.
    pub trailing_blanks: bool,
    pub account_id_as_string: bool,
    pub domain_form: DomainForm,
    /// The Path that discovery names on the new platform, where its regions then answer and nowhere else.
    pub path: String,
    /// The Path that discovery names for version 3 on the new platform, beside the other one. None: there is
    /// no V3 yet, and discovery for it answers an empty array.
    pub v3_path: Option<String>,
    pub status_form: StatusForm,
    /// False: "discovery not enabled for this integration", a 200 with an empty array.
    pub discovery_enabled: bool,
    /// False: Domain/Path answers 404 to discovery, only `base_url` works.
    pub discovery_at_domain: bool,
    pub lab_list_flips_on: DownloadedWhen,
    /// The member of a scan-request that names the procedure: V1 wants one of its names or numbers there, V2
    /// a MapID code, and a body without is answered 400. None: nobody looks.
    pub procedure_field: Option<String>,
    /// What V2 calls it, where that differs.
    pub map_id_field: Option<String>,
    /// A move to another platform leaves the old one's pairings and tokens alive. The migration notice says
    /// that they expire; when, it does not say.
    pub migration_keeps_tokens: bool,
    /// What the new platform's API answers otherwise than the old one's.
    pub new_platform_differs: NewPlatformDiffers,
    /// JSON is compressed when the caller accepts gzip.
    pub gzip_json: bool,
    /// JSON is compressed although the caller did not ask.
    pub gzip_unasked: bool,
    /// JSON is sent chunked, this many bytes to a chunk.
    pub chunked_json: Option<usize>,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            token_size: 1536,
            rotate_refresh: false,
            refresh_token_in_response: true,
            refresh_ends_older_access: false,
            refresh_returns_living_access: false,
            access_token_life: Duration::from_secs(3600), // 4.1.2: "Initial value is 3600"
            expiry_status: 401,
            wrong_region_status: 403,
            link_form: LinkForm::Absolute,
            download_ticket: false,
            link_life: Duration::from_secs(3600),
            download_wants_bearer: true,
            storage_wants_bearer: false,
            trailing_blanks: false,
            account_id_as_string: false,
            domain_form: DomainForm::WithScheme,
            path: super::host_role::V2_PATH.to_owned(),
            v3_path: Some(super::host_role::V3_PATH.to_owned()),
            status_form: StatusForm::Number,
            discovery_enabled: true,
            discovery_at_domain: true,
            lab_list_flips_on: DownloadedWhen::FullDownload,
            procedure_field: None,
            map_id_field: None,
            migration_keeps_tokens: false,
            new_platform_differs: NewPlatformDiffers::default(),
            gzip_json: false,
            gzip_unasked: false,
            chunked_json: None,
        }
    }
}

/// Differences between the platforms that no document names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewPlatformDiffers {
    /// An RX that is not there.
    pub lacks_rx: Option<u64>,
    /// A field's name on the old platform, and on the new one.
    pub renames: Option<(String, String)>,
    /// The host that its links lead to.
    pub link_host: Option<String>,
}

/// How download links are printed in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkForm {
    Absolute,
    /// A path alone.
    Relative,
    /// `https:\/\/…`, as some JSON writers do.
    JsonEscaped,
    /// Pre-signed on a storage host, which refuses any Authorization header.
    ForeignHost,
    /// The four forms in turn.
    Mixed,
}

impl LinkForm {
    /// The form of the `index`th link of a response.
    pub fn nth(self, index: u64) -> LinkForm {
        const IN_TURN: [LinkForm; 4] =
            [LinkForm::Absolute, LinkForm::Relative, LinkForm::JsonEscaped, LinkForm::ForeignHost];
        match self {
            LinkForm::Mixed => IN_TURN[(index % 4) as usize],
            form => form,
        }
    }
}

/// How discovery prints a Domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainForm {
    WithScheme,
    Bare,
    TrailingSlash,
}

/// How a response's `Status` field is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusForm {
    /// `1` for success, `0` for failure.
    Number,
    /// `"Success"`, `"Failure"`.
    Text,
}

/// What takes an order off its lab's list of new orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadedWhen {
    FirstDownloadByte,
    FullDownload,
    Never,
}
