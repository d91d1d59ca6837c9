//! Finding the application: import, attribute path, factory call. Every error names the object that was looked for and the ones
//! that exist.

use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyModuleNotFoundError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyList, PyModule, PyString, PyTuple};

use super::{failure, forks, literals, stdlib, welcome};
use crate::channel::BootError;
use crate::config::{AppSpec, Callable, Code};

/// The module of the package that keeps the object which a program has called the server with.
const CALLER: &str = "tapster._call";

/// Names that are tried when none is given.
const DEFAULT_NAMES: [&str; 2] = ["application", "app"];

/// Most names listed in a message.
const NAMES_SHOWN: usize = 10;

/// How alike a name must be to be suggested (difflib's ratio, 0 to 1).
const SIMILAR: f64 = 0.6;

fn failed(text: String) -> BootError {
    BootError { app: true, text }
}

/// An application that was found.
pub struct FoundApp {
    /// The WSGI callable.
    pub callable: Py<PyAny>,
    /// A remark for the operator, if there is one.
    pub warning: Option<String>,
}

/// Loads the applications of a process, one after the other.
pub struct Loader {
    /// Shown by the welcome page.
    workers: usize,
    /// Files that were executed, and their modules: a file of two applications is executed once, as a module is.
    files: Vec<(PathBuf, Py<PyAny>)>,
}

impl Loader {
    /// For one of so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers, files: Vec::new() }
    }

    /// Loads an application.
    pub fn load(&mut self, py: Python<'_>, spec: &AppSpec) -> Result<FoundApp, BootError> {
        match spec {
            AppSpec::Welcome => welcome::load(py, self.workers)
                .map(|callable| FoundApp { callable, warning: None })
                .map_err(|error| failed(format!("cannot load the welcome page\n{}", failure::traceback(py, &error)))),
            AppSpec::Object { text } => {
                let object = py.import(CALLER).and_then(|module| module.getattr("application"));
                let object = object.map_err(|error| failed(format!("cannot load {text}\n{}", failure::traceback(py, &error))))?;
                check(&object, None, text)
            }
            AppSpec::Target { code, callable, text } => {
                let module = match code {
                    Code::Module(name) => import_module(py, name, text)?,
                    Code::File(path) => self.file(py, path, text)?,
                };
                let found = find(py, &module, callable.as_ref(), text)?;
                let object = match callable.as_ref().and_then(|callable| callable.call.as_deref()) {
                    Some(arguments) => call_factory(py, &found, arguments, text)?,
                    None => found,
                };
                check(&object, callable.as_ref(), text)
            }
        }
    }

    fn file<'py>(&mut self, py: Python<'py>, path: &Path, text: &str) -> Result<Bound<'py, PyAny>, BootError> {
        if let Some((_, module)) = self.files.iter().find(|(known, _)| known == path) {
            return Ok(module.bind(py).clone());
        }
        let module = import_file(py, path, text)?;
        self.files.push((path.to_owned(), module.clone().unbind()));
        Ok(module)
    }
}

/// Turns an exception of the application's own code into a message.
fn app_failed(py: Python<'_>, text: &str, doing: &str, error: &PyErr) -> BootError {
    forks::end_child(py, error);
    let traceback = failure::traceback(py, error);
    if error.is_instance_of::<PySystemExit>(py) {
        return failed(format!("cannot load {text}: {doing} called sys.exit()\n{traceback}"));
    }
    let hint = if error.is_instance_of::<PyModuleNotFoundError>(py) { unused_environment(py) } else { None };
    failed(format!("cannot load {text}: {doing} raised an exception\n{traceback}{}", hint.unwrap_or_default()))
}

fn import_module<'py>(py: Python<'py>, name: &str, text: &str) -> Result<Bound<'py, PyAny>, BootError> {
    let error = match py.import(name) {
        Ok(module) => return Ok(module.into_any()),
        Err(error) => error,
    };
    match missing_part(py, &error, name) {
        Some(missing) => Err(failed(not_found(py, name, &missing, text))),
        None => Err(app_failed(py, text, &format!("importing `{name}`"), &error)),
    }
}

/// The part of the dotted name that does not exist, if that is what the exception says; a missing module that the application
/// itself imports is another case, with frames of the application in its traceback.
fn missing_part(py: Python<'_>, error: &PyErr, name: &str) -> Option<String> {
    if !error.is_instance_of::<PyModuleNotFoundError>(py) {
        return None;
    }
    let missing: String = error.value(py).getattr("name").ok()?.extract().ok()?;
    let is_part = name == missing || name.strip_prefix(&missing).is_some_and(|rest| rest.starts_with('.'));
    let mut frame = error.traceback(py).map(|frame| frame.into_any());
    while let Some(current) = frame {
        let file: String =
            current.getattr("tb_frame").ok()?.getattr("f_code").ok()?.getattr("co_filename").ok()?.extract().ok()?;
        if !file.starts_with("<frozen importlib") {
            return None;
        }
        frame = current.getattr("tb_next").ok().filter(|next| !next.is_none());
    }
    is_part.then_some(missing)
}

fn not_found(py: Python<'_>, name: &str, missing: &str, text: &str) -> String {
    let mut message = format!("cannot load {text}: No module named `{missing}`");
    if let Some((parent, _)) = missing.rsplit_once('.') {
        let is_package = py.import(parent).is_ok_and(|parent| parent.hasattr("__path__").unwrap_or(false));
        let what = if is_package { "a package without it" } else { "a module, not a package" };
        message.push_str(&format!("; `{parent}` is {what}"));
        return message;
    }
    let directory = std::env::current_dir().unwrap_or_default();
    let here = modules_in(&directory);
    if missing == name || !name.contains('.') {
        if let Some(similar) = similar(py, missing, &here) {
            message.push_str(&format!("; did you mean `{similar}`?"));
        } else if Path::new(&format!("{name}.py")).exists() {
            message.push_str("; a file of that name exists, is it readable?");
        }
    }
    message.push_str(&format!("\nlooked in {} and the rest of sys.path; ", directory.display()));
    if here.is_empty() {
        message.push_str("there are no Python files in that directory (change it with --chdir, add one with --pythonpath)");
    } else {
        message.push_str(&format!("modules in that directory: {}", listed(&here)));
    }
    message.push_str(&unused_environment(py).unwrap_or_default());
    message
}

/// What to do when the `python` that a shell would run here is one of a virtual environment, and the interpreter has none.
fn unused_environment(py: Python<'_>) -> Option<String> {
    let sys = py.import("sys").ok()?;
    if !sys.getattr("prefix").ok()?.eq(sys.getattr("base_prefix").ok()?).ok()? {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let has_python = |place: &PathBuf| ["python", "python3"].iter().any(|name| place.join(name).is_file());
    let place = std::env::split_paths(&path).find(has_python)?;
    let environment = place.parent().filter(|parent| parent.join("pyvenv.cfg").is_file())?;
    let shown = environment.display();
    Some(format!("\nthe python on PATH is that of the virtual environment {shown}, which is not used: add --venv {shown}"))
}

/// Modules and packages of a directory, sorted.
fn modules_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let is_module = path.extension().is_some_and(|extension| extension == "py") || path.join("__init__.py").exists();
            is_module.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
        })
        .collect();
    names.sort();
    names
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn similar(py: Python<'_>, name: &str, candidates: &[String]) -> Option<String> {
    let matches = stdlib::import(py, "difflib").ok()?.call_method1("get_close_matches", (name, candidates, 1, SIMILAR)).ok()?;
    matches.get_item(0).ok()?.extract().ok()
}

fn import_file<'py>(py: Python<'py>, path: &Path, text: &str) -> Result<Bound<'py, PyAny>, BootError> {
    let directory = std::env::current_dir().unwrap_or_default();
    let path = directory.join(path);
    if !path.is_file() {
        let what = if path.exists() { "is not a file" } else { "does not exist" };
        return Err(failed(format!("cannot load {text}: {} {what}", path.display())));
    }
    let import = || -> PyResult<Result<Bound<'py, PyAny>, PyErr>> {
        let sys = py.import("sys")?;
        let parent = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let search = sys.getattr("path")?.cast_into::<PyList>()?;
        if !search.contains(parent.as_os_str())? {
            stdlib::keep(py, std::slice::from_ref(&parent))?;
            search.insert(0, parent.as_os_str())?;
        }
        let modules = sys.getattr("modules")?.cast_into::<PyDict>()?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // A file may have the name of a module that is imported already (code.py, signal.py), which must not be replaced.
        let name = free_name(&modules, stem)?;
        let loader = stdlib::import(py, "importlib.machinery")?.getattr("SourceFileLoader")?.call1((&name, path.as_os_str()))?;
        let util = stdlib::import(py, "importlib.util")?;
        let spec = util.call_method1("spec_from_loader", (&name, &loader))?;
        let module = util.call_method1("module_from_spec", (&spec,))?;
        modules.set_item(&name, &module)?;
        Ok(match loader.call_method1("exec_module", (&module,)) {
            Ok(_) => Ok(module),
            Err(error) => {
                modules.del_item(&name)?;
                Err(error)
            }
        })
    };
    let outcome = import().map_err(|error| failed(format!("cannot load {text}\n{}", failure::traceback(py, &error))))?;
    outcome.map_err(|error| app_failed(py, text, &format!("importing {}", path.display()), &error))
}

/// The name, or one made of it, under which there is no module yet.
fn free_name(modules: &Bound<'_, PyDict>, stem: String) -> PyResult<String> {
    if !modules.contains(&stem)? {
        return Ok(stem);
    }
    let mut name = format!("tapster_app_{stem}");
    let mut number = 1;
    while modules.contains(&name)? {
        number += 1;
        name = format!("tapster_app_{stem}_{number}");
    }
    Ok(name)
}

fn find<'py>(
    py: Python<'py>,
    module: &Bound<'py, PyAny>,
    callable: Option<&Callable>,
    text: &str,
) -> Result<Bound<'py, PyAny>, BootError> {
    let Some(callable) = callable else {
        for name in DEFAULT_NAMES {
            if let Some(found) = attribute(py, module, name, text)? {
                return Ok(found);
            }
        }
        let names = callables(module);
        let mut message = format!("cannot load {text}: it has neither `application` nor `app`");
        if let Some(better) = wsgi_beside(module) {
            message.push_str(&format!("; did you mean {better}?"));
        } else if names.is_empty() {
            message.push_str(", nor anything else that can be called");
        } else {
            message.push_str(&format!("; found {}", listed(&names)));
            if let Some(similar) = DEFAULT_NAMES.iter().find_map(|name| similar(py, name, &names)) {
                message.push_str(&format!("; did you mean {text}:{similar}?"));
            } else if let [only] = &names[..] {
                message.push_str(&format!("; did you mean {text}:{only}, or {text}:{only}() if it is a factory?"));
            }
        }
        return Err(failed(message));
    };
    let mut object = module.clone();
    let mut path = String::new();
    for name in &callable.path {
        let Some(found) = attribute(py, &object, name, text)? else {
            let names = callables(&object);
            let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
            let mut message = format!("cannot load {text}: there is no `{name}`{place}");
            if !names.is_empty() {
                message.push_str(&format!("; found {}", listed(&names)));
            }
            if let Some(similar) = similar(py, name, &names) {
                message.push_str(&format!("; did you mean `{similar}`?"));
            }
            return Err(failed(message));
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        object = found;
    }
    Ok(object)
}

fn attribute<'py>(
    py: Python<'py>,
    object: &Bound<'py, PyAny>,
    name: &str,
    text: &str,
) -> Result<Option<Bound<'py, PyAny>>, BootError> {
    object.getattr_opt(name).map_err(|error| app_failed(py, text, &format!("reading `{name}`"), &error))
}

/// Public callables of a module or object that were not imported from elsewhere, as far as that can be seen.
fn callables(object: &Bound<'_, PyAny>) -> Vec<String> {
    let home = object.cast::<PyModule>().ok().and_then(|module| module.name().ok());
    let Ok(names) = object.dir() else { return Vec::new() };
    let is_own = |value: &Bound<'_, PyAny>| match (&home, value.getattr("__module__").ok()) {
        // Instances show the module of their class: an app object is one.
        (Some(home), Some(module)) if value.hasattr("__qualname__").unwrap_or(false) => module.eq(home).unwrap_or(true),
        _ => true,
    };
    names
        .iter()
        .filter_map(|name| name.cast_into::<PyString>().ok())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('_'))
        .filter(|name| object.getattr(name.as_str()).is_ok_and(|value| value.is_callable() && is_own(&value)))
        .collect()
}

/// The module `wsgi`, where projects of Django have their application, in this package, beside this module, or in the one directory
/// beside it that has such a module.
fn wsgi_beside(module: &Bound<'_, PyAny>) -> Option<String> {
    let file: PathBuf = module.getattr("__file__").ok()?.extract().ok()?;
    let package: String = module.getattr("__package__").ok()?.extract().ok()?;
    let has = |directory: &Path| directory.join("wsgi.py").is_file();
    let directory = file.parent()?;
    if !package.is_empty() {
        return has(directory).then(|| format!("{package}.wsgi"));
    }
    let mut found = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).filter(|path| has(path));
    match (found.next(), found.next()) {
        (Some(only), None) => Some(format!("{}.wsgi", only.file_name()?.to_str()?)),
        (_, _) => None,
    }
}

fn call_factory<'py>(
    py: Python<'py>,
    factory: &Bound<'py, PyAny>,
    arguments: &str,
    text: &str,
) -> Result<Bound<'py, PyAny>, BootError> {
    if !factory.is_callable() {
        return Err(failed(format!(
            "cannot load {text}: the factory is of the type {}, which cannot be called",
            failure::kind(factory)
        )));
    }
    let (positional, named) = literals::parse(py, arguments).map_err(|reason| failed(format!("cannot load {text}: {reason}")))?;
    let positional = PyTuple::new(py, positional).map_err(|error| app_failed(py, text, "the factory's arguments", &error))?;
    let app = factory.call(positional, Some(&named)).map_err(|error| app_failed(py, text, "calling the factory", &error))?;
    if app.is_none() {
        return Err(failed(format!("cannot load {text}: the factory returned None; it must return the application")));
    }
    Ok(app)
}

/// Checks all that can be checked before the first request.
fn check(object: &Bound<'_, PyAny>, callable: Option<&Callable>, text: &str) -> Result<FoundApp, BootError> {
    let py = object.py();
    if !object.is_callable() {
        let hint = if object.hasattr("__path__").unwrap_or(false) || object.is_instance_of::<PyModule>() {
            "; it is a module, name the callable in it"
        } else {
            ""
        };
        return Err(failed(format!(
            "cannot load {text}: an object of the type {} is not callable, so it is no WSGI application{hint}",
            failure::kind(object)
        )));
    }
    let accepted = FoundApp { callable: object.clone().unbind(), warning: None };
    if is_plain(object).unwrap_or(false) {
        return Ok(accepted);
    }
    let is_async = |object: &Bound<'_, PyAny>| {
        let inspect = stdlib::import(py, "inspect")?;
        inspect.call_method1("iscoroutinefunction", (object,))?.is_truthy()
    };
    let call = object.getattr("__call__").ok();
    if is_async(object).unwrap_or(false) || call.is_some_and(|call| is_async(&call).unwrap_or(false)) {
        return Err(failed(format!(
            "cannot load {text}: it is an async (ASGI) application, and Tapster serves WSGI: wrap it (a2wsgi.ASGIMiddleware) or use \
             an ASGI server"
        )));
    }
    let parameters = parameters(object).unwrap_or_default();
    let warning = if parameters.first().is_some_and(|name| name == "start_response") {
        Some(format!(
            "{text} takes its arguments in the wrong order ({}): WSGI calls application(environ, start_response)",
            parameters.join(", ")
        ))
    } else if parameters.is_empty() && callable.is_some_and(|callable| callable.call.is_none()) && takes_nothing(object) {
        Some(format!("{text} takes no arguments, so it looks like a factory: use {text}()"))
    } else {
        None
    };
    Ok(FoundApp { warning, ..accepted })
}

/// Flags of a code object that makes a coroutine, a coroutine from a generator, or an asynchronous generator (`inspect.CO_*`).
const ASYNC_FLAGS: u32 = 0x80 | 0x100 | 0x200;

/// Whether this is a function, or an object with a method `__call__`, that plainly takes the two arguments of WSGI. `inspect`
/// knows all cases, but its import takes longer than the rest of a small application's start.
fn is_plain(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (function, bound) =
        if object.is_instance_of::<PyFunction>() { (object.clone(), 0) } else { (object.get_type().getattr("__call__")?, 1) };
    // A decorator may have put another signature there.
    if !function.is_instance_of::<PyFunction>() || !function.getattr("__dict__")?.is_empty()? {
        return Ok(false);
    }
    let code = function.getattr("__code__")?;
    let flags: u32 = code.getattr("co_flags")?.extract()?;
    let positional: usize = code.getattr("co_argcount")?.extract()?;
    let names: Vec<String> = code.getattr("co_varnames")?.extract()?;
    let wsgi = names.get(bound..positional).is_some_and(|names| names.len() >= 2 && names[0] != "start_response");
    Ok(wsgi && flags & ASYNC_FLAGS == 0)
}

fn parameters(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let signature = stdlib::import(object.py(), "inspect")?.call_method1("signature", (object,))?;
    signature.getattr("parameters")?.try_iter()?.map(|name| name?.extract()).collect()
}

/// Whether a signature could be read and is empty.
fn takes_nothing(object: &Bound<'_, PyAny>) -> bool {
    parameters(object).is_ok_and(|parameters| parameters.is_empty())
}
