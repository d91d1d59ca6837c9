//! The output that `write()` has while code of the application runs.

use std::ptr::NonNull;

use pyo3::prelude::*;

use super::StartResponse;
use crate::worker::app::Outlet;

impl StartResponse {
    /// Runs `act`, which runs code of the application. Output of `write()` goes to `outlet` meanwhile, after all that is in
    /// `out`.
    pub fn lend<T>(&self, py: Python<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet, act: impl FnOnce() -> T) -> T {
        let outlet = NonNull::from(outlet);
        // SAFETY: only the lifetime of the trait object changes; the pointer is not used after `reclaim`.
        let outlet: NonNull<dyn Outlet + 'static> =
            unsafe { std::mem::transmute::<NonNull<dyn Outlet + '_>, NonNull<dyn Outlet>>(outlet) };
        let lent = Lent { start_response: self, py };
        // SAFETY: `out` and `outlet` are borrowed by this function and used by nothing else in it until `lent` is dropped,
        // which reclaims them, also on a panic; `act` cannot have them.
        unsafe { self.exchange(py).borrow_mut().lend(NonNull::from(out), outlet) };
        let result = act();
        drop(lent);
        result
    }
}

/// Takes the output back from `write()`.
struct Lent<'a, 'py> {
    start_response: &'a StartResponse,
    py: Python<'py>,
}

impl Drop for Lent<'_, '_> {
    fn drop(&mut self) {
        match self.start_response.exchange(self.py).try_borrow_mut() {
            Ok(mut exchange) => exchange.reclaim(),
            // Nobody runs Python code while the exchange is borrowed, so nobody else can have borrowed it here. If somebody had,
            // the application could write through dangling pointers: then the worker had better end.
            Err(_) => std::process::abort(),
        }
    }
}
