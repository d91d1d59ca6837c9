//! Which directories the application was loaded from, for the master's watcher (`--reload`): told when it is loaded or could not
//! be, and again when it has loaded more.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::channel::{Report, SOURCES_MAX, WorkerEnd};
use crate::sys::signals::Blocked;

use super::app::{ModuleSources, ToldSources};

/// Time between two looks at what is loaded: modules that are imported by the first request to them.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Name of the thread (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-sources";

/// What takes the directories to the master.
pub fn outlet(channel: WorkerEnd) -> ToldSources {
    Arc::new(move |list| list.is_empty() || channel.send(&Report::Sources(list.join("\0"))).is_ok())
}

/// Tells the master from now on what more is loaded.
pub fn follow(sources: Arc<dyn ModuleSources>, outlet: ToldSources) -> io::Result<()> {
    let blocked = Blocked::all()?;
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let mut lists = 0;
        // Two were told before: with a failure and with the load.
        while lists < SOURCES_MAX - 2 {
            thread::sleep(LOOK_EVERY);
            let list = sources.more();
            if !list.is_empty() {
                lists += 1;
                if !outlet(&list) {
                    sources.forget(&list);
                }
            }
        }
    });
    drop(blocked);
    thread.map(drop)
}
