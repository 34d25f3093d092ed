//! Stories: a whole small world each, told against the sandbox. The list of test names is the specification.

mod expiry;
mod limits;
mod world;
