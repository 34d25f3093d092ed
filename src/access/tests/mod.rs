//! Stories of renewal against a scripted platform and a clock that stands still; the list of names is the specification.

mod book;
mod cluster;
mod keeper;
mod leaving;
mod owed;
mod renewal;
mod replace;
mod routes;
mod saving;
mod trouble;
