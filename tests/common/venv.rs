//! The virtual environment with the frameworks: made on first use under the target directory, shared by all test binaries.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::tools;

/// Time for downloading and installing all packages; reached only on a broken network.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// The Python that the binary was built for, as the build script chose it, or that the package is installed in.
pub fn base_python() -> PathBuf {
    if let Some(venv) = given() {
        return venv.join("bin/python");
    }
    env::var_os("PYO3_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

/// `3.11.7` of the Python that the binary was built for.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let code = "import platform; print(platform.python_version())";
        let mut command = Command::new(base_python());
        tools::run(command.args(["-c", code]), super::SOON).succeeded().stdout.trim().to_owned()
    })
}

/// Names an environment that has everything in tests/apps/requirements.txt: the one that the package under test is installed in
/// (scripts/test-wheel).
const GIVEN: &str = "TAPSTER_TEST_VENV";

/// The environment's directory with everything in tests/apps/requirements.txt installed.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| given().unwrap_or_else(|| make(&super::apps().join("requirements.txt"))))
}

/// The environment that the server under test is installed in as a package; `None`: it is the program that cargo built.
pub fn given() -> Option<PathBuf> {
    env::var_os(GIVEN).map(PathBuf::from)
}

/// The environment's Python.
pub fn python() -> PathBuf {
    dir().join("bin/python")
}

/// An environment without packages, made in `at`.
pub fn bare(python: &Path, at: &Path) {
    tools::run(Command::new(python).args(["-m", "venv", "--without-pip"]).arg(at), INSTALL_LIMIT).succeeded();
}

fn make(requirements: &Path) -> PathBuf {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let dir = base.join(format!("venv-{}", version()));
    fs::create_dir_all(&base).expect("the target directory is writable");
    let lock = File::create(base.join(format!("venv-{}.lock", version()))).expect("the target directory is writable");
    let _held = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock file can be locked");

    let wanted = fs::read(requirements).expect("tests/apps/requirements.txt is there");
    // Written last, so that an interrupted installation is repeated.
    let installed = dir.join("installed.txt");
    if fs::read(&installed).is_ok_and(|text| text == wanted) {
        return dir;
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).expect("an old environment can be removed");
    }
    eprintln!("installing tests/apps/requirements.txt into {}", dir.display());
    tools::run(Command::new(base_python()).args(["-m", "venv"]).arg(&dir), INSTALL_LIMIT).succeeded();
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    tools::run(&mut pip, INSTALL_LIMIT).succeeded();
    fs::write(&installed, wanted).expect("the environment is writable");
    dir
}
