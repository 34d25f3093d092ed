//! Our stand-in for iTero.
