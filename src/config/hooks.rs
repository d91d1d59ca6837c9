//! The functions of a gunicorn file that the server calls, as a process needs them that executes the file to call them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::gunicorn::Source;

/// The hooks of a gunicorn file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// The file.
    pub source: Source,
    /// The directory that it is executed in, absolute: the one that the server was started in.
    #[serde(with = "super::paths")]
    pub start: PathBuf,
    /// The functions that it defines, by gunicorn's names.
    pub names: Vec<String>,
    /// Settings by gunicorn's names, with the values that hold, as `cfg` has them.
    pub settings: Vec<(String, HookValue)>,
}

/// A value of a setting, in Python's types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HookValue {
    /// The setting has none.
    None,
    /// A bool.
    Bool(bool),
    /// An int: a count, seconds or bytes.
    Integer(i64),
    /// A float: seconds.
    Float(f64),
    /// A str.
    Text(String),
    /// A list of str.
    List(Vec<String>),
}

/// Hooks that workers call.
const IN_WORKERS: [&str; 7] =
    ["post_fork", "post_worker_init", "worker_int", "worker_abort", "worker_exit", "pre_request", "post_request"];

/// Hooks that the hook process calls.
const IN_PROCESS: [&str; 8] =
    ["on_starting", "when_ready", "on_reload", "pre_fork", "child_exit", "nworkers_changed", "pre_exec", "on_exit"];

impl Hooks {
    /// Those of a file that defines `names`; `None`: none of them is ever called.
    pub fn new(source: Source, start: PathBuf, names: &[&str]) -> Option<Self> {
        let names: Vec<String> = names.iter().filter(|name| is_called(name)).map(|name| (*name).to_owned()).collect();
        (!names.is_empty()).then_some(Self { source, start, names, settings: Vec::new() })
    }

    /// The names of those that workers call.
    pub fn in_workers(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| IN_WORKERS.contains(name))
    }

    /// The names of those that the hook process calls.
    pub fn in_process(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| IN_PROCESS.contains(name))
    }
}

/// Whether the server calls a hook of this name.
pub fn is_called(name: &str) -> bool {
    IN_WORKERS.contains(&name) || IN_PROCESS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_nobody_calls_are_no_reason_to_execute_the_file() {
        let hooks = |names: &[&str]| Hooks::new(Source::File("g.py".into()), "/".into(), names);
        assert_eq!(hooks(&["dirty_post_fork"]), None);
        let both = hooks(&["dirty_post_fork", "worker_exit"]).unwrap();
        assert_eq!(both.names, ["worker_exit"]);
        assert_eq!(both.in_workers().collect::<Vec<_>>(), ["worker_exit"]);
    }
}
