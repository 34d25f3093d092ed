//! What somebody types and reads: the real binary, a sandbox and a
//! gateway as processes of their own, on free ports.

#![cfg(unix)]

mod accounts;
mod ca;
mod checks;
mod database;
mod mistakes;
mod moving;
#[path = "../common/postgres.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod postgres;
mod practice;
mod processes;
mod store;
mod unread_log;
