//! Where a value comes from, and what was given there.

use std::fmt;
use std::path::PathBuf;

use super::options::Opt;

/// Where a value comes from, low to high precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of options.
    Default,
    /// This environment variable.
    Environment(String),
    /// The configuration file.
    File {
        /// Path as given.
        path: PathBuf,
        /// Line of the key, from 1.
        line: usize,
    },
    /// An argument.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { path, line } => write!(f, "file {} line {line}", path.to_string_lossy().escape_debug()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// An option as one source gives it: texts not yet checked. Only repeatable options have more than one, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The row of the table.
    pub option: &'static Opt,
    /// Values in order.
    pub values: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
}
