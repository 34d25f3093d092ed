//! What somebody types and reads: the real binary, a sandbox and a gateway as processes of their own, on free ports.

#![cfg(unix)]

mod accounts;
mod mistakes;
mod processes;
