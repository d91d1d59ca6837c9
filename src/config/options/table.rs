//! All rows, put together from a file for each group of them.

mod application;
mod files;
mod requests;
mod row;
mod service;
mod tls;
mod workers;

use super::option::Opt;
use row::ROW;

/// The groups, in the order of `--help`.
const GROUPS: [&[Opt]; 6] = [application::ROWS, tls::ROWS, files::ROWS, workers::ROWS, requests::ROWS, service::ROWS];

/// Every option, in the order of `--help`.
pub static TABLE: &[Opt] = &joined();

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
