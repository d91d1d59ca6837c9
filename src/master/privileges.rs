//! Whom the workers run as: `--user` and `--group`, looked up by the master, taken on by each worker before it loads anything.
//!
//! The master stays root, for that is what it needs to open logs anew, to remove the pid file and the files of unix sockets, to bind
//! privileged ports at a reload, and to signal its workers. It runs none of the application's code.

use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Group, User, getegid, geteuid, getgrouplist, getppid};

use crate::channel::BootError;
use crate::config::Settings;
use crate::sys::privileges::{Gid, Ids, Uid, become_for_good};
use crate::sys::process::{self, Pid};

/// Another user for the workers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As the kernel knows it.
    pub ids: Ids,
    /// Name and home directory, if the user database has the user.
    account: Option<(String, PathBuf)>,
}

/// The identity that the settings ask for; `None` when the workers stay who the master is. The error is one line.
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
    Ok(Some(Identity { ids: Ids { uid, gid, groups }, account }))
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

/// The groups of a user, as initgroups(3) finds them; looked up once, so that a worker started later does not depend on the network
/// that a group database may be behind.
fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, String> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| "--user: the name has a NUL character".to_owned())?;
    getgrouplist(&name, gid)
        .map_err(|errno| format!("--user {}: its groups cannot be read: {}", user.name, errno.desc().to_lowercase()))
}

impl Identity {
    /// Turns this process, a new worker, into the user, for good. `death` is sent when the `master` dies, which the kernel forgets
    /// with the change.
    pub fn assume_in_worker(&self, death: Signal, master: Pid) -> Result<(), BootError> {
        self.assume()?;
        prctl::set_pdeathsig(death).map_err(|errno| self.failed(errno.into()))?;
        if getppid() != master {
            process::exit_now(0);
        }
        Ok(())
    }

    /// Turns this process into the user, for good.
    pub fn assume(&self) -> Result<(), BootError> {
        if let Some((name, home)) = &self.account {
            // What a login would set: programs look for their files in the home directory, and root's is closed to them now.
            let home = home.to_string_lossy().into_owned();
            let variables = [("HOME", home), ("USER", name.clone()), ("LOGNAME", name.clone())];
            process::set_env(&variables.map(|(name, value)| (name.to_owned(), value))).map_err(|error| self.failed(error))?;
        }
        become_for_good(&self.ids).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> BootError {
        BootError { app: false, text: format!("cannot become user {} and group {}: {error}", self.ids.uid, self.ids.gid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
