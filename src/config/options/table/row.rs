//! What the rows share.

use std::time::Duration;

use crate::config::options::bounds::TIMEOUT_MAX;
use crate::config::options::option::{Opt, Section, Sources, ValueKind};
use crate::config::value;

/// What most rows have.
pub(super) const ROW: Opt = Opt {
    name: "",
    aliases: &[],
    short: None,
    value: "",
    kind: ValueKind::Text,
    bare: None,
    equals: true,
    default: None,
    help: "",
    section: Section::Command,
    sources: Sources::All,
    foreign: None,
    foreign_before: "",
    separator: None,
    clear: |_| {},
    set: None,
    fixed: None,
};

/// Keeps an old value; says whether the new one differs.
pub(super) fn keep<T: Clone + PartialEq>(new: &mut T, old: &T) -> bool {
    let differs = new != old;
    new.clone_from(old);
    differs
}

/// A duration of at least `min`, or 0 for none.
pub(super) fn time_or_none(text: &str, min: Duration) -> Result<Duration, String> {
    let time = value::duration(text, Duration::ZERO, TIMEOUT_MAX)?;
    if time.is_zero() || time >= min { Ok(time) } else { Err(format!("must be at least {}ms, or 0 for none", min.as_millis())) }
}
