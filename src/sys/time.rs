//! Clocks and the local time zone.
