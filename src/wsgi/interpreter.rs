//! Starting the interpreter: which Python, which virtual environment, what is on `sys.path`.
//!
//! The program name decides everything: with it set to the virtual environment's `bin/python`, `sys.executable`,
//! `sys.prefix`, `sys.path` and the executable of `multiprocessing` are those of the environment (PEP 405).
//!
//! A server that is an extension module finds its interpreter running: all of that was decided by who started it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use pyo3::ffi;
use pyo3::prelude::*;

use super::{failure, signals, stdlib, timeout, write_errors};
use crate::channel::BootError;
use crate::config::PythonSettings;

/// Version of the Python that this binary was built for (`3.11.7`).
const BUILT_FOR: &str = env!("BUILD_PYTHON_VERSION");

/// Executable of that Python, for applications that start it (`sys.executable`).
pub const BUILT_WITH: &str = env!("BUILD_PYTHON_EXECUTABLE");

/// Gives processes that the application forks the signals' default actions back.
const CHILDREN: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("children.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// A running interpreter, attached to the thread that started it. It is never finalised: threads of the application may
/// still run when the worker leaves.
#[derive(Debug)]
pub struct Interpreter {
    /// A remark for the operator, if there is one.
    pub note: Option<String>,
    /// The attached state belongs to one thread.
    _thread: std::marker::PhantomData<*const ()>,
}

/// Where modules are looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPlace {
    /// In the working directory.
    WorkingDirectory,
    /// Where the interpreter, which runs already, looks.
    Known,
}

fn failed(text: String) -> BootError {
    BootError { app: false, text }
}

/// Version of the running libpython, `3.11.7`.
pub fn version() -> &'static str {
    let version = Python::version_str();
    version.split_once(' ').map_or(version, |(number, _)| number)
}

/// `3.11` of `3.11.7`.
fn minor(version: &str) -> &str {
    version.match_indices('.').nth(1).map_or(version, |(end, _)| &version[..end])
}

/// Starts the interpreter on this thread, which stays attached for life.
///
/// When a signal ends the process, the stacks of all Python threads are written to the descriptor `stacks`, or to standard error.
/// `sys.path` begins with what `place` says, then the settings' directories. A second call in the same process and thread only
/// prepares `sys.path`.
pub fn start(settings: &PythonSettings, place: FirstPlace, stacks: Option<i32>) -> Result<Interpreter, BootError> {
    let running = version();
    if minor(running) != minor(BUILT_FOR) {
        return Err(failed(format!(
            "this tapster was built for Python {BUILT_FOR}, but the loader found the library of Python {running}: \
             check LD_LIBRARY_PATH, or build tapster again"
        )));
    }
    // SAFETY: may be called at any time.
    let is_guest = unsafe { ffi::Py_IsInitialized() } != 0;
    let mut note = (running != BUILT_FOR && !is_guest)
        .then(|| format!("built for Python {BUILT_FOR}, running with the library of Python {running}"));
    if !is_guest {
        let program = match &settings.venv {
            Some(venv) => Some(venv_python(venv, running)?),
            None => Some(PathBuf::from(BUILT_WITH)).filter(|python| python.exists()),
        };
        initialize(program.as_deref())?;
    } else {
        Python::attach(tell_environment).map_err(|error| failed(format!("cannot set os.environ: {error}")))?;
        if let Some(venv) = &settings.venv {
            note = Python::attach(|py| refuse_other_venv(py, venv))?;
        }
    }
    static INSTALLED: Once = Once::new();
    let mut installed = Ok(());
    INSTALLED.call_once(|| {
        installed = Python::attach(|py| {
            PyModule::from_code(py, CHILDREN, c"<tapster children>", c"tapster_children")
                .map(drop)
                .and_then(|()| signals::install(py))
                .and_then(|()| write_errors::install(py))
                .and_then(|()| timeout::install(py))
                .map_err(|error| failed(format!("cannot prepare Python's modules: {}", failure::traceback(py, &error))))
        });
    });
    installed?;
    Python::attach(|py| {
        prepare(py, settings, place, stacks)
            .map_err(|error| failed(format!("cannot prepare Python: {}", failure::traceback(py, &error))))
    })?;
    Ok(Interpreter { note, _thread: std::marker::PhantomData })
}

/// Makes `os.environ`, which an interpreter that was started before copied then, what the environment is now. As a rule nothing has
/// changed, and then nothing is written: there may be threads that read it.
fn tell_environment(py: Python<'_>) -> PyResult<()> {
    let environ = py.import("os")?.getattr("environ")?;
    let known: HashMap<OsString, OsString> = environ.call_method0("copy")?.extract()?;
    let now: HashMap<OsString, OsString> = std::env::vars_os().collect();
    for name in known.keys().filter(|name| !now.contains_key(*name)) {
        environ.del_item(name)?;
    }
    for (name, value) in now.iter().filter(|(name, value)| known.get(*name) != Some(*value)) {
        environ.set_item(name, value)?;
    }
    Ok(())
}

/// Refuses an environment that is not the one of the interpreter that this server is a package of. One that is only active where
/// the server was started is worth a note.
fn refuse_other_venv(py: Python<'_>, venv: &Path) -> Result<Option<String>, BootError> {
    let prefix = py.import("sys").and_then(|sys| sys.getattr("prefix")?.extract::<PathBuf>());
    let prefix = prefix.map_err(|error| failed(failure::traceback(py, &error)))?;
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(venv) == real(&prefix) {
        return Ok(None);
    }
    let is_active = std::env::var_os("VIRTUAL_ENV").is_some_and(|active| Path::new(&active) == venv);
    let (venv, prefix) = (venv.display(), prefix.display());
    if is_active {
        return Ok(Some(format!("the active virtual environment {venv} is not used: this tapster is installed in {prefix}")));
    }
    Err(failed(format!(
        "--venv {venv} is not where this tapster is installed, which is {prefix}: install tapster there ({venv}/bin/pip install \
         tapster) and start {venv}/bin/tapster"
    )))
}

/// The interpreter of a virtual environment, which must be one for this version: another one's packages would silently be
/// missing from `sys.path`.
fn venv_python(venv: &Path, running: &str) -> Result<PathBuf, BootError> {
    let shown = venv.display();
    let create = format!("create one with: python{} -m venv {shown}", minor(running));
    if !venv.is_dir() {
        return Err(failed(format!("no virtual environment at {shown}: there is no such directory; {create}")));
    }
    let config = std::fs::read_to_string(venv.join("pyvenv.cfg"))
        .map_err(|error| failed(format!("{shown} is no virtual environment: cannot read its pyvenv.cfg: {error}; {create}")))?;
    if let Some(version) = venv_version(&config)
        && minor(version) != minor(running)
    {
        return Err(failed(format!(
            "the virtual environment {shown} is for Python {version}, but this tapster runs Python {running}: {create}, or build \
             tapster with PYO3_PYTHON={shown}/bin/python"
        )));
    }
    let library = venv.join("lib").join(format!("python{}", minor(running)));
    if !library.is_dir() {
        return Err(failed(format!(
            "the virtual environment {shown} has no {}: it is not one for Python {}; {create}",
            library.display(),
            minor(running)
        )));
    }
    let python = venv.join("bin").join("python");
    if !python.exists() {
        return Err(failed(format!(
            "the virtual environment {shown} has no working bin/python: the Python that it was made with is gone; {create}"
        )));
    }
    Ok(python)
}

/// The version in a pyvenv.cfg: `version` as written by venv, `version_info` by virtualenv and uv.
fn venv_version(config: &str) -> Option<&str> {
    config.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| match key.trim() {
        "version" | "version_info" => Some(value.trim()),
        _ => None,
    })
}

/// A PyConfig that is cleared when dropped.
struct Config(ffi::PyConfig);

impl Config {
    fn new() -> Self {
        let mut config = std::mem::MaybeUninit::<ffi::PyConfig>::zeroed();
        // SAFETY: PyConfig is a C struct of integers and pointers, for which zeros are valid; PyConfig_InitPythonConfig
        // fills it and needs no running interpreter (PEP 587).
        unsafe {
            ffi::PyConfig_InitPythonConfig(config.as_mut_ptr());
            Self(config.assume_init())
        }
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the config was initialised and is not used again.
        unsafe { ffi::PyConfig_Clear(&raw mut self.0) };
    }
}

fn initialize(program: Option<&Path>) -> Result<(), BootError> {
    let mut config = Config::new();
    // Signals belong to the worker; its arguments are not Python's.
    config.0.install_signal_handlers = 0;
    config.0.parse_argv = 0;
    if let Some(program) = program {
        let name = CString::new(program.as_os_str().as_bytes())
            .map_err(|_| failed(format!("the path of Python contains a NUL byte: {}", program.display())))?;
        let raw = &raw mut config.0;
        // SAFETY: the config is initialised, the field belongs to it, the name is a C string; the call copies it.
        check(unsafe { ffi::PyConfig_SetBytesString(raw, &raw mut (*raw).program_name, name.as_ptr()) })?;
    }
    // Applications that look at `sys.argv` expect the command that has started them.
    let arguments = std::env::args_os().map(|argument| CString::new(argument.as_bytes()).unwrap_or_default());
    let arguments: Vec<CString> = arguments.collect();
    let mut argv: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    let count = ffi::Py_ssize_t::try_from(argv.len()).unwrap_or(0);
    // SAFETY: the config is initialised; so many C strings are valid during the call, which copies them.
    check(unsafe { ffi::PyConfig_SetBytesArgv(&raw mut config.0, count, argv.as_mut_ptr()) })?;
    // SAFETY: the config is initialised and no interpreter runs; afterwards this thread is attached.
    check(unsafe { ffi::Py_InitializeFromConfig(&raw const config.0) })
}

fn check(status: ffi::PyStatus) -> Result<(), BootError> {
    // SAFETY: the status was returned by a PyConfig function; reading it needs no interpreter.
    if unsafe { ffi::PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    let text = |pointer: *const c_char| {
        // SAFETY: the strings of a PyStatus are static C strings or null (PEP 587).
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy())
    };
    let reason = text(status.err_msg).unwrap_or_else(|| "no reason given".into());
    let place = text(status.func).map_or_else(String::new, |function| format!(" (in {function})"));
    Err(failed(format!(
        "Python {} cannot start: {reason}{place}; check PYTHONHOME, PYTHONPATH and the installation at {BUILT_WITH}",
        version()
    )))
}

/// Makes the state that a program started as `python script.py` finds, where it matters to applications.
fn prepare(py: Python<'_>, settings: &PythonSettings, place: FirstPlace, stacks: Option<i32>) -> PyResult<()> {
    let sys = py.import("sys")?;
    let path = sys.getattr("path")?;
    let directory = std::env::current_dir()?;
    let first = (place == FirstPlace::WorkingDirectory).then(|| directory.clone());
    let wanted: Vec<PathBuf> = first.into_iter().chain(settings.pythonpath.iter().map(|entry| directory.join(entry))).collect();
    stdlib::keep(py, &wanted)?;
    // `threading` takes the thread that imports it first for the main one.
    stdlib::import(py, "threading")?;
    for (index, entry) in wanted.into_iter().enumerate() {
        path.call_method1("insert", (index, entry.into_os_string()))?;
    }
    // A pipe would make print() wait for a full buffer, so that no output of a living worker is seen.
    for name in ["stdout", "stderr"] {
        let stream = sys.getattr(name)?;
        if stream.hasattr("reconfigure")? {
            let options = pyo3::types::PyDict::new(py);
            options.set_item("line_buffering", true)?;
            options.set_item("errors", "backslashreplace")?;
            stream.call_method("reconfigure", (), Some(&options))?;
        }
    }
    write_stacks_to(py, stacks)
}

/// When a signal ends the process, the stacks of all Python threads are written to this descriptor, or to standard error.
pub fn write_stacks_to(py: Python<'_>, stacks: Option<i32>) -> PyResult<()> {
    let faulthandler = py.import("faulthandler")?;
    match stacks {
        Some(fd) => _ = faulthandler.call_method1("enable", (fd,))?,
        // Without a usable stderr there is nowhere to write to.
        None => _ = faulthandler.call_method0("enable"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_environment_is_read_from_either_key() {
        assert_eq!(venv_version("home = /usr/bin\nversion = 3.12.1\n"), Some("3.12.1"));
        assert_eq!(venv_version("home=/usr/bin\nversion_info = 3.9.18.final.0\n"), Some("3.9.18.final.0"));
        assert_eq!(venv_version("home = /usr/bin\n"), None);
    }

    #[test]
    fn the_minor_version_is_what_packages_are_installed_for() {
        assert_eq!(minor("3.11.7"), "3.11");
        assert_eq!(minor("3.13.0rc1+"), "3.13");
        assert_eq!(minor("3.9"), "3.9");
    }

    #[test]
    fn an_environment_that_does_not_fit_is_refused_with_both_versions() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let refusal = |path: &Path| venv_python(path, "3.11.7").expect_err("no environment for 3.11").text;
        assert!(refusal(&dir.path().join("none")).contains("no such directory"));
        assert!(refusal(dir.path()).contains("cannot read its pyvenv.cfg"));
        std::fs::write(dir.path().join("pyvenv.cfg"), "version = 3.12.1\n").expect("writable");
        let text = refusal(dir.path());
        assert!(text.contains("is for Python 3.12.1") && text.contains("runs Python 3.11.7"), "{text}");
        std::fs::write(dir.path().join("pyvenv.cfg"), "version = 3.11.2\n").expect("writable");
        assert!(refusal(dir.path()).contains("lib/python3.11"));
        std::fs::create_dir_all(dir.path().join("lib/python3.11")).expect("writable");
        assert!(refusal(dir.path()).contains("no working bin/python"));
        std::fs::create_dir(dir.path().join("bin")).expect("writable");
        std::fs::write(dir.path().join("bin/python"), "").expect("writable");
        assert_eq!(venv_python(dir.path(), "3.11.7"), Ok(dir.path().join("bin/python")));
    }
}
