//! The start of the interpreter, with the application loaded into it.

use std::time::Instant;

use pyo3::prelude::*;

use super::boot_profile::BootProfile;
use super::{failure, forks, interpreter, load, logs};
use crate::channel::BootError;
use crate::config::Settings;
use crate::log::error::Log;
use crate::worker::app::Renounce;

/// Starts the interpreter on this thread and loads the application for one of so many workers. Children that the application
/// forks call `renounce`; `stacks` is as in [`super::AppStart`].
pub fn load_app(
    settings: &Settings,
    workers: usize,
    log: &Log,
    renounce: Option<&Renounce>,
    stacks: Option<i32>,
) -> Result<load::FoundApp, BootError> {
    let began = Instant::now();
    let interpreter = interpreter::start(&settings.python, stacks)?;
    let started = began.elapsed();
    if let Some(note) = &interpreter.note {
        log.info(format_args!("{note}"));
    }
    let loaded = Python::attach(|py| {
        if let Some(renounce) = renounce {
            forks::renounce_in_children(py, renounce.clone())
                .map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })?;
        }
        logs::install(py, settings, log)?;
        // The worker serves even if no profile can be taken.
        let profile = settings.boot_profile.then(|| BootProfile::start(py, started));
        let loaded = load::load(py, &settings.app, workers);
        match profile.map(|profile| profile.and_then(|profile| profile.finish(py))) {
            Some(Ok(report)) => log.info(format_args!("{report}")),
            Some(Err(error)) => log.error(format_args!("no boot profile: {}", failure::traceback(py, &error))),
            None => {}
        }
        loaded
    })?;
    if let Some(warning) = &loaded.warning {
        log.warning(format_args!("{warning}"));
    }
    Ok(loaded)
}
