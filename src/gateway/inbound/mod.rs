//! What a call is before anything is sent: who calls, what for, on whose account, and whether it may.

pub mod account;
pub mod caller;
pub(super) mod cors;
pub(super) mod limits;
pub(super) mod link_host;
mod path_decoding;
pub mod permission;
pub mod target;
pub mod token;
