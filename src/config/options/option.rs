//! What a row of the table says of an option.

use std::fmt;

use crate::config::settings::Settings;

/// Prefix of the variables of the environment.
pub const PREFIX: &str = "TAPSTER_";

/// One option.
#[derive(Clone, Copy)]
pub struct Opt {
    /// Long name without dashes.
    pub name: &'static str,
    /// Other long names.
    pub aliases: &'static [&'static str],
    /// Short name.
    pub short: Option<char>,
    /// What stands for the value in `--help`; empty for a switch.
    pub value: &'static str,
    /// Shape of the value.
    pub kind: ValueKind,
    /// What stands for the value where the command line gives the option without one (`--log-syslog`). `None`: a value is needed.
    pub bare: Option<&'static str>,
    /// Whether a value of such an option needs the equals sign (`--log-syslog=PATH`), so that the next word is not taken for one.
    pub equals: bool,
    /// Text of the default; `None`: not set.
    pub default: Option<&'static str>,
    /// Meaning: whole sentences, plain text.
    pub help: &'static str,
    /// Where it stands in `--help` and in the man page.
    pub section: Section,
    /// The sources that may give it.
    pub sources: Sources,
    /// A variable that other software sets, read when neither the file nor ours gives the option.
    pub foreign: Option<&'static str>,
    /// What stands in front of the value of that variable to make it one of the option.
    pub foreign_before: &'static str,
    /// What separates the values of a list in one variable of the environment.
    pub separator: Option<char>,
    /// Empties the setting before the first value of a list.
    pub(in crate::config) clear: fn(&mut Settings),
    /// Checks one value and puts it into the settings; the error is the clause that follows the value in a message. `None`: the
    /// option steers the command itself and is no setting.
    pub(in crate::config) set: Option<Set>,
    /// How its value stays what it is at a reload, if only a restart can change it. (`--bind` is a case of its own.)
    pub(in crate::config) fixed: Option<Keep>,
}

/// Puts the old value into the new settings (the first); says whether they differ.
pub(super) type Keep = fn(&mut Settings, &Settings) -> bool;

/// Checks a text and puts it into the settings.
type Set = fn(&mut Settings, &str) -> Result<(), String>;

/// Shape of an option's value: what the file may hold, and how often the command line may repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The argument without a name. A string in the file.
    Positional,
    /// A string.
    Text,
    /// A number, or a string with a unit or a word.
    Number,
    /// A string of octal digits, or an octal number.
    Octal,
    /// Repeatable; an array of strings in the file.
    List,
    /// On or off: no value on the command line, a boolean in the file, `true` or `false` in the environment.
    Flag,
    /// No value; command line only.
    Switch,
}

/// The sources that may give an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Environment, file and command line.
    All,
    /// File and command line.
    NotEnvironment,
    /// Environment and command line.
    NotFile,
    /// Command line.
    CommandLine,
}

impl Sources {
    /// Whether a variable of the environment may give it.
    pub fn environment(self) -> bool {
        matches!(self, Self::All | Self::NotFile)
    }

    /// Whether the file may give it.
    pub fn file(self) -> bool {
        matches!(self, Self::All | Self::NotEnvironment)
    }
}

/// A group of options, in the order of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What is served.
    Application,
    /// Files that are sent without it.
    Files,
    /// Where it listens.
    Sockets,
    /// Encryption.
    Tls,
    /// Processes.
    Workers,
    /// Timeouts.
    Timeouts,
    /// Limits of a request.
    Limits,
    /// Logs.
    Logs,
    /// Running as a service.
    Service,
    /// Seeing and steering a running server.
    Operations,
    /// The command itself.
    Command,
}

impl Section {
    /// All sections in order.
    pub const ALL: [Self; 11] = [
        Self::Application,
        Self::Files,
        Self::Sockets,
        Self::Tls,
        Self::Workers,
        Self::Timeouts,
        Self::Limits,
        Self::Logs,
        Self::Service,
        Self::Operations,
        Self::Command,
    ];

    /// Heading.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::Files => "Static files",
            Self::Sockets => "Sockets",
            Self::Tls => "TLS",
            Self::Workers => "Workers",
            Self::Timeouts => "Timeouts",
            Self::Limits => "Request limits",
            Self::Logs => "Logs",
            Self::Service => "Service",
            Self::Operations => "Status and control",
            Self::Command => "Configuration and information",
        }
    }
}

impl Opt {
    /// Key in the file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Variable of the environment.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key().to_ascii_uppercase())
    }

    /// The foreign variable, with what becomes of its value: `PORT (as 0.0.0.0:$PORT)`.
    pub fn foreign_help(&self) -> Option<String> {
        let variable = self.foreign?;
        Some(match self.foreign_before {
            "" => variable.into(),
            before => format!("{variable} (as {before}${variable})"),
        })
    }

    /// Name and aliases as keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.name).chain(self.aliases).map(|name| name.replace('-', "_"))
    }
}

impl fmt::Debug for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opt").field(&self.name).finish()
    }
}

/// Rows have unique names.
impl PartialEq for Opt {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Opt {}
