//! `src/http1` on its own, and what must hold of it for any input.

#[path = "../../src/http1/mod.rs"]
pub mod http1;
pub mod properties;
