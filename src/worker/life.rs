//! The operator's functions at turns of a worker's life. They run as code of the application does, for as long as they like, and
//! need the interpreter, which the owner of the loop never waits for. So each runs on a thread of its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::log::error::Log;
use crate::sys::signals::Blocked;

use super::app::{App, LifeHooks, Occasion};

/// Name of the threads (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-hook";

/// The functions of one worker, each of which is called once.
#[derive(Default)]
pub struct HookThreads {
    hooks: Option<Arc<dyn LifeHooks>>,
    begun: Mutex<Vec<(Occasion, Option<JoinHandle<()>>)>>,
}

impl HookThreads {
    /// With these functions, if there are any.
    pub fn new(hooks: Option<Arc<dyn LifeHooks>>) -> Arc<Self> {
        Arc::new(Self { hooks, begun: Mutex::default() })
    }

    /// Begins to run the function for this occasion.
    pub fn begin(&self, occasion: Occasion, log: &Log) {
        let Some(hooks) = &self.hooks else { return };
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.iter().any(|(other, _)| *other == occasion) {
            return;
        }
        let hooks = hooks.clone();
        let thread = spawn(move || hooks.run(occasion));
        if let Err(error) = &thread {
            log.warning(format_args!("cannot start the thread for a hook ({occasion:?}): {error}"));
        }
        begun.push((occasion, thread.ok()));
    }

    /// Waits for all that was begun. The master bounds the time.
    pub fn wait(&self, app: &mut dyn App) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in begun.into_iter().filter_map(|(_, thread)| thread) {
            app.release();
            // A panic has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// No signal is for this thread.
fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let blocked = Blocked::all()?;
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(body);
    drop(blocked);
    thread
}
