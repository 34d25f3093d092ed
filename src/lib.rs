//! genapi-gateway: an authenticating reverse proxy that keeps legacy applications working against the iTero
//! Gen API.
//!
//! The map, in reading order. Imports run one way, and `tests/architecture` checks it: model → upstream →
//! platform, store → access → pairing → public, health → admin; access → facade; access → gateway; `app` sees
//! all.

pub mod clock;
pub mod model;

pub mod config;
pub mod telemetry;

pub mod http1;
pub mod upstream;

pub mod platform;
pub mod store;

pub mod ca;

pub mod journal;

pub mod access;

pub mod gateway;

pub mod facade;
pub mod pairing;

pub mod health;

pub mod admin;
pub mod public;

pub mod server;

pub mod app;

pub mod cli;
pub mod demo;
pub mod sandbox;
