//! The report of `--boot-profile`: how long the interpreter and the application took to start, and which imports took longest.
//!
//! Imports are timed where `python -X importtime` times them, at importlib's `_find_and_load`, which the interpreter calls for
//! each module that is not there yet. That option itself would write to standard error for the rest of the worker's life.

use std::ffi::CStr;
use std::fmt::Write;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Imports that are listed.
const SHOWN: usize = 20;

/// The functions that replace importlib's while the application is loaded.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("import_times.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// The name that importlib's own code has: tracebacks leave its frames out.
const FILE: &CStr = c"<frozen importlib._bootstrap>";

/// One import: its name, the time that it took, and that time without what it imported itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    name: String,
    whole: Duration,
    own: Duration,
}

/// A profile that is being taken.
#[derive(Debug)]
pub struct BootProfile {
    interpreter: Duration,
    began: Instant,
    times: Py<PyModule>,
}

impl BootProfile {
    /// Times imports from now on; the interpreter took `interpreter` to start.
    pub fn start(py: Python<'_>, interpreter: Duration) -> PyResult<Self> {
        let times = PyModule::from_code(py, SOURCE, FILE, c"tapster_import_times")?.unbind();
        Ok(Self { interpreter, began: Instant::now(), times })
    }

    /// Ends the timing and returns the report, in several lines.
    pub fn finish(self, py: Python<'_>) -> PyResult<String> {
        let whole = self.began.elapsed();
        let times: Vec<(String, u64, u64)> = self.times.bind(py).call_method0("finish")?.extract()?;
        let import = |(name, whole, own)| Import { name, whole: Duration::from_nanos(whole), own: Duration::from_nanos(own) };
        Ok(report(self.interpreter, whole, times.into_iter().map(import).collect()))
    }
}

fn report(interpreter: Duration, application: Duration, mut imports: Vec<Import>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    imports.sort_by_key(|import| std::cmp::Reverse(import.whole));
    let count = imports.len();
    let mut text = format!(
        "boot profile: interpreter {:.1} ms, application {:.1} ms; the slowest of {count} imports, alone and with what they import:",
        ms(interpreter),
        ms(application)
    );
    for Import { name, whole, own } in imports.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{:>10.1} ms {:>10.1} ms  {name}", ms(*own), ms(*whole));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_imports_are_listed_first_and_not_more_than_can_be_read() {
        let import = |n: u64| Import {
            name: format!("m{n}"),
            whole: Duration::from_micros(n * 1_500),
            own: Duration::from_micros(n * 500),
        };
        let text = report(Duration::from_millis(12), Duration::from_millis(345), (0..50).map(import).collect());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), SHOWN + 1);
        assert!(lines[0].contains("interpreter 12.0 ms, application 345.0 ms; the slowest of 50 imports"), "{text}");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["24.5", "ms", "73.5", "ms", "m49"]);
    }
}
