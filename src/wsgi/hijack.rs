//! The raw connection for applications that speak another protocol over it, under the key by which their libraries know it from
//! gunicorn (`gunicorn.socket`): flask-sock and Flask-SocketIO, by way of simple-websocket.
//!
//! The object is a socket whose first use takes the connection over ([`Takeover`]), so that an application that does not use it,
//! or refuses the request, answers as always. When the call ends, an object that was not used becomes a closed socket: the
//! connection stays for other requests.

use std::ffi::CStr;
use std::os::fd::IntoRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyConnectionError, PyOSError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::answer;
use super::failure::{self, Failure};
use super::forks;
use super::start_response::references;
use crate::log::error::Log;
use crate::worker::app::{Fate, RawSocket, Summary, Takeover};

/// Key of the raw connection, as in gunicorn.
const SOCKET: &str = "gunicorn.socket";

/// The log's record of a connection that was taken over: 101 is Switching Protocols, and nobody has counted its bytes.
fn taken(held: bool) -> Summary {
    Summary { status: 101, fate: Fate::Hijacked { in_use: held }, ..Summary::default() }
}

/// Makes the class of the socket.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("upgrade.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// The function that the first use of the socket calls.
#[pyclass(frozen, module = "tapster")]
struct FirstUse(Mutex<Option<Arc<dyn Takeover>>>);

#[pymethods]
impl FirstUse {
    fn __call__(&self) -> PyResult<()> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(takeover) => Ok(takeover.take()?),
            None => Err(PyOSError::new_err(format!("{SOCKET} was first used when the call of its request was over"))),
        }
    }
}

/// The class of the socket, made for the first request that needs it.
#[derive(Default)]
pub struct Upgrades(Option<Py<PyAny>>);

impl Upgrades {
    /// Offers the connection in the environ.
    pub fn offer(&mut self, environ: &Bound<'_, PyDict>, takeover: &Arc<dyn Takeover>) -> PyResult<OfferedSocket> {
        let py = environ.py();
        let class = match &self.0 {
            Some(class) => class.bind(py).clone(),
            None => {
                let module = PyModule::from_code(py, SOURCE, c"<tapster upgrade>", c"tapster_upgrade")?;
                let class = module.getattr("ClientSocket")?;
                self.0 = Some(class.clone().unbind());
                class
            }
        };
        let claim = Bound::new(py, FirstUse(Mutex::new(Some(takeover.clone()))))?;
        // The socket owns the number from here on, and closes it.
        let RawSocket { descriptor, peer } = takeover.socket()?;
        let socket = class.call1((descriptor.into_raw_fd(), &claim, peer.map(|peer| name_of(py, peer)).transpose()?))?;
        environ.set_item(SOCKET, &socket)?;
        Ok(OfferedSocket { takeover: takeover.clone(), socket: socket.unbind(), claim: claim.unbind() })
    }
}

/// Address and port as `getpeername()` has them: of IPv6 with flow and scope, which nobody knows here.
fn name_of(py: Python<'_>, (addr, port): (String, u16)) -> PyResult<Bound<'_, PyTuple>> {
    if addr.contains(':') { (addr, port, 0, 0).into_pyobject(py) } else { (addr, port).into_pyobject(py) }
}

/// One connection that was offered.
pub struct OfferedSocket {
    takeover: Arc<dyn Takeover>,
    socket: Py<PyAny>,
    claim: Py<FirstUse>,
}

impl OfferedSocket {
    /// Ends it with the call. `None`: the application has not taken the connection over, so `result` is its answer. Otherwise its
    /// result or exception is no answer to anybody.
    pub fn end<'py>(
        self,
        py: Python<'py>,
        result: Result<Bound<'py, PyAny>, Failure>,
        line: &str,
        log: &Log,
    ) -> Result<Summary, Result<Bound<'py, PyAny>, Failure>> {
        let takeover = self.claim.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(takeover);
        if !self.takeover.is_hijacked() {
            if let Err(error) = self.socket.bind(py).call_method0("close") {
                log.error(format_args!("{line}: cannot close {SOCKET}: {}", failure::traceback(py, &error)));
            }
            return Err(result);
        }
        if let Err(Failure::Raised(error)) = &result {
            forks::end_child(py, error);
        }
        let mut failed = false;
        match result {
            Ok(result) => answer::close_result(&result, line, log),
            // By this convention of gunicorn's, libraries say that there is no answer.
            Err(Failure::Raised(error)) if error.is_instance_of::<PyStopIteration>(py) => {}
            Err(failure) if is_gone(py, &failure) => log.debug(format_args!("{line}: {}", failure.describe(py))),
            Err(failure) => {
                failed = !failure.is_timeout(py);
                log.error(format_args!("{line}: {}", failure.describe(py)));
            }
        }
        py.detach(|| self.takeover.finish());
        let socket = self.socket.bind(py);
        let held = references(&self.socket) > 1 && !is_closed(socket);
        Ok(Summary { failed, ..taken(held) })
    }
}

impl OfferedSocket {
    /// Ends it when the server has failed in the call; returns the call's result if the application has taken the connection
    /// over.
    pub fn abandon(self) -> Option<Summary> {
        self.claim.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.takeover.is_hijacked().then(|| taken(true))
    }
}

/// Whether the socket has been closed by `close()`.
fn is_closed(socket: &Bound<'_, PyAny>) -> bool {
    socket.call_method0("fileno").and_then(|number| number.extract::<i32>()).is_ok_and(|number| number < 0)
}

/// Whether it says that the client has left.
fn is_gone(py: Python<'_>, failure: &Failure) -> bool {
    matches!(failure, Failure::Raised(error) if error.is_instance_of::<PyConnectionError>(py))
}
