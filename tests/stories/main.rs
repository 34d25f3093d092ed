//! End-to-end tests, each with a sandbox and a gateway of its own. The list of test names is the
//! specification.

mod admin_api;
mod application;
mod application_grants;
mod application_logins;
mod browser;
mod built_downloads;
mod comparing;
mod expiry;
mod explained;
mod facade;
mod hostile_applications;
mod hostile_callers;
mod hostile_operators;
mod hostile_platform;
mod limits;
mod links;
mod logins;
mod migration;
mod moving;
mod oauth_library;
mod old_host_names;
mod operators;
mod pages;
mod pairing;
mod path;
mod realms;
mod refusals;
mod renewals;
mod retries;
mod routes;
mod running;
mod test_accounts;
mod test_bed;
mod token_responses;
mod v1;
mod versions;
mod walls;
#[allow(dead_code, reason = "each test binary uses its own part of the browser")]
#[path = "../common/web_browser.rs"]
mod web_browser;
mod wire;
