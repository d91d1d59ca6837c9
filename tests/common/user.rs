//! Another user for servers that give up their rights: www-data, and a standard library that it can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::unistd::{User, geteuid};

use super::tools::skip;
use super::{place, venv};

/// A user without rights, there on every Debian.
pub const NAME: &str = "www-data";

/// Parts of the standard library that no server needs, and that are most of it.
const NOT_COPIED: [&str; 7] = ["test", "site-packages", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3"];

/// The user, and what a server needs to run Python as it.
pub struct Other {
    /// From the user database.
    pub user: User,
    /// For PYTHONHOME, if the Python of the build is in a directory that is closed to the user, such as root's home.
    home: Option<&'static Path>,
}

/// The other user; `None` after saying that the test is skipped, when this process cannot become it.
pub fn other() -> Option<Other> {
    if !geteuid().is_root() {
        skip("only root can become another user");
        return None;
    }
    let Some(user) = User::from_name(NAME).expect("the user database can be read") else {
        skip("there is no user www-data");
        return None;
    };
    if let Some(venv) = venv::given()
        && !may(["test", "-x"], &venv.join("bin/python"))
    {
        // scripts/test-wheel runs the test with another Python, which everybody may start.
        eprintln!("SKIPPED: {NAME} cannot execute the Python that the package is installed in");
        return None;
    }
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let library = library();
        let readable = may(["test", "-r"], &library.join("os.py"));
        (!readable).then(|| copy(&library))
    });
    Some(Other { user, home: home.as_deref() })
}

impl Other {
    /// The variable to set for a server that runs as this user.
    pub fn python_home(&self) -> Option<&Path> {
        self.home
    }
}

/// Whether the user may do this to the file.
fn may(command: [&str; 2], file: &Path) -> bool {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", NAME, "--regid", NAME, "--clear-groups"]).args(command).arg(file);
    setpriv.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Where the standard library of the build's Python is.
fn library() -> PathBuf {
    let python = venv::given().map_or_else(|| PathBuf::from(env!("BUILD_PYTHON_EXECUTABLE")), |venv| venv.join("bin/python"));
    let output = Command::new(python)
        .args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])
        .output()
        .expect("the Python of the build can be run");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn copy(library: &Path) -> PathBuf {
    let home = place::fresh("python-").keep();
    open_to_all(&home);
    copy_into(library, &home.join("lib").join(library.file_name().expect("it has a name")));
    open_to_all(&home.join("lib"));
    home
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temp directory is writable");
    open_to_all(to);
    for entry in fs::read_dir(from).expect("the library can be read") {
        let entry = entry.expect("the library can be read");
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|skipped| name == *skipped) || name.as_encoded_bytes().starts_with(b"config-") {
            continue;
        }
        let target = to.join(&name);
        if entry.path().is_dir() {
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the temp directory has room");
        }
    }
}

/// Lets every user into a directory.
pub fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
}
