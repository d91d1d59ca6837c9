//! Directories of root's files where others may write: what they could do there is said at the start.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, absolute};

use crate::config::{Endpoint, Settings};

/// Mode bits that let the group or everybody write.
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// Mode bit of a directory in which only the owner of a file may move or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// One line for each file of a server that is root's, and that others could put something else in the place of.
pub fn warnings<'a>(settings: &Settings, logs: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let sockets = settings.binds.iter().filter_map(|bind| match &bind.endpoint {
        Endpoint::Unix(path) => Some(path.as_path()),
        Endpoint::Tcp { .. } | Endpoint::Fd(_) => None,
    });
    let logs = logs.map(|path| (path, "have root write elsewhere by a link"));
    let sockets = sockets.map(|path| (path, "put a socket of their own in its place"));
    let pid = settings.pid_file.iter().map(|path| (path.as_path(), "put the number of another process in its place"));
    let pairs = settings.tls.iter().flat_map(|tls| &tls.pairs);
    let keys = pairs.map(|pair| (pair.key.as_path(), "have root hand them the key of another server by a link"));
    let text = |path: &Path, what: &str| format!("{}: others may write to its directory, and could {what}", path.display());
    let all = logs.chain(pid).chain(sockets).chain(keys).filter_map(|(path, what)| Some((absolute(path).ok()?, what)));
    all.filter(|(path, _)| is_exposed(path)).map(|(path, what)| text(&path, what)).collect()
}

/// Whether others may write to the directory of a file, or move it or one above it.
fn is_exposed(path: &Path) -> bool {
    // The devices that udev and containers put there are root's to choose.
    let Some(dir) = path.parent().filter(|dir| *dir != Path::new("/dev")) else { return false };
    let Ok(dir) = dir.canonicalize() else { return false };
    let open = |dir: &Path, harmless: u32| {
        fs::metadata(dir)
            .is_ok_and(|meta| meta.uid() != 0 || (meta.mode() & WRITABLE_FOR_OTHERS != 0 && meta.mode() & harmless == 0))
    };
    // Under a new name anybody can make a link in a sticky directory; what root has there stays where it is.
    open(&dir, 0) || dir.ancestors().skip(1).any(|above| open(above, STICKY))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_directory_is_exposed_by_itself_and_by_those_above_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        for (above, own, exposed) in
            [(0o755, 0o755, false), (0o755, 0o775, true), (0o755, 0o1777, true), (0o777, 0o755, true), (0o1777, 0o755, false)]
        {
            fs::set_permissions(temp.path(), fs::Permissions::from_mode(above)).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(own)).unwrap();
            assert_eq!(is_exposed(&file), exposed, "{above:o} {own:o}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        chown(temp.path(), Some(12345), None).unwrap();
        assert!(is_exposed(&file));
        assert!(!is_exposed(Path::new("/dev/stderr")));
    }
}
