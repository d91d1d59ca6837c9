//! The command line: clap's view of the options table.
