//! `tapster.tornado` in the program that embeds Python, where `tapster` is a module and no package: the same file, executed when
//! somebody asks for what is in it.

use std::ffi::CStr;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

/// Its name.
const NAME: &CStr = c"tapster.tornado";

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("../python/tapster/tornado.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Puts the module into `modules` and into its parent. It is empty until then, since most applications have no Tornado.
pub fn install(modules: &Bound<'_, PyAny>, parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = parent.py();
    let module = PyModule::new(py, NAME.to_str().unwrap_or_default())?;
    let namespace = module.dict().unbind();
    let ask = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyAny>> {
        let py = arguments.py();
        let asked = arguments.get_item(0)?;
        let namespace = namespace.bind(py);
        // The import system asks for names of its own.
        let name = asked.extract::<String>()?;
        if !name.starts_with("__") && !namespace.contains("WSGIAdapter")? {
            // Into the module of this name that is there.
            PyModule::from_code(py, SOURCE, c"<tapster tornado>", NAME)?;
        }
        match namespace.get_item(&asked)? {
            Some(found) => Ok(found.unbind()),
            None => Err(PyAttributeError::new_err(format!("module 'tapster.tornado' has no attribute '{name}'"))),
        }
    };
    module.add("__getattr__", PyCFunction::new_closure(py, None, None, ask)?)?;
    modules.set_item(NAME.to_str().unwrap_or_default(), &module)?;
    parent.add("tornado", module)
}
