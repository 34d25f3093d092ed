//! Stories: a whole small world each, told against the sandbox. The list of test names is the specification.

mod browser;
mod expiry;
mod limits;
mod logins;
mod moving;
mod operators;
mod pairing;
mod facade;
mod links;
mod path;
mod realms;
mod refusals;
mod running;
mod renewals;

mod retries;
mod wire;
mod world;
