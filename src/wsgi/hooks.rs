//! The functions of a gunicorn file, called in a worker (`hooks.py` has their objects). The file is executed once more for them:
//! only code that it has made in this process can be called here.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyFloat, PyInt, PyList, PyModule, PyString, PyTuple};

use super::file_wrapper::FileWrapper;
use super::logs::level_of;
use super::mounts::Callables;
use super::{failure, gunicorn_file, stdlib};
use crate::channel::BootError;
use crate::config::gunicorn::Source;
use crate::config::hooks::{HookValue, Hooks};
use crate::config::{Level, Settings};
use crate::log::error::Log;
use crate::worker::app::{LifeHooks, Occasion, WorkerFacts};

const CODE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("hooks.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// The hooks of a worker. Their exceptions are logged, but for those that fail a boot.
pub struct WorkerHooks(FileHooks);

/// A file that was executed for its hooks.
pub struct FileHooks {
    /// The object of the class `Hooks`.
    pub object: Py<PyAny>,
    /// The file, for messages.
    file: String,
    log: Log,
}

impl WorkerHooks {
    /// Executes the file, if it has hooks for a worker, and calls `post_fork`. `workers`: in all.
    pub fn begin(
        py: Python<'_>,
        settings: &Settings,
        workers: usize,
        facts: &WorkerFacts,
        log: &Log,
    ) -> Result<Option<Arc<Self>>, BootError> {
        let Some(hooks) = &settings.hooks else { return Ok(None) };
        let wanted: Vec<&str> = hooks.in_workers().collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let start = settings.chdir.as_ref().map(|_| &*hooks.start);
        let hooks = FileHooks::load(py, hooks, &wanted, start, log)?;
        let made = hooks.equip(py, settings, std::os::unix::process::parent_id(), workers);
        made.map_err(|error| hooks.failed(py, "cannot be given its objects", &error))?;
        let requests = facts.requests.clone();
        let requests = PyCFunction::new_closure(py, Some(c"requests"), None, move |_, _| requests());
        let hooks = Self(hooks);
        let begun = requests.and_then(|requests| hooks.0.object.call_method1(py, "begin", (facts.age, requests)));
        if let Err(error) = begun {
            let error = hooks.0.failed(py, "post_fork raised an exception", &error);
            hooks.exit(py);
            return Err(error);
        }
        Ok(Some(Arc::new(hooks)))
    }

    /// The applications were loaded: calls `post_worker_init`, and returns what is to be served. `worker.wsgi` is the first of them,
    /// which the function may replace; all of them have the hooks of requests.
    pub fn loaded(&self, py: Python<'_>, mut applications: Callables) -> Result<Callables, BootError> {
        let object = self.0.object.bind(py);
        if let Some(first) = applications.first_mut() {
            let loaded = object.call_method1("loaded", (&*first,));
            *first = loaded.map_err(|error| self.0.failed(py, "post_worker_init raised an exception", &error))?.unbind();
        }
        let served = applications.try_map(|application| match application.bind(py).is_callable() {
            true => object.call_method1("around", (application, py.get_type::<FileWrapper>())).map(Bound::unbind),
            false => Err(PyTypeError::new_err("worker.wsgi is set to what cannot be called")),
        });
        served.map_err(|error| self.0.failed(py, "post_worker_init is at fault", &error))
    }

    /// The worker ends: calls `worker_exit`.
    pub fn exit(&self, py: Python<'_>) {
        self.run(py, "exit");
    }

    fn run(&self, py: Python<'_>, method: &str) {
        // What a hook raises is logged there.
        if let Err(error) = self.0.object.call_method0(py, method) {
            let error = failure::traceback(py, &error);
            self.0.log.error(format_args!("{}: a hook cannot be called: {error}", self.0.file));
        }
    }
}

impl FileHooks {
    /// Executes the file; `start` is its directory, where that is another one than the working directory.
    pub fn load(
        py: Python<'_>,
        hooks: &Hooks,
        wanted: &[&str],
        start: Option<&std::path::Path>,
        log: &Log,
    ) -> Result<Self, BootError> {
        let file = hooks.source.path().display().to_string();
        let (path, module) = match &hooks.source {
            Source::File(path) => (Some(path.to_string_lossy().into_owned()), None),
            Source::Module(module) => (None, Some(module)),
        };
        let make = || -> PyResult<Py<PyAny>> {
            let code = PyModule::from_code(py, CODE, c"<tapster hooks>", c"tapster_hooks")?;
            let names = code.getattr("load")?.call1((gunicorn_file::loader(py)?, path, module, start))?;
            let signature =
                PyCFunction::new_closure(py, None, None, |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                    stdlib::import(args.py(), "inspect")?.getattr("signature").map(Bound::unbind)
                })?;
            Ok(code.getattr("Hooks")?.call1((names, wanted.to_vec(), signature))?.unbind())
        };
        let object = make().map_err(|error| BootError {
            app: false,
            text: format!("{file} cannot be executed for its hooks\n{}", failure::traceback(py, &error)),
        })?;
        Ok(Self { object, file, log: log.clone() })
    }

    /// Makes the objects that the functions get; `master` is its process id, `workers` are those in all.
    pub fn equip(&self, py: Python<'_>, settings: &Settings, master: u32, workers: usize) -> PyResult<()> {
        let values = PyDict::new(py);
        for (name, value) in settings.hooks.iter().flat_map(|hooks| &hooks.settings) {
            values.set_item(name, object_of(py, value)?)?;
        }
        values.set_item("workers", workers)?;
        let log = logger(py, &self.log, settings.log_level)?;
        self.object.call_method1(py, "equip", (log, values, master, workers)).map(drop)
    }

    /// The error of a boot that a function has failed.
    pub fn failed(&self, py: Python<'_>, what: &str, error: &PyErr) -> BootError {
        BootError { app: false, text: format!("{}: {what}\n{}", self.file, failure::traceback(py, error)) }
    }
}

impl LifeHooks for WorkerHooks {
    fn run(&self, occasion: Occasion) {
        let method = match occasion {
            Occasion::Interrupted => "interrupted",
            Occasion::GivenUp => "aborted",
        };
        Python::attach(|py| self.run(py, method));
    }
}

/// The object that stands for gunicorn's logger.
fn logger<'py>(py: Python<'py>, log: &Log, level: Level) -> PyResult<Bound<'py, PyAny>> {
    let log = log.clone();
    let write = PyCFunction::new_closure(py, None, None, move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let (level, text): (i64, Bound<'_, PyString>) = args.extract()?;
        log.write(level_of(level), format_args!("{}", text.to_string_lossy()));
        Ok::<(), PyErr>(())
    })?;
    let traceback = PyCFunction::new_closure(py, None, None, |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let error = PyErr::from_value(args.get_item(0)?);
        Ok::<_, PyErr>(failure::traceback(args.py(), &error))
    })?;
    py.import("tapster_hooks")?.getattr("Log")?.call1((write, level.name().to_ascii_lowercase(), traceback))
}

fn object_of<'py>(py: Python<'py>, value: &HookValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        HookValue::None => py.None().into_bound(py),
        HookValue::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        HookValue::Integer(number) => PyInt::new(py, *number).into_any(),
        HookValue::Float(number) => PyFloat::new(py, *number).into_any(),
        HookValue::Text(text) => PyString::new(py, text).into_any(),
        HookValue::List(items) => PyList::new(py, items)?.into_any(),
    })
}
