//! Every default of `config.toml` with its reason. `config.toml.example` prints them, and a test compares the
//! two.

use std::time::Duration;

use super::LogFormat;

// [gateway]

/// Loopback: whoever wants more has to say so, and to say who may call (threats, row 25).
pub const GATEWAY_LISTEN: &str = "127.0.0.1:8080";
/// One worker per core.
pub const WORKERS: usize = 0;
/// Idle ones hold no buffers; far more than an office has programs.
pub const MAX_CONNECTIONS: usize = 4096;
/// An 8 K bearer, a long list of cookies and room to spare; usual servers stop at 8 K and break on the bearer
/// (gen-api, section 6).
pub const MAX_HEAD: usize = 64 * 1024;
/// Enough for any browser, and for applications behind a row of proxies.
pub const MAX_HEADERS: usize = 100;
/// Every documented JSON body fits; larger ones stream and are sent once.
pub const REPLAY_LIMIT: usize = 1024 * 1024;
/// A head is one packet or few; slower than this is a dripping caller (threats, row 17).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A caller that neither sends nor reads for a minute is gone.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the 60 s at which usual balancers drop their side, so that they never race our close.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Less than the 90 s after which systemd kills.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

// [admin]

pub const ADMIN_LISTEN: &str = "127.0.0.1:8081";
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
pub const AUDIT_FILE: &str = "admin-audit.log";

// [realms.NAME]

/// The only scope that the documents know (Authentication and Pairing V2, 4.1.1).
pub const SCOPE: &str = "openid";

// [[callers]]

/// As long as the vendor's own tokens live (Authentication and Pairing V2, 4.1.3), so that applications keep
/// their habits.
pub const FACADE_TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// As short as it comes: what has room for the vendor's tokens has room for it.
pub const FACADE_TOKEN_SIZE: usize = 0;

// [store]

/// As `sqlite:gateway.db`.
pub const STORE_FILE: &str = "gateway.db";
pub const STORE_KEY_FILE: &str = "gateway.key";

// [realms.NAME]

/// The first discovery's path and parameters (Authentication and Pairing V2, 4.2.2).
pub const DISCOVERY_PATH: &str = "/api/third-party/v2/api-discovery-by-name-and-version";
pub const DISCOVERY_NAME: &str = "third-party";
pub const DISCOVERY_VERSION: &str = "2";

// [upstream]

/// A TCP and TLS handshake across an ocean takes one; five means that the way is broken, and a repeat is
/// better.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Above the 60 to 90 s at which usual platforms send 504 themselves: their response is better than ours.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(100);
/// A pause within a body; there is no total limit, since downloads have hundreds of MB.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections per worker and host: a burst keeps its connections, a quiet night holds few.
pub const MAX_IDLE_PER_HOST: usize = 64;

// [retry]

/// Three sends: the first, one for a hiccup, one for good measure (threats, row 13).
pub const ATTEMPTS: u32 = 3;
/// The documented wait after a 504 (Authentication and Pairing V2, 4.1.2).
pub const INITIAL_BACKOFF: Duration = Duration::from_millis(1000);
/// The documented wait after a 504 of pairing (Authentication and Pairing V2, 4.3.1).
pub const PAIRING_BACKOFF: Duration = Duration::from_millis(2000);
/// Before the 30 s at which many callers give up themselves.
pub const RETRY_DEADLINE: Duration = Duration::from_secs(20);
/// A fifth more load at most, however broken the platform is (threats, row 13).
pub const RETRY_BUDGET: f64 = 0.2;
/// `POST /scan-request` is not idempotent: a 504 may have created the RX (gen-api, section 5).
pub const RETRY_SCAN_REQUEST: bool = false;

// [renewal]

/// The documents forbid "quick succession" and name no number; a minute is far below the hour that a token
/// lives.
pub const MIN_GAP: Duration = Duration::from_secs(60);
/// Enough for several tries at the documented pace before the token ends.
pub const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(300);
/// A refresh token unused for 3 months dies (gen-api, section 2); a week leaves a dozen chances.
pub const IDLE_RENEWAL: Duration = Duration::from_secs(7 * 86_400);

// [v1]

/// No document prints V1's field names; this is the table's own word for it (migration notice, comparison).
pub const V1_PROCEDURE_FIELD: &str = "Procedure";
/// What a program does not know it skips; those that do not are few.
pub const V1_STRIPS_ORDERS: bool = false;

// [log]

pub const LOG_LEVEL: &str = "info";
/// One line per event, for collectors; `text` is for eyes.
pub const LOG_FORMAT: LogFormat = LogFormat::Json;
/// The access log is the audit trail of calls (threats, row 23).
pub const LOG_ACCESS: bool = true;
