//! The user that the workers run as: `--user` and `--group`, looked up by the master, taken on by each worker before it loads
//! anything.
//!
//! The master stays root, for that is what it needs to open logs again, to remove the pid file and the files of unix sockets, to
//! bind privileged ports at a reload, and to signal its workers. It runs none of the application's code.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Group, User, fchown, getegid, geteuid, getgrouplist, getppid};

use crate::channel::BootError;
use crate::config::Settings;
use crate::sys::privileges::{Gid, Ids, Uid, become_for_good, let_be_inspected};
use crate::sys::process::{self, Pid};

use super::terminal;

/// The home directory of a user that the user database does not have, as containers set it: `~` and `Path.home()` work, and what
/// is written there is refused.
const NO_HOME: &str = "/";

/// Variables of a login that name its person.
const NAMES: [&str; 4] = ["USER", "LOGNAME", "USERNAME", "LNAME"];

/// The mailbox of a login.
const MAILBOX: &str = "MAIL";

/// Variables of a login whose values are, or may be, in directories of its person: of root's they are closed to everybody else.
/// What an operator has set to another place stays.
const PLACES: [&str; 14] = [
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "XAUTHORITY",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "TMP",
    "TEMP",
    "TEMPDIR",
    "SHELL",
    "HISTFILE",
];

/// Directories with a subdirectory for each user that is logged in, by number (pam_systemd(8), pam_tmpdir).
const BY_NUMBER: [&str; 2] = ["/run/user", "/tmp/user"];

/// Another user for the workers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As the kernel knows it.
    pub ids: Ids,
    /// Name and home directory, if the user database has the user.
    account: Option<(String, PathBuf)>,
    /// Whether it is another user than the master, and not only another group.
    is_other: bool,
}

/// The identity that the settings ask for; `None` when the workers keep the master's. The error is one line.
pub fn resolve(settings: &Settings) -> Result<Option<Identity>, String> {
    if settings.user.is_none() && settings.group.is_none() {
        return Ok(None);
    }
    let account = settings.user.as_deref().map(user).transpose()?;
    let group = settings.group.as_deref().map(group).transpose()?;
    let (uid, found) = match account {
        Some((uid, found)) => (uid, found),
        None => (geteuid(), None),
    };
    let gid = match (group, &found) {
        (Some(gid), _) => gid,
        (None, Some(user)) => user.gid,
        (None, None) => return Err(format!("--user {uid}: the user database has no such user; name its group with --group")),
    };
    if !geteuid().is_root() {
        if (uid, gid) == (geteuid(), getegid()) {
            return Ok(None);
        }
        return Err(
            "--user and --group: only root can run the workers as another user or group; start as root, or leave them out".into(),
        );
    }
    let groups = match &found {
        Some(user) => groups_of(user, gid)?,
        None => vec![gid],
    };
    let account = found.map(|user| (user.name, user.dir));
    Ok(Some(Identity { ids: Ids { uid, gid, groups }, account, is_other: uid != geteuid() }))
}

fn user(text: &str) -> Result<(Uid, Option<User>), String> {
    let failed = |errno: nix::Error| format!("--user {text}: the user database cannot be read: {}", errno.desc().to_lowercase());
    if let Some(number) = number(text) {
        let uid = Uid::from_raw(number);
        return Ok((uid, User::from_uid(uid).map_err(failed)?));
    }
    match User::from_name(text).map_err(failed)? {
        Some(user) => Ok((user.uid, Some(user))),
        None => Err(format!("--user {text}: there is no such user")),
    }
}

fn group(text: &str) -> Result<Gid, String> {
    if let Some(number) = number(text) {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("--group {text}: there is no such group")),
        Err(errno) => Err(format!("--group {text}: the group database cannot be read: {}", errno.desc().to_lowercase())),
    }
}

/// An id in digits. The highest one is none: setresuid(2) takes it for "as it is".
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|number| *number != u32::MAX)
}

/// The groups of a user, as initgroups(3) finds them; looked up once, so that a worker started later does not depend on the
/// network, where a group database may be.
fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, String> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| "--user: the name has a NUL character".to_owned())?;
    getgrouplist(&name, gid)
        .map_err(|errno| format!("--user {}: its groups cannot be read: {}", user.name, errno.desc().to_lowercase()))
}

impl Identity {
    /// Turns this process, a new worker, into the user, for good. `death` is sent when the `master` dies, which the kernel
    /// forgets with the change.
    pub fn assume_in_worker(&self, death: Signal, master: Pid) -> Result<(), BootError> {
        self.assume()?;
        prctl::set_pdeathsig(death).map_err(|errno| self.failed(errno.into()))?;
        if getppid() != master {
            process::exit_now(0);
        }
        Ok(())
    }

    /// Turns this process, which only tries to load the application, into the user, for good.
    pub fn assume_for_check(&self) -> Result<(), BootError> {
        terminal::give_up().map_err(|error| self.failed(error))?;
        self.assume()?;
        let_be_inspected().map_err(|error| self.failed(error))
    }

    /// Gives the user this pipe for captured output: /dev/stdout and /dev/stderr are opened by its owner (proc_pid_fd(5)).
    pub fn own(&self, output: impl AsFd) -> io::Result<()> {
        Ok(fchown(output, Some(self.ids.uid), Some(self.ids.gid))?)
    }

    /// Turns this process into the user, for good.
    fn assume(&self) -> Result<(), BootError> {
        self.set_environment().map_err(|error| self.failed(error))?;
        become_for_good(&self.ids).map_err(|error| self.failed(error))
    }

    /// What the operator should know of it before the start.
    pub fn warning(&self) -> Option<String> {
        let unknown = self.is_other && self.account.is_none();
        unknown.then(|| {
            format!(
                "--user {}: the user database has no such user, so HOME is {NO_HOME} and USER and LOGNAME are not set; give what the \
                 application needs by --env",
                self.ids.uid
            )
        })
    }

    /// Sets what a login would set, and takes out what the login of the master's user has left: programs look for their files in
    /// the home directory and in others that are closed to them now.
    fn set_environment(&self) -> std::io::Result<()> {
        if self.is_other {
            let closed = places_of_master();
            let names_closed = |name: &&str| std::env::var(name).is_ok_and(|value| is_in(&value, &closed));
            let gone: Vec<&str> = PLACES.into_iter().filter(names_closed).chain(NAMES).chain([MAILBOX]).collect();
            process::unset_env(&gone)?;
        }
        let variables = match &self.account {
            Some((name, home)) => {
                vec![("HOME", home.to_string_lossy().into_owned()), ("USER", name.clone()), ("LOGNAME", name.clone())]
            }
            None if self.is_other => vec![("HOME", NO_HOME.to_owned())],
            None => return Ok(()),
        };
        let variables: Vec<_> = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        process::set_env(&variables)
    }

    fn failed(&self, error: std::io::Error) -> BootError {
        BootError { app: false, text: format!("cannot become user {} and group {}: {error}", self.ids.uid, self.ids.gid) }
    }
}

/// Directories that are the master's user's own.
fn places_of_master() -> Vec<PathBuf> {
    let uid = geteuid();
    // Without the user database there still is the variable.
    let account = User::from_uid(uid).ok().flatten().map(|user| user.dir);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    // A home directory at the root is everybody's.
    let homes = account.into_iter().chain(home).filter(|dir| dir.is_absolute() && dir.parent().is_some());
    homes.chain(BY_NUMBER.iter().map(|dir| Path::new(dir).join(uid.to_string()))).collect()
}

/// Whether a value names something in one of the directories: a path, a list of paths, an address such as
/// `unix:path=/run/user/0/bus`.
fn is_in(value: &str, dirs: &[PathBuf]) -> bool {
    value.split(['=', ':', ',', ';']).any(|part| dirs.iter().any(|dir| Path::new(part).starts_with(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_a_directory_by_whole_names() {
        let dirs = ["/root", "/run/user/0"].map(PathBuf::from);
        for value in ["/root", "/root/.config", "unix:path=/run/user/0/bus,guid=1", "/x:/root/y"] {
            assert!(is_in(value, &dirs), "{value}");
        }
        for value in ["", "/rootless", "/srv/root", "/run/user/01", "unix:path=/run/dbus/bus"] {
            assert!(!is_in(value, &dirs), "{value}");
        }
    }

    fn settings(user: Option<&str>, group: Option<&str>) -> Settings {
        Settings { user: user.map(Into::into), group: group.map(Into::into), ..Settings::default() }
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_main_group() {
        if !geteuid().is_root() {
            return;
        }
        let nobody = User::from_name("nobody").unwrap().unwrap();
        for text in ["nobody".to_owned(), nobody.uid.to_string()] {
            let identity = resolve(&settings(Some(&text), None)).unwrap().unwrap();
            assert_eq!((identity.ids.uid, identity.ids.gid), (nobody.uid, nobody.gid));
            assert!(identity.ids.groups.contains(&nobody.gid));
        }
        let identity = resolve(&settings(Some("nobody"), Some("4242"))).unwrap().unwrap();
        assert_eq!(identity.ids.gid, Gid::from_raw(4242));
        let identity = resolve(&settings(Some("123456"), Some("4242"))).unwrap().unwrap();
        assert_eq!(identity.ids.groups, [Gid::from_raw(4242)]);
    }

    #[test]
    fn a_worker_of_another_user_still_hears_of_the_death_of_its_master() {
        use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};
        if !geteuid().is_root() {
            return;
        }
        let identity = resolve(&settings(Some("123456"), Some("123456"))).unwrap().unwrap();
        let alone = alone_in_test();
        let master = nix::unistd::getpid();
        let child = fork_in_test(&alone, |_| {
            let assumed = identity.assume_in_worker(Signal::SIGUSR2, master).is_ok();
            i32::from(!(assumed && prctl::get_pdeathsig() == Ok(Some(Signal::SIGUSR2))))
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }

    #[test]
    fn who_does_not_exist_is_refused() {
        let error = |user, group| resolve(&settings(user, group)).unwrap_err();
        assert_eq!(error(Some("no-such-user"), None), "--user no-such-user: there is no such user");
        assert_eq!(error(None, Some("no-such-group")), "--group no-such-group: there is no such group");
        assert!(error(Some("123456"), None).ends_with("name its group with --group"));
        assert!(error(Some("4294967295"), None).contains("no such user"));
    }

    #[test]
    fn nothing_asked_for_changes_nothing() {
        assert!(resolve(&settings(None, None)).unwrap().is_none());
    }
}
