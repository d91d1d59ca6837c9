//! How the server was started, remembered for the day on which it is to be started again.
//!
//! A path is remembered as it was given and not as it was resolved: at `/opt/site/current/bin/tapster` another release may be
//! found at the next look, and that is the point. `/proc/self/exe` knows only the file that runs, which may be deleted by then.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::access::{self, Closed, Wish};

/// What the server is started with, and its workers.
#[derive(Clone, Debug)]
pub struct Program {
    /// How the server was started.
    pub command: Command,
    /// What helper processes execute, with an option in front of the server's own arguments; `None`: `command`.
    pub helper: Option<Command>,
    /// What a worker executes after the fork, to be a program of its own; `None`: it goes on as a copy of the master.
    pub afresh: Option<Afresh>,
}

impl Program {
    /// A program whose master has no interpreter: a worker starts one in its copy of the master.
    pub fn embedded(argv: &[OsString]) -> Self {
        Self { command: Command::of_this_process(argv), helper: None, afresh: None }
    }

    /// A program inside a Python interpreter: `words` are the interpreter and what makes it this program, `own` the server's
    /// arguments. Its workers are started by the same command, which reads the files `needs` at its start.
    pub fn guest(words: Vec<OsString>, own: Vec<OsString>, needs: Vec<PathBuf>) -> Self {
        let command = Command::guest(words, own);
        Self { afresh: Some(Afresh { command: command.in_any_directory(), needs }), helper: None, command }
    }

    /// A Python program that has called the server. `script` are the words that start it anew, `words` and `own` as above, for the
    /// command in the same interpreter. That command starts the workers if it can name the application (`app`); else it is an
    /// object of the caller, and they are copies of that.
    pub fn called(
        script: Vec<OsString>,
        words: Vec<OsString>,
        own: Vec<OsString>,
        app: Option<OsString>,
        needs: Vec<PathBuf>,
    ) -> Self {
        let command = Command { is_script: true, ..Command::guest(script, Vec::new()) };
        let afresh = app.map(|app| Afresh { command: Command::guest(words.clone(), vec![app]), needs });
        Self { command, helper: Some(Command::guest(words, own)), afresh }
    }

    /// What helper processes execute.
    pub fn helper(&self) -> &Command {
        self.helper.as_ref().unwrap_or(&self.command)
    }
}

/// What a worker executes after the fork.
#[derive(Clone, Debug)]
pub struct Afresh {
    /// The command.
    pub command: Command,
    /// Files of the interpreter and of this package that it reads before it can say anything: without them it ends with words of
    /// the loader or of the interpreter, or with none.
    pub needs: Vec<PathBuf>,
}

impl Afresh {
    /// The same with other paths, where `other` has one.
    pub fn with_paths(&self, other: impl Fn(&Path) -> Option<PathBuf>) -> Self {
        let needs = self.needs.iter().map(|path| other(path).unwrap_or_else(|| path.clone())).collect();
        Self { command: self.command.with_paths(other), needs }
    }

    /// What keeps the user of this process from starting it.
    pub fn closed(&self) -> Option<Closed> {
        let program = access::closed(self.command.program(), Wish::Execute);
        // With PYTHONHOME the library is another one than that of the master, which knows no such variable.
        let needs = if env::var_os(HOME).is_none() { &self.needs[..] } else { &[] };
        let mut files = self.command.script().into_iter().chain(needs.iter().map(PathBuf::as_path));
        program.or_else(|| files.find_map(|file| access::closed(file, Wish::Read)))
    }
}

/// Tells an interpreter where its library is.
const HOME: &str = "PYTHONHOME";

/// The program that runs.
const SELF: &str = "/proc/self/exe";

/// A command line with what its meaning depends on. It is data: a server that lives inside a Python interpreter is started by
/// another program and other words in front of its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    program: OsString,
    argv: Vec<OsString>,
    /// How many words of `argv` stand in front of the server's own arguments.
    prefix: usize,
    dir: OsString,
    /// Whether it is a program that calls the server, so that the arguments are not the server's.
    #[serde(default)]
    is_script: bool,
}

impl Command {
    /// The command that started this process, when `argv` is all that it was given: the program's name, then the arguments.
    pub fn of_this_process(argv: &[OsString]) -> Self {
        let argv = match argv {
            [] => vec![OsString::from("tapster")],
            words => words.to_vec(),
        };
        let dir = start_dir();
        let program = find(Path::new(&argv[0]), &dir).or_else(|| fs::read_link(SELF).ok()).unwrap_or_else(|| SELF.into());
        Self { program: program.into(), argv, prefix: 1, dir: dir.into(), is_script: false }
    }

    fn guest(words: Vec<OsString>, own: Vec<OsString>) -> Self {
        let (dir, prefix) = (start_dir(), words.len());
        let program = words.first().map_or_else(|| SELF.into(), |word| dir.join(word).into_os_string());
        Self { program, argv: [words, own].concat(), prefix, dir: dir.into(), is_script: false }
    }

    /// The same for a process whose working directory is another one: the last word before the server's own is a path if it has a
    /// slash.
    fn in_any_directory(&self) -> Self {
        let mut command = self.clone();
        if let Some(script) = command.argv[..self.prefix].last_mut()
            && Path::new(script).components().count() > 1
        {
            *script = self.dir().join(&*script).into();
        }
        command
    }

    /// The same with other paths in front of the server's own arguments, where `other` has one.
    pub fn with_paths(&self, other: impl Fn(&Path) -> Option<PathBuf>) -> Self {
        let mut command = self.clone();
        let prefix = command.prefix.min(command.argv.len());
        for word in command.argv[..prefix].iter_mut().chain([&mut command.program]) {
            if let Some(path) = other(Path::new(word)) {
                *word = path.into();
            }
        }
        command
    }

    /// The file to execute, absolute.
    pub fn program(&self) -> &Path {
        Path::new(&self.program)
    }

    /// Name and arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// The script that an interpreter executes, if the word in front of the server's own is one.
    fn script(&self) -> Option<&Path> {
        let word = Path::new(self.argv[..self.prefix.min(self.argv.len())].last()?);
        (self.prefix > 1 && word.is_absolute()).then_some(word)
    }

    /// Name and arguments, with `option` in front of the server's own.
    pub fn with_option(&self, option: &str) -> Vec<OsString> {
        let (prefix, own) = self.argv.split_at(self.prefix.min(self.argv.len()));
        [prefix, &[OsString::from(option)], own].concat()
    }

    /// Whether it is a program that calls the server, and takes no option of it.
    pub fn is_script(&self) -> bool {
        self.is_script
    }

    /// The directory to start it in, absolute.
    pub fn dir(&self) -> &Path {
        Path::new(&self.dir)
    }
}

/// The working directory, by the name under which the shell knows it, so that a symbolic link in it is followed again.
fn start_dir() -> PathBuf {
    let physical = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let logical = env::var_os("PWD").map(PathBuf::from).filter(|dir| dir.is_absolute() && same_file(dir, &physical));
    logical.unwrap_or(physical)
}

/// The path by which `name` was executed: itself if it has a slash, else its first place on PATH. `None` where that is not the
/// program that runs, because a process may be given any name.
fn find(name: &Path, dir: &Path) -> Option<PathBuf> {
    let is_running = |path: &PathBuf| same_file(path, Path::new(SELF));
    if name.components().count() > 1 {
        return Some(dir.join(name)).filter(is_running);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|place| dir.join(place).join(name)).find(is_running)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_program_is_found_by_the_path_that_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(env::current_exe().unwrap(), &link).unwrap();
        let command = Command::of_this_process(&words(&[link.to_str().unwrap(), "-w", "2"]));
        assert_eq!(command.program(), link, "the link and not its target");
        assert_eq!(command.with_option("--x"), words(&[link.to_str().unwrap(), "--x", "-w", "2"]));
        assert!(command.dir().is_absolute());
    }

    #[test]
    fn a_name_that_is_another_program_or_none_is_not_believed() {
        for argv in [words(&["/bin/sh", "app"]), words(&["no-such-program"]), words(&[])] {
            let command = Command::of_this_process(&argv);
            assert_eq!(command.program(), env::current_exe().unwrap());
            assert_eq!(command.argv().len(), argv.len().max(1));
        }
    }

    #[test]
    fn a_script_of_an_interpreter_is_found_from_everywhere() {
        let own = words(&["-w", "2"]);
        let Program { command, afresh, .. } =
            Program::guest(words(&["/usr/bin/python3", "venv/bin/tapster"]), own.clone(), Vec::new());
        let script = start_dir().join("venv/bin/tapster");
        assert_eq!(command.argv(), words(&["/usr/bin/python3", "venv/bin/tapster", "-w", "2"]));
        assert_eq!(command.with_option("--x"), words(&["/usr/bin/python3", "venv/bin/tapster", "--x", "-w", "2"]));
        let afresh = afresh.unwrap();
        assert_eq!(afresh.command.script(), Some(&*script));
        assert_eq!(afresh.command.argv(), words(&["/usr/bin/python3", script.to_str().unwrap(), "-w", "2"]));
        let module = words(&["/usr/bin/python3", "-m", "tapster"]);
        let afresh = Program::guest(module.clone(), own.clone(), Vec::new()).afresh.unwrap();
        assert_eq!(afresh.command.script(), None);
        assert_eq!(afresh.command.argv(), [module, own].concat());
    }

    #[test]
    fn a_relative_path_starts_at_the_working_directory() {
        let exe = env::current_exe().unwrap();
        assert_eq!(find(Path::new(exe.strip_prefix("/").unwrap()), Path::new("/")), Some(exe));
    }
}
