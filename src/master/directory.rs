//! The working directories of a generation: the one that the server was started in, and `--chdir`.
//!
//! A directory is known by its name, which may be a symbolic link such as `current`, and as it was found there when its
//! generation was loaded. Each generation follows the name again; its workers, also those that replace others later, enter what
//! was found, so that workers of two releases never serve as one generation. When that has been deleted a worker follows the name
//! after all: another release serves better than none.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::fchdir;

use crate::config::gunicorn::Source;
use crate::config::{AppSpec, Code, Settings};

use super::refusal::reason;

/// A directory.
#[derive(Debug)]
struct Directory {
    /// Its name, absolute.
    name: PathBuf,
    /// What was found under the name.
    found: File,
}

/// The directories of a generation.
#[derive(Debug)]
pub struct Directories {
    start: Directory,
    chdir: Option<Directory>,
}

/// What a worker loads its application from, when the directory of its generation is gone.
pub type Instead = Option<PathBuf>;

impl Directory {
    /// Looks it up: `path` from the working directory.
    fn open(path: &Path, name: PathBuf) -> io::Result<Self> {
        // O_PATH: to enter a directory one need not be able to list it.
        let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
        Ok(Self { name, found })
    }

    /// Where it is now, without symbolic links; `None` when it has been deleted.
    fn path(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.found.as_raw_fd())).ok().filter(|path| path.is_dir())
    }

    /// Makes it this process's; returns the name if that had to be followed again.
    fn enter(&self) -> io::Result<Instead> {
        fchdir(&self.found)?;
        // A directory that was deleted can still be entered, but has no path (getcwd(3), ENOENT).
        match env::current_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                env::set_current_dir(&self.name)?;
                Ok(Some(self.name.clone()))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

impl Directories {
    /// Those of a new generation. The working directory is the one of the start, known as `start`; `chdir` is the option. The
    /// error is one line.
    pub fn open(start: &Path, chdir: Option<&Path>) -> Result<Self, String> {
        let here = Directory::open(Path::new("."), start.to_owned());
        let here = here.map_err(|error| format!("cannot use the working directory {}: {}", start.display(), reason(&error)))?;
        let there = chdir.map(|dir| {
            let found = Directory::open(dir, start.join(dir));
            found.map_err(|error| format!("--chdir {}: {}", dir.display(), reason(&error)))
        });
        Ok(Self { start: here, chdir: there.transpose()? })
    }

    /// Takes the master back to the directory of its generation. It fails only when rights are missing, since the directory was
    /// found once; then relative paths start where they would for the generation that failed.
    pub fn return_to(&self) {
        let _ = fchdir(&self.start.found);
    }

    /// Enters the directory of the start in a worker that still has the rights of the master.
    pub fn enter_start(&self) -> Result<Instead, String> {
        match self.start.enter() {
            // The application starts elsewhere.
            _ if self.chdir.is_some() => Ok(None),
            entered => entered
                .map_err(|error| format!("cannot enter the working directory {}: {}", self.start.name.display(), reason(&error))),
        }
    }

    /// The settings with what is in these directories by the path to what was found there: a worker that is made later must not
    /// load a part of another release. Call it with the rights of the master, which /proc asks for.
    pub fn pin(&self, settings: &Settings) -> Settings {
        let pin = |path: &mut PathBuf| *path = self.pinned(path).unwrap_or_else(|| std::mem::take(path));
        let mut settings = settings.clone();
        settings.python.pythonpath.iter_mut().chain(&mut settings.python.venv).for_each(pin);
        settings.static_files.maps.iter_mut().for_each(|map| pin(&mut map.directory));
        for app in settings.mounts.iter_mut().map(|mount| &mut mount.app).chain([&mut settings.app]) {
            if let AppSpec::Target { code: Code::File(file), .. } = app {
                pin(file);
            }
        }
        if let Some(hooks) = &mut settings.hooks {
            pin(&mut hooks.start);
            if let Source::File(file) = &mut hooks.source {
                pin(file);
            }
        }
        settings
    }

    /// A path below one of these directories' names by what was found there; see [`Self::pin`].
    pub fn pinned(&self, path: &Path) -> Option<PathBuf> {
        let inside = |dir: &Directory| Some(dir.path()?.join(path.strip_prefix(&dir.name).ok()?));
        self.chdir.iter().chain([&self.start]).find_map(inside)
    }

    /// Enters `--chdir` in a worker, with the rights of the worker.
    pub fn enter_chdir(&self) -> Result<Instead, String> {
        let Some(chdir) = &self.chdir else { return Ok(None) };
        chdir.enter().map_err(|error| format!("cannot change to --chdir {}: {}", chdir.name.display(), reason(&error)))
    }
}

/// Follows the name of the directory of the start again, for the next generation. The error is one line.
pub fn follow(start: &Path) -> Result<(), String> {
    match env::set_current_dir(start) {
        // On the way to a directory that one is in there may be one that one must not enter (`sudo -u`).
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(format!(
            "the directory that the server was started in cannot be entered: {}: {}; make it again, or restart the server elsewhere",
            start.display(),
            reason(&error)
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}
