//! The last head that `start_response` has rendered: applications give the same status and fields again and again.
//!
//! It is compared with the objects that the application gives now: each is the very same object, which is immutable and kept
//! alive here, or has the same bytes. So the head that was checked and rendered then is right again.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use super::exchange::Exchange;
use super::start_response::ResponseArguments;
use super::text;
use crate::http::response::HeadFacts;

/// Longest head that is kept, in bytes; longer ones are mostly cookies and policies that differ.
const LONGEST: usize = 2048;

/// A head with the objects it was made from. They are exact `str`: dropping one runs no code of the application.
#[derive(Default)]
pub struct Memo {
    status: Option<Py<PyString>>,
    pairs: Vec<(Py<PyString>, Py<PyString>)>,
    lines: Vec<u8>,
    facts: HeadFacts,
}

impl Memo {
    /// Begins the head if it is the one that is kept.
    pub fn recall(&self, exchange: &mut Exchange, arguments: &ResponseArguments<'_, '_>) -> bool {
        let Some(status) = &self.status else { return false };
        let Ok(list) = arguments.headers.cast_exact::<PyList>() else { return false };
        let known = is_same(status, arguments.status.as_any())
            && list.len() == self.pairs.len()
            && list.iter().zip(&self.pairs).all(|(item, (name, value))| {
                match item.cast_exact::<PyTuple>().map(|pair| pair.as_slice()) {
                    Ok([first, second]) => is_same(name, first) && is_same(value, second),
                    Ok(_) | Err(_) => false,
                }
            });
        if known {
            exchange.resume(&self.lines, self.facts);
        }
        known
    }

    /// Keeps the head that was just rendered from these arguments, if it may come again as it is.
    pub fn keep(&mut self, exchange: &Exchange, arguments: &ResponseArguments<'_, '_>) {
        self.status = None;
        self.pairs.clear();
        let Some((lines, facts)) = exchange.rendered().filter(|(lines, _)| lines.len() <= LONGEST) else { return };
        let (Ok(status), Ok(list)) = (arguments.status.cast_exact::<PyString>(), arguments.headers.cast_exact::<PyList>()) else {
            return;
        };
        for item in list.iter() {
            let Ok([name, value]) = item.cast_exact::<PyTuple>().map(|pair| pair.as_slice()) else { return };
            let (Ok(name), Ok(value)) = (name.cast_exact::<PyString>(), value.cast_exact::<PyString>()) else { return };
            self.pairs.push((name.clone().unbind(), value.clone().unbind()));
        }
        self.lines.clear();
        self.lines.extend_from_slice(lines);
        self.facts = facts;
        self.status = Some(status.to_owned().unbind());
    }
}

/// Whether a string is this object, or an exact `str` with the same bytes.
fn is_same(kept: &Py<PyString>, now: &Bound<'_, PyAny>) -> bool {
    kept.is(now)
        || now.cast_exact::<PyString>().is_ok_and(|now| {
            let bytes = text::to_latin1(now.as_borrowed());
            bytes.is_some() && bytes == text::to_latin1(kept.bind_borrowed(now.py()))
        })
}
