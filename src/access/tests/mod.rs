//! Stories of renewal against a scripted platform and a clock that stands still; the list of names is the
//! specification.

mod cluster;
mod pending_commits;
mod refresh_errors;
mod registry;
mod removal;
mod renewal;
mod replace_grant;
mod retries;
mod routes;
mod scheduler;
