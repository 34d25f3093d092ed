//! Where a database is and how it is reached: address, TLS, the words for what is wrong with either.

use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use url::{Host, Url};

use super::error::store_error;
use crate::config::text_file::{self, LARGEST_PEM};
use crate::store::unavailable::{StoreUnavailable, UnavailableKind};
use crate::store::{SetupError, StoreError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a database is and how it is reached.
pub struct DatabaseTarget {
    options: PgConnectOptions,
    /// Without user and password.
    label: String,
}

impl DatabaseTarget {
    /// A database elsewhere is reached by TLS with its certificate checked, unless the URL itself says
    /// another `sslmode`.
    pub fn parse(text: &str, key: &str) -> Result<Self, SetupError> {
        // The parsers' own words may repeat the text, and with it a password.
        let invalid = || {
            let what = format!("{key} is no address of a database");
            SetupError::new(what, "postgres://user:password@host/database is expected")
        };
        let url = Url::parse(text).map_err(|_| invalid())?;
        let options: PgConnectOptions = text.parse().map_err(|_| invalid())?;
        refuse_unreadable_files(&url, key)?;
        let says_mode = url.query_pairs().any(|(name, _)| name == "sslmode" || name == "ssl-mode")
            || std::env::var_os("PGSSLMODE").is_some();
        let checks_itself = says_mode || options.get_socket().is_some() || is_local(&options);
        let options = if checks_itself { options } else { options.ssl_mode(PgSslMode::VerifyFull) };
        let database = options.get_database().unwrap_or(options.get_username());
        let label = match options.get_socket() {
            Some(socket) => format!("the database {database} at {}", socket.display()),
            None => format!("the database {database} at {}:{}", options.get_host(), options.get_port()),
        };
        // A pooler in front may not know a start-up parameter that is not the protocol's own.
        let options = options
            .extra_float_digits(None)
            .application_name("genapi-gateway")
            .statement_cache_capacity(0)
            .disable_statement_logging();
        Ok(Self { options, label })
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let why = format!("no answer within {CONNECT_TIMEOUT:?}");
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }

    /// Trouble with this place, in words that name it.
    pub fn unreachable(&self, error: sqlx::Error) -> StoreError {
        if is_tls(&error) {
            let why = format!(
                "{}: TLS: {error} (a private CA is named by sslrootcert=FILE in the address; sslmode=disable goes without TLS)",
                self.label
            );
            return StoreError::Unavailable(StoreUnavailable::new(UnavailableKind::Down, why));
        }
        match store_error(error) {
            StoreError::Unavailable(unavailable) => {
                let why = format!("{}: {unavailable}", self.label);
                StoreError::Unavailable(StoreUnavailable::new(unavailable.kind, why))
            }
            other => other,
        }
    }
}

/// The files that an address names for TLS: without them no connection can ever be made.
fn refuse_unreadable_files(url: &Url, key: &str) -> Result<(), SetupError> {
    let names = |name: &str| {
        matches!(
            name,
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key"
        )
    };
    for (name, file) in url.query_pairs().filter(|(name, file)| names(name) && !file.contains("-----BEGIN")) {
        text_file::read_path(Path::new(&*file), LARGEST_PEM)
            .map_err(|error| SetupError::new(format!("{key}: {name}: {file} {}", error.what), error.fix))?;
    }
    Ok(())
}

/// What a certificate or its absence causes; rustls reports it wrapped in an I/O error.
pub fn is_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.get_ref().is_some_and(|why| why.is::<rustls::Error>()),
        _ => false,
    }
}

fn is_local(options: &PgConnectOptions) -> bool {
    match Host::parse(options.get_host()) {
        Ok(Host::Domain(name)) => name == "localhost",
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> PgSslMode {
        DatabaseTarget::parse(url, "store.url").unwrap().options.get_ssl_mode()
    }

    #[test]
    fn a_database_elsewhere_must_prove_who_it_is_unless_the_address_says_otherwise() {
        let ca = tempfile::NamedTempFile::new().unwrap();
        let with_ca = format!(
            "postgres://u:p@db.example.com/gateway?sslmode=verify-full&sslrootcert={}",
            ca.path().display()
        );
        for (url, checked) in [
            ("postgres://u:p@db.example.com/gateway", true),
            ("postgres://u:p@10.1.2.3/gateway", true),
            (&with_ca, true),
            ("postgres://u:p@db.example.com/gateway?sslmode=disable", false),
            ("postgres://u:p@localhost/gateway", false),
            ("postgres://u:p@127.0.0.1/gateway", false),
            ("postgres://u:p@%2Frun%2Fpostgresql/gateway", false),
            ("postgres:///gateway?host=/run/postgresql", false),
        ] {
            assert_eq!(matches!(mode(url), PgSslMode::VerifyFull), checked, "{url}");
        }
    }

    #[test]
    fn neither_a_refused_address_nor_a_label_shows_the_password() {
        for url in
            ["postgres://u:s3cret@host:notaport/db", "postgres://u:s3cret@h/d?sslmode=s3cret", "s3cret"]
        {
            let why = DatabaseTarget::parse(url, "store.url").err().unwrap().to_string();
            assert!(why.contains("store.url") && !why.contains("s3cret"), "{why}");
        }
        let target =
            DatabaseTarget::parse("postgres://u:s3cret@db.example.com:6432/gateway", "store.url").unwrap();
        assert_eq!(target.label(), "the database gateway at db.example.com:6432");
    }
}
