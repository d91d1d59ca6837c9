//! What clients see while the saved code cannot be loaded (`--reload`): browsers a page with the traceback, others the answers of
//! the code before, with a field that says so. Nothing of this is on the way of a request without `--reload`.

mod app;
mod page;

use std::sync::{Arc, Mutex, PoisonError};

use crate::channel::Breakage;

pub use app::BreakableApp;

/// What is known of it at present, shared by the threads of a worker.
#[derive(Clone, Debug, Default)]
pub struct BreakageState(Arc<Mutex<Option<Arc<Breakage>>>>);

impl BreakageState {
    /// The saved code cannot be loaded.
    pub fn set(&self, breakage: Breakage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(breakage));
    }

    fn get(&self) -> Option<Arc<Breakage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
