//! The one way from `config.toml` to a `Config`: `check` and `serve` both call `load`, so they cannot
//! disagree.

use std::fs::File;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{ConfigError, Diagnostic, KeyLocations};
use super::reader::{Env, ReadReport, Reader, Reported, Section};
use super::{AdminConfig, Config, StoreConfig, callers, listeners, realms, text_file, tuning, v1};

/// A valid configuration, and what is doubtful about it.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub config: Config,
    pub warnings: Vec<Diagnostic>,
    /// For what is found wrong later.
    pub places: KeyLocations,
}

/// Reads the file and the client secrets that it points to. All faults are found in one run, save that a
/// fault of syntax hides the rest.
pub fn load(file: &Path, env: Env<'_>) -> Result<LoadedConfig, ConfigError> {
    let text = text_of(file)?;
    let (config, ReadReport { problems, mut warnings, places, .. }) = read(file, &text, env);
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    match (ConfigError::gather(problems), config) {
        (None, Some(config)) => Ok(LoadedConfig { config, warnings, places }),
        (Some(problems), _) => Err(problems),
        (None, None) => {
            Err(Diagnostic::of_file(file, "is not complete", "compare config.toml.example").into())
        }
    }
}

/// `[admin]` alone, for programs that only speak to a gateway that runs: what else is wrong, or may not be
/// read, is not theirs.
pub fn load_admin(file: &Path, env: Env<'_>) -> Result<AdminConfig, ConfigError> {
    load_part(file, env, |root| listeners::admin(root.section("admin"), &mut Vec::new()))
}

/// `[store]` alone, likewise, for what is done to a whole store.
pub fn load_store(file: &Path, env: Env<'_>) -> Result<StoreConfig, ConfigError> {
    load_part(file, env, |root| tuning::store(root.section("store")))
}

/// The folder of the private CA, where the configuration has one.
pub fn load_ca_folder(file: &Path, env: Env<'_>) -> Option<PathBuf> {
    let found = load_part(file, env, |root| Ok(listeners::ca_folder(&root.section("gateway"))));
    found.ok().flatten()
}

fn load_part<T>(
    file: &Path,
    env: Env<'_>,
    part: impl FnOnce(&Section<'_>) -> Result<T, Reported>,
) -> Result<T, ConfigError> {
    let text = text_of(file)?;
    let (table, mut faults) = DeTable::parse_recoverable(&text);
    let reader = Reader::new(file, &text, folder_of(file), env);
    faults.sort_by_key(|fault| fault.span().map(|span| span.start));
    let found = match faults.first() {
        Some(fault) => {
            reader.syntax(fault.span(), fault.message());
            None
        }
        None => part(&reader.root(table.get_ref())).ok(),
    };
    match (ConfigError::gather(reader.finish().problems), found) {
        (None, Some(found)) => Ok(found),
        (Some(problems), _) => Err(problems),
        (None, None) => {
            Err(Diagnostic::of_file(file, "is not complete", "compare config.toml.example").into())
        }
    }
}

fn text_of(file: &Path) -> Result<String, Diagnostic> {
    let fault = |what, fix: &str| Diagnostic::of_file(file, what, fix);
    let opened = File::open(file).map_err(|error| {
        let fix = "name a readable file with -c or GENAPI_GATEWAY_CONFIG; config.toml.example is a beginning";
        fault(format!("cannot be read ({error})"), fix)
    })?;
    let bytes = text_file::read(opened, LARGEST_CONFIG);
    let text = bytes.and_then(|bytes| text_file::decode(&bytes).map(str::to_owned));
    text.map_err(|error| fault(error.what, error.fix))
}

/// Ten thousand callers.
const LARGEST_CONFIG: u64 = 8 * 1024 * 1024;

pub(super) fn read(file: &Path, text: &str, env: Env<'_>) -> (Option<Config>, ReadReport) {
    let (table, mut faults) = DeTable::parse_recoverable(text);
    let reader = Reader::new(file, text, folder_of(file), env);
    faults.sort_by_key(|fault| fault.span().map(|span| span.start));
    let config = match faults.first() {
        // What follows the first is mostly its echo.
        Some(fault) => {
            reader.syntax(fault.span(), fault.message());
            None
        }
        None => sections(reader.root(table.get_ref()), file).ok(),
    };
    (config, reader.finish())
}

/// Every section is read before any is missed, so that all faults are found.
fn sections(root: Section<'_>, file: &Path) -> Result<Config, Reported> {
    let mut taken = Vec::new();
    let (realms, names) = realms::realms(&root);
    let (gateway, exposure) = listeners::gateway(root.section("gateway"), &mut taken);
    let admin = listeners::admin(root.section("admin"), &mut taken);
    if let Ok(admin) = &admin {
        listeners::refuse_bad_token(&root.section("admin"), admin);
    }
    let public = root.section("public");
    let public = if public.present() {
        listeners::public(public, names.sandbox, &mut taken).map(Some)
    } else {
        Ok(None)
    };
    let store = tuning::store(root.section("store"));
    let callers = callers::callers(&root, &names, &exposure);
    listeners::refuse_unreachable_url(root.reader, &exposure, callers.all_have_urls);
    let v1 = v1::v1(root.section("v1"));
    let upstream = tuning::upstream(root.section("upstream"));
    let retry = tuning::retry(root.section("retry"), names.sandbox);
    let renewal = tuning::renewal(root.section("renewal"), names.sandbox);
    let log = tuning::log(root.section("log"));
    root.reject_unknown_keys();
    Ok(Config {
        file: file.to_owned(),
        gateway: gateway?,
        admin: admin?,
        public: public?,
        store: store?,
        realms,
        callers: callers.callers,
        v1: v1?,
        upstream: upstream?,
        retry,
        renewal,
        log: log?,
    })
}

/// Absolute, so that a later change of directory changes nothing.
fn folder_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}
