//! Where a value comes from, and what was given there.

use std::fmt;
use std::path::PathBuf;

use super::options::Opt;

/// The variable with arguments for gunicorn.
pub const ARGUMENTS_VARIABLE: &str = "GUNICORN_CMD_ARGS";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of options.
    Default,
    /// gunicorn's default, where its file is read.
    GunicornDefault,
    /// This environment variable. A variable of ours is above the file, others are below.
    Environment(String),
    /// The configuration file.
    File {
        /// Path as given.
        path: PathBuf,
        /// Line of the key, from 1, where it is known.
        line: Option<usize>,
    },
    /// An argument in GUNICORN_CMD_ARGS.
    GunicornArguments,
    /// An argument.
    CommandLine,
    /// An argument of the Python function that has called the server.
    Call,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::GunicornDefault => f.write_str("default of gunicorn"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { path, line } => {
                write!(f, "file {}", path.to_string_lossy().escape_debug())?;
                line.map_or(Ok(()), |line| write!(f, " line {line}"))
            }
            Self::GunicornArguments => write!(f, "environment {}", ARGUMENTS_VARIABLE),
            Self::CommandLine => f.write_str("command line"),
            Self::Call => f.write_str("argument of the call"),
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
