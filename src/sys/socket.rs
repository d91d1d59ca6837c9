//! Socket options that nix does not have.
