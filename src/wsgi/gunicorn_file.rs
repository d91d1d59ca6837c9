//! Executing a gunicorn file: in a process that is there for nothing else.

use std::ffi::{CStr, OsString};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use super::failure;
use super::interpreter::{self, FirstPlace};
use crate::config::PythonSettings;
use crate::config::gunicorn::{Name, SETTINGS, Source, Value, similar};

const CODE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("gunicorn_file.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Starts the interpreter, executes the file and returns the names that it has set, in the order of their lines. `argv` is what
/// `sys.argv` is to be. The error is the traceback.
pub fn execute(source: &Source, argv: &[OsString], settings: &PythonSettings) -> Result<Vec<Name>, String> {
    interpreter::start(settings, FirstPlace::WorkingDirectory, None).map_err(|error| error.text)?;
    Python::attach(|py| {
        names(py, source, argv).map_err(|error| format!("raises an exception\n{}", failure::traceback(py, &error)))
    })
}

/// The Python function that executes a file: path (or None), name of the module (or None), and `sys.argv` in; a dict of all its
/// names out.
pub fn loader(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    code(py)?.getattr("load")
}

fn code(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    PyModule::from_code(py, CODE, c"<tapster gunicorn_file>", c"tapster_gunicorn_file")
}

fn names(py: Python<'_>, source: &Source, argv: &[OsString]) -> PyResult<Vec<Name>> {
    let code = code(py)?;
    let (path, module) = match source {
        Source::File(path) => (Some(path.to_string_lossy().into_owned()), None),
        Source::Module(module) => (None, Some(module)),
    };
    let found = code.getattr("load")?.call1((path, module, PyList::new(py, argv)?))?.cast_into::<PyDict>()?;
    let lines = code.getattr("lines")?.call1((&found,))?.cast_into::<PyDict>()?;
    let mut names = Vec::new();
    for (name, value) in found {
        let Ok(name) = name.extract::<String>() else { continue };
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let line = lines.get_item(&name)?.and_then(|line| line.extract().ok());
        let value = match setting {
            Some(setting) if setting.is_hook() && value.is_none() => continue,
            Some(setting) if setting.is_hook() => None,
            Some(_) => Some(value_of(&code.getattr("simple")?.call1((value,))?)?),
            None if similar(&name).is_some() && line.is_some() => None,
            None => continue,
        };
        names.push(Name { name, value, line });
    }
    names.sort_by_key(|name| name.line);
    Ok(names)
}

fn value_of(pair: &Bound<'_, PyAny>) -> PyResult<Value> {
    let (kind, value): (String, Bound<'_, PyAny>) = pair.extract()?;
    Ok(match kind.as_str() {
        "none" => Value::None,
        "bool" => Value::Bool(value.extract()?),
        "integer" => Value::Integer(value.extract()?),
        "float" => Value::Float(value.extract()?),
        "text" => Value::Text(value.extract()?),
        "json" => Value::Json(value.extract()?),
        "list" => Value::List(value.try_iter()?.map(|item| value_of(&item?)).collect::<PyResult<_>>()?),
        _ => Value::Other(value.extract()?),
    })
}
