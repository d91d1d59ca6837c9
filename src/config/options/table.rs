//! All rows, put together from a file for each group of them.

mod application;
mod requests;
mod service;
mod workers;

use std::time::Duration;

use super::super::value;
use super::bounds::TIMEOUT_MAX;
use super::{Kind, Opt, Section, Sources};

/// The groups, in the order of `--help`.
const GROUPS: [&[Opt]; 4] = [application::ROWS, workers::ROWS, requests::ROWS, service::ROWS];

/// Every option, in the order of `--help`.
pub static TABLE: &[Opt] = &joined();

/// What most rows have.
const ROW: Opt = Opt {
    name: "",
    aliases: &[],
    short: None,
    value: "",
    kind: Kind::Text,
    bare: None,
    default: None,
    help: "",
    section: Section::Command,
    sources: Sources::All,
    foreign: None,
    separator: None,
    clear: |_| {},
    set: None,
};

/// How many rows there are.
const ROWS: usize = {
    let (mut rows, mut group) = (0, 0);
    while group < GROUPS.len() {
        rows += GROUPS[group].len();
        group += 1;
    }
    rows
};

/// The groups one after the other.
const fn joined() -> [Opt; ROWS] {
    let mut table = [ROW; ROWS];
    let (mut at, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            table[at] = GROUPS[group][row];
            at += 1;
            row += 1;
        }
        group += 1;
    }
    table
}

/// A duration of at least `min`, or 0 for none.
fn time_or_none(text: &str, min: Duration) -> Result<Duration, String> {
    let time = value::duration(text, Duration::ZERO, TIMEOUT_MAX)?;
    if time.is_zero() || time >= min { Ok(time) } else { Err(format!("must be at least {}ms, or 0 for none", min.as_millis())) }
}
