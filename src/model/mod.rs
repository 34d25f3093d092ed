//! Values only, no I/O: the nouns of the vendor's API and of the gateway, each a type of its own.

pub mod account;
pub mod endpoint;
pub mod legacy_host;
pub mod origin;
pub mod redirect_uri;
pub mod route;
pub mod token;
