//! fork, wait, parent-death signal, process facts.
