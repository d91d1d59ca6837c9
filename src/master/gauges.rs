//! Files of prometheus_client. Where PROMETHEUS_MULTIPROC_DIR is set, every process keeps its metrics in files there. Gauges of
//! the "live" modes are sums over the processes that live, so the files of one that has ended must go: `mark_process_dead`, which
//! gunicorn's users call in the hook `child_exit`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::sys::process::Pid;

/// The variable, and the older one of the same meaning.
const VARIABLES: [&str; 2] = ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"];

/// The modes of gauges that count only while their process lives. A list instead of a look into the directory: workers can put
/// any number of files there.
const MODES: [&str; 5] = ["liveall", "livemax", "livemin", "livemostrecent", "livesum"];

/// Removes the files of live gauges of a process that has ended, if the settings or the environment name their directory. The
/// error names the file.
pub fn forget(settings: &Settings, pid: Pid) -> Result<(), String> {
    match directory(settings) {
        Some(directory) => forget_in(&directory, pid),
        None => Ok(()),
    }
}

fn forget_in(directory: &Path, pid: Pid) -> Result<(), String> {
    for mode in MODES {
        let path = directory.join(format!("gauge_{mode}_{pid}.db"));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

fn directory(settings: &Settings) -> Option<PathBuf> {
    let given = |name: &str| settings.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.into());
    let value = VARIABLES.iter().find_map(|name| given(name).or_else(|| std::env::var_os(name)))?;
    let start = settings.chdir.clone().unwrap_or_default();
    (!value.is_empty()).then(|| start.join(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_live_gauges_of_the_process_go() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["gauge_livesum_7.db", "gauge_liveall_7.db", "gauge_all_7.db", "gauge_livesum_8.db", "counter_7.db"];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let env = vec![("PROMETHEUS_MULTIPROC_DIR".to_owned(), dir.path().to_str().unwrap().to_owned())];
        let settings = Settings { env, ..Settings::default() };
        assert_eq!(forget(&settings, Pid::from_raw(7)), Ok(()));
        let left: Vec<_> = names.into_iter().filter(|name| dir.path().join(name).exists()).collect();
        assert_eq!(left, ["gauge_all_7.db", "gauge_livesum_8.db", "counter_7.db"]);
        assert_eq!(forget_in(Path::new("/nonexistent"), Pid::from_raw(7)), Ok(()));
    }
}
