//! Signal masks and dispositions.
