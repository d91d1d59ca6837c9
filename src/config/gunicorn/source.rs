//! How a gunicorn file is named.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A gunicorn file, as `--config` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// `PATH.py`, or `file:PATH` with any name.
    #[serde(with = "crate::config::paths")]
    File(PathBuf),
    /// `python:MODULE`.
    Module(String),
}

impl Source {
    /// The gunicorn file that this value of `--config` names; `None`: it names a TOML file.
    pub fn named(config: &str) -> Option<Self> {
        if let Some(module) = config.strip_prefix("python:") {
            return Some(Self::Module(module.into()));
        }
        if let Some(path) = config.strip_prefix("file:") {
            return Some(Self::File(path.into()));
        }
        let python = Path::new(config).extension().is_some_and(|ending| ending == "py" || ending == "pyc");
        python.then(|| Self::File(config.into()))
    }

    /// The name for messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Module(module) => format!("python:{module}").into(),
        }
    }

    /// The value of `--config` that names it.
    pub fn spelt(&self) -> String {
        match self {
            Self::File(path) if path.extension() == Some(OsStr::new("py")) => path.to_string_lossy().into_owned(),
            Self::File(path) => format!("file:{}", path.to_string_lossy()),
            Self::Module(module) => format!("python:{module}"),
        }
    }
}
