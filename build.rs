//! Tells the compiler which Python the bridge is built for, makes the binary find its libpython, and refuses a Python that
//! cannot be embedded with a message that says what to install. Without the feature `python` it does nothing.

use std::path::Path;

use pyo3_build_config::{InterpreterConfig, PythonImplementation};

/// Set by maturin and setuptools-rust when they build an extension module, and read by pyo3, which links no libpython then.
const EXTENSION: &str = "PYO3_BUILD_EXTENSION_MODULE";

/// Oldest minor version of Python 3 that is supported.
const OLDEST_MINOR: u8 = 9;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    let config = pyo3_build_config::get();
    // An extension module lives in the interpreter that loads it: no library is linked, and it may be a static one.
    println!("cargo:rerun-if-env-changed={EXTENSION}");
    let embeds = std::env::var_os(EXTENSION).is_none();
    if let Err(reason) = supported(config).and_then(|()| if embeds { embeddable(config) } else { Ok(()) }) {
        eprintln!("\nerror: {reason}\n");
        std::process::exit(1);
    }
    pyo3_build_config::use_pyo3_cfgs();
    let python = Python::ask(config);
    println!("cargo:rustc-env=BUILD_PYTHON_VERSION={}", python.version);
    if embeds {
        // Without a runpath the loader may pick another libpython of the same name, with another prefix.
        pyo3_build_config::add_libpython_rpath_link_args();
        println!("cargo:rustc-env=BUILD_PYTHON_EXECUTABLE={}", python.executable);
    } else {
        println!("cargo:rustc-env=BUILD_PYTHON_EXECUTABLE=");
    }
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
}

/// What the interpreter says of itself.
struct Python {
    /// `3.11.7`
    version: String,
    /// The executable behind any virtual environment that the build ran in.
    executable: String,
}

impl Python {
    fn ask(config: &InterpreterConfig) -> Self {
        let minor = format!("{}.{}", config.target_abi().version().major, config.target_abi().version().minor);
        let executable = config.executable().unwrap_or_default().to_owned();
        // A virtual environment is the application's affair and may be gone at run time.
        let script = "import sys, platform; print(platform.python_version()); print(getattr(sys, '_base_executable', '') or '')";
        match config.run_python_script(script) {
            Ok(text) => {
                let mut lines = text.lines();
                let version = lines.next().unwrap_or(&minor).trim().to_owned();
                let base = lines.next().unwrap_or_default().trim();
                Self { version, executable: if base.is_empty() { executable } else { base.to_owned() } }
            }
            Err(_) => Self { version: minor, executable },
        }
    }
}

/// How to have another Python.
const CHOOSE: &str = "or choose another interpreter with PYO3_PYTHON=/path/to/python3";

/// The Python in words.
fn shown(config: &InterpreterConfig) -> String {
    let version = config.target_abi().version();
    match config.executable() {
        Some(executable) => format!("Python {version} ({executable})"),
        None => format!("Python {version}"),
    }
}

/// Why this Python cannot run the server.
fn supported(config: &InterpreterConfig) -> Result<(), String> {
    let (python, choose, version) = (shown(config), CHOOSE, config.target_abi().version());
    match config.target_abi().implementation() {
        PythonImplementation::CPython => {}
        other => {
            return Err(format!("{python} is {other:?}: Tapster runs CPython only; install CPython 3.9 or newer, {choose}"));
        }
    }
    if (version.major, version.minor) < (3, OLDEST_MINOR) {
        return Err(format!("{python} is too old: Tapster needs Python 3.{OLDEST_MINOR} or newer; install one, {choose}"));
    }
    if config.is_free_threaded() {
        return Err(format!(
            "{python} is a free-threaded build, which Tapster does not support yet: its caches rely on the GIL\n  \
             install the ordinary build of Python {version}, {choose}"
        ));
    }
    Ok(())
}

/// Why this Python cannot be linked into the server.
fn embeddable(config: &InterpreterConfig) -> Result<(), String> {
    let (python, choose, version) = (shown(config), CHOOSE, config.target_abi().version());
    if !config.shared() {
        return Err(format!(
            "{python} was built without a shared library, which Tapster needs to embed it\n  \
             pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {version}\n  \
             own build: ./configure --enable-shared\n  {choose}"
        ));
    }
    let (Some(dir), Some(name)) = (config.lib_dir(), config.lib_name()) else {
        return Ok(());
    };
    let library = Path::new(dir).join(format!("lib{name}.so"));
    if !library.exists() {
        return Err(format!(
            "{python} has no {}, which is needed to link against it\n  \
             Debian, Ubuntu: apt install libpython{version}-dev\n  \
             Fedora, RHEL: dnf install python{version}-devel\n  {choose}",
            library.display()
        ));
    }
    Ok(())
}
