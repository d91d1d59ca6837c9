//! What is logged, in which format and where.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// Standard output (`-` of the access log).
    Stdout,
    /// Standard error (`-` of the error log).
    #[default]
    Stderr,
    /// A file, opened for appending.
    File(#[serde(with = "super::paths")] PathBuf),
    /// The system log that listens at this unix socket (RFC 5424).
    Syslog(#[serde(with = "super::paths")] PathBuf),
}

/// The access log's format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessFormat {
    /// gunicorn's `%(...)s` atoms.
    Atoms(String),
    /// One JSON object a line.
    #[default]
    Json,
}

/// How Python's `logging` is set up in the workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogConfig {
    /// By a file for `logging.config.fileConfig`, or one of JSON for `dictConfig`.
    File(#[serde(with = "super::paths")] PathBuf),
    /// By the JSON of a dict for `dictConfig`.
    Json(String),
}

/// Severity; the names are gunicorn's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Details of single connections.
    Debug,
    /// What the server does.
    #[default]
    Info,
    /// What an operator should look at.
    Warning,
    /// What failed.
    Error,
    /// What stops the service.
    Critical,
}

impl Level {
    /// All of them, the least severe first.
    const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The level of this number, as `level as u8` gives it.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| *level as u8 == number)
    }

    /// Reads the name of a level, in any case.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            // The second word is that of many a LOG_LEVEL variable.
            "warning" | "warn" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            "critical" => Ok(Self::Critical),
            _ => Err("must be debug, info, warning, error or critical".into()),
        }
    }

    /// The name in a record, in capitals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}
