//! Submodules of `tapster` in the program that embeds Python, where `tapster` is a module and no package: the same files, executed
//! when somebody asks for what is in them.

use std::ffi::CStr;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::described;

/// The module of what is written in Rust, as the package has it.
const NATIVE: &str = "tapster._tapster";

/// A submodule.
struct Submodule {
    name: &'static CStr,
    /// What it is called in the parent.
    leaf: &'static str,
    /// What its file is called in tracebacks.
    file: &'static CStr,
    source: &'static CStr,
    /// A name in it, which is there when it was executed.
    marker: &'static str,
}

/// All of them.
static SUBMODULES: [Submodule; 2] = [
    Submodule {
        name: c"tapster.tornado",
        leaf: "tornado",
        file: c"<tapster tornado>",
        source: text(concat!(include_str!("../python/tapster/tornado.py"), "\0")),
        marker: "WSGIAdapter",
    },
    Submodule {
        name: c"tapster.wsgi",
        leaf: "wsgi",
        file: c"<tapster wsgi>",
        source: text(concat!(include_str!("../python/tapster/wsgi.py"), "\0")),
        marker: "environ",
    },
];

const fn text(source: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(source.as_bytes()) {
        Ok(code) => code,
        Err(_) => panic!("the source has no NUL byte"),
    }
}

/// Puts the modules into `modules` and into their parent. They are empty until then, since most applications need none of them.
pub fn install(modules: &Bound<'_, PyAny>, parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let native = PyModule::new(parent.py(), NATIVE)?;
    described::install(&native)?;
    modules.set_item(NATIVE, native)?;
    SUBMODULES.iter().try_for_each(|submodule| submodule.install(modules, parent))
}

impl Submodule {
    fn install(&'static self, modules: &Bound<'_, PyAny>, parent: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = parent.py();
        let name = self.name.to_str().unwrap_or_default();
        let module = PyModule::new(py, name)?;
        let namespace = module.dict().unbind();
        let ask = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            let asked = arguments.get_item(0)?;
            let namespace = namespace.bind(py);
            // The import system asks for names of its own.
            let wanted = asked.extract::<String>()?;
            if !wanted.starts_with("__") && !namespace.contains(self.marker)? {
                // Into the module of this name that is there.
                PyModule::from_code(py, self.source, self.file, self.name)?;
            }
            match namespace.get_item(&asked)? {
                Some(found) => Ok(found.unbind()),
                None => Err(PyAttributeError::new_err(format!("module '{name}' has no attribute '{wanted}'"))),
            }
        };
        module.add("__getattr__", PyCFunction::new_closure(py, None, None, ask)?)?;
        modules.set_item(name, &module)?;
        parent.add(self.leaf, module)
    }
}
