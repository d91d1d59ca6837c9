//! `--reload`: whether changes of the sources are loaded by themselves, and how they are noticed.

use serde::{Deserialize, Serialize};

/// How changed files are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEngine {
    /// The kernel tells of them (inotify(7)).
    #[default]
    Events,
    /// The files are looked at again and again, where the kernel does not learn of changes: network file systems, directories that
    /// a virtual machine shares with its host.
    Poll,
}

/// The value of `--reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReloadMode {
    /// Only a signal reloads.
    #[default]
    Off,
    /// Changes do, noticed as `--reload-engine` says.
    On,
    /// Changes do, noticed like this.
    By(WatchEngine),
}

/// Reads the value of `--reload`.
pub(super) fn mode(text: &str) -> Result<ReloadMode, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "false" | "0" | "none" => Ok(ReloadMode::Off),
        "auto" | "on" | "true" | "1" => Ok(ReloadMode::On),
        word => known(word).map(ReloadMode::By).ok_or_else(|| "must be off, auto, inotify or poll".into()),
    }
}

/// Reads the value of `--reload-engine`, with gunicorn's words.
pub(super) fn engine(text: &str) -> Result<WatchEngine, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "auto" => Ok(WatchEngine::Events),
        word => known(word).ok_or_else(|| "must be auto, inotify or poll".into()),
    }
}

fn known(word: &str) -> Option<WatchEngine> {
    match word {
        "inotify" => Some(WatchEngine::Events),
        "poll" => Some(WatchEngine::Poll),
        _ => None,
    }
}
