//! The start of the interpreter, with the application loaded into it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::boot_profile::BootProfile;
use super::hooks::WorkerHooks;
use super::interpreter::{self, FirstPlace};
use super::load::Loader;
use super::loading::Loading;
use super::mounts::Callables;
use super::sources::LoadedSources;
use super::{failure, forks, inherited, logs, signals};
use crate::channel::BootError;
use crate::config::{AppSpec, Settings};
use crate::log::error::Log;
use crate::worker::app::{ModuleSources, Renounce, ToldSources, WorkerFacts};

/// What a worker that loads its application brings along.
pub struct WorkerStart<'a> {
    /// Children that the application forks call it first.
    pub renounce: &'a Renounce,
    /// What hooks learn of it.
    pub facts: &'a WorkerFacts,
    /// To be told where the application was loaded from; `None`: nobody asks.
    pub told: Option<&'a ToldSources>,
}

/// Applications that were loaded.
pub struct LoadedApp {
    /// The WSGI callables.
    pub callables: Callables,
    /// The hooks of the worker, if there are any.
    pub hooks: Option<Arc<WorkerHooks>>,
    /// Where it was loaded from, if somebody asks.
    pub sources: Option<Arc<LoadedSources>>,
}

/// Starts the interpreter on this thread and loads the application for one of so many workers. Without a `worker` it is loaded only
/// to see whether that works. `stacks` is as in [`super::AppStart`].
pub fn load_app(
    settings: &Settings,
    workers: usize,
    log: &Log,
    worker: Option<&WorkerStart<'_>>,
    stacks: Option<i32>,
) -> Result<LoadedApp, BootError> {
    let began = Instant::now();
    let is_object = matches!(settings.app, AppSpec::Object { .. });
    if is_object {
        inherited::begin(log)?;
    }
    // The caller has a path already.
    let place = if is_object && settings.chdir.is_none() { FirstPlace::Known } else { FirstPlace::WorkingDirectory };
    let interpreter = interpreter::start(&settings.python, place, stacks)?;
    let started = began.elapsed();
    if let Some(note) = &interpreter.note {
        log.info(format_args!("{note}"));
    }
    Python::attach(|py| {
        let Some(worker) = worker else {
            logs::install(py, settings, log)?;
            let callables = load(py, settings, workers, log, (started, stacks))?;
            return Ok(LoadedApp { callables, hooks: None, sources: None });
        };
        forks::renounce_in_children(py, worker.renounce.clone())
            .map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })?;
        if settings.debug {
            signals::keep_interrupt(py).map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })?;
        }
        logs::install(py, settings, log)?;
        let sources = worker.told.map(|_| LoadedSources::new(py, log).map(Arc::new)).transpose();
        let sources = sources.map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })?;
        let hooks = WorkerHooks::begin(py, settings, workers, worker.facts, log)?;
        let loaded = load(py, settings, workers, log, (started, stacks));
        if let (Some(sources), Some(told)) = (&sources, worker.told) {
            let list = match &loaded {
                Ok(callables) => sources.loaded(py, callables),
                Err(error) => sources.failed(py, &error.text),
            };
            if !told(&list) {
                sources.forget(&list);
            }
        }
        hooked(py, loaded, hooks, sources)
    })
}

/// Calls the hook that follows the load.
fn hooked(
    py: Python<'_>,
    loaded: Result<Callables, BootError>,
    hooks: Option<Arc<WorkerHooks>>,
    sources: Option<Arc<LoadedSources>>,
) -> Result<LoadedApp, BootError> {
    let Some(hooks) = hooks else { return Ok(LoadedApp { callables: loaded?, hooks: None, sources }) };
    let loaded = loaded.and_then(|callables| hooks.loaded(py, callables));
    if loaded.is_err() {
        hooks.exit(py);
    }
    Ok(LoadedApp { callables: loaded?, hooks: Some(hooks), sources })
}

/// As [`load_app`], for forks of this process: they call [`continue_in_fork`].
pub fn load_for_forks(
    settings: &Settings,
    workers: usize,
    log: &Log,
    renounce: &Renounce,
    stacks: Option<i32>,
) -> Result<Callables, BootError> {
    let began = Instant::now();
    let interpreter = interpreter::start(&settings.python, FirstPlace::WorkingDirectory, stacks)?;
    let started = began.elapsed();
    if let Some(note) = &interpreter.note {
        log.info(format_args!("{note}"));
    }
    Python::attach(|py| {
        forks::renounce_in_children(py, renounce.clone()).map_err(|error| failed(py, &error))?;
        logs::install(py, settings, log)?;
        load(py, settings, workers, log, (started, stacks))
    })
}

/// Makes the application that this process was forked with that of a worker.
pub fn continue_in_fork(
    callables: Callables,
    settings: &Settings,
    workers: usize,
    log: &Log,
    worker: &WorkerStart<'_>,
    stacks: Option<i32>,
) -> Result<LoadedApp, BootError> {
    Python::attach(|py| {
        let begun = interpreter::write_stacks_to(py, stacks)
            .and_then(|()| forks::renounce_in_children(py, worker.renounce.clone()))
            .and_then(|()| logs::renew(py, log))
            .and_then(|()| inherited::reseed(py));
        begun.map_err(|error| failed(py, &error))?;
        let hooks = WorkerHooks::begin(py, settings, workers, worker.facts, log)?;
        hooked(py, Ok(callables), hooks, None)
    })
}

fn failed(py: Python<'_>, error: &PyErr) -> BootError {
    BootError { app: false, text: failure::traceback(py, error) }
}

/// Loads the applications. The interpreter took `started` to start, and writes its stacks to `stacks`.
fn load(
    py: Python<'_>,
    settings: &Settings,
    workers: usize,
    log: &Log,
    (started, stacks): (Duration, Option<i32>),
) -> Result<Callables, BootError> {
    // The worker serves even if no profile can be taken.
    let profile = settings.boot_profile.then(|| BootProfile::start(py, started));
    let loaded = load_all(py, settings, workers, log, stacks);
    match profile.map(|profile| profile.and_then(|profile| profile.finish(py))) {
        Some(Ok(report)) => log.info(format_args!("{report}")),
        Some(Err(error)) => log.error(format_args!("no boot profile: {}", failure::traceback(py, &error))),
        None => {}
    }
    loaded
}

/// Loads the application of requests of no mount, if there is one, and those of the mounts.
fn load_all(py: Python<'_>, settings: &Settings, workers: usize, log: &Log, stacks: Option<i32>) -> Result<Callables, BootError> {
    let mut loader = Loader::new(workers);
    let loading = Loading::new(stacks.filter(|_| !settings.mounts.is_empty()));
    let mut load = |app: &AppSpec, before: &str| {
        let found = loader.load(py, app).map_err(|error| BootError { text: format!("{before}{}", error.text), ..error })?;
        if let Some(warning) = &found.warning {
            log.warning(format_args!("{before}{warning}"));
        }
        Ok(found.callable)
    };
    let mut load_unmounted = || {
        loading.begin(None);
        load(&settings.app, "")
    };
    let unmounted = settings.serves_unmounted().then(&mut load_unmounted).transpose()?;
    let mounted = settings.mounts.iter().map(|mount| {
        loading.begin(Some(&mount.shown()));
        load(&mount.app, &mount.in_messages())
    });
    Ok(Callables::new(unmounted, mounted.collect::<Result<_, _>>()?))
}
