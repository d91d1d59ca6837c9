//! The `start_response` callable (PEP 3333): a type of its own with vectorcall, which is a third cheaper to make and call than
//! a `#[pyclass]`, and the `write` callable that it returns.
//!
//! One object serves one request. When the application kept no reference to it, it is used again for the next one.

mod lent;

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_ulong, c_void};
use std::mem::{offset_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::{
    PyAssertionError, PyConnectionResetError, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple, PyType};
use pyo3::{Borrowed, ffi};

use super::exchange::{CannotWrite, Exchange};
use super::memo::Memo;
use super::offers::{ClientDisconnected, EarlyHints, Offers};
use super::text;
use crate::http::response::Refused;

/// The object that is `start_response`. Access needs an attached thread, and the GIL allows only one at a time.
#[repr(C)]
struct Object {
    base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    /// The `write` callable, which holds the object: a cycle that is broken by hand.
    write: RefCell<Option<Py<PyAny>>>,
    memo: RefCell<Memo>,
    exchange: RefCell<Exchange>,
}

/// The type of `start_response`.
pub struct Factory {
    class: Py<PyType>,
}

impl Factory {
    /// Makes the type.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let mut members = [
            ffi::PyMemberDef {
                name: c"__vectorcalloffset__".as_ptr(),
                type_code: ffi::Py_T_PYSSIZET,
                offset: offset_of!(Object, vectorcall) as ffi::Py_ssize_t,
                flags: ffi::Py_READONLY,
                doc: ptr::null(),
            },
            // SAFETY: an all-zero member definition is the end mark of the array (structmember.h).
            unsafe { std::mem::zeroed() },
        ];
        let mut slots = [
            ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: dealloc as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_call, pfunc: ffi::PyVectorcall_Call as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_members, pfunc: members.as_mut_ptr().cast() },
            ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
        ];
        let flags: c_ulong = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        let mut spec = ffi::PyType_Spec {
            name: c"tapster.start_response".as_ptr(),
            basicsize: size_of::<Object>() as c_int,
            itemsize: 0,
            flags: flags as c_uint,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: the thread is attached; spec, slots and members are valid during the call, which copies what it keeps (the
        // member array is copied into the type since 3.5; the name is a static string).
        let class = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))? };
        // Not to be made by applications: the inherited constructor would leave the Rust part uninitialised.
        // SAFETY: PyType_FromSpec returned a type object, whose tp_new may be set as long as nobody else knows the type.
        unsafe {
            (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_new = None;
            ffi::PyType_Modified(class.as_ptr().cast());
        }
        Ok(Self { class: class.cast_into::<PyType>()?.unbind() })
    }

    /// Makes an object with a closed exchange.
    pub fn make(&self, py: Python<'_>) -> PyResult<StartResponse> {
        // SAFETY: the thread is attached, the class is the one whose instances are laid out as `Object`. PyObject_New
        // initialises the base (and takes a reference to the class, which `dealloc` gives back); the other fields are
        // written before anybody can see the object.
        let object = unsafe {
            let object = ffi::PyObject_New::<Object>(self.class.as_ptr().cast());
            if object.is_null() {
                return Err(PyErr::fetch(py));
            }
            (&raw mut (*object).vectorcall).write(Some(vectorcall));
            (&raw mut (*object).write).write(RefCell::new(None));
            (&raw mut (*object).memo).write(RefCell::new(Memo::default()));
            (&raw mut (*object).exchange).write(RefCell::new(Exchange::new()));
            Bound::from_owned_ptr(py, object.cast())
        };
        let owner = || object.clone().unbind();
        let write = Bound::new(py, Write { owner: owner() })?.into_any().unbind();
        let offers = Arc::new(Offers {
            early_hints: Bound::new(py, EarlyHints(owner()))?.into_any().unbind(),
            client_disconnected: Bound::new(py, ClientDisconnected(owner()))?.into_any().unbind(),
        });
        let start_response = StartResponse { object: object.unbind(), offers };
        *start_response.object(py).write.borrow_mut() = Some(write);
        Ok(start_response)
    }
}

/// A reference to one such object, which ends its request when dropped.
pub struct StartResponse {
    object: Py<PyAny>,
    offers: Arc<Offers>,
}

impl StartResponse {
    /// How many callables belong to the object, each with a reference to it: `write` and two offers.
    const COMPANIONS: ffi::Py_ssize_t = 3;

    fn object<'a>(&'a self, _py: Python<'a>) -> &'a Object {
        // SAFETY: only `Factory::make` makes this type, around an object of that layout; it lives as long as the reference,
        // its Rust fields are shared only through RefCells, and the token proves that this thread is attached.
        unsafe { &*self.object.as_ptr().cast::<Object>() }
    }

    /// Its exchange.
    pub fn exchange<'a>(&'a self, py: Python<'a>) -> &'a RefCell<Exchange> {
        &self.object(py).exchange
    }

    /// The callables that the environ of this request offers.
    pub fn offers(&self) -> &Arc<Offers> {
        &self.offers
    }

    /// The callable that the application is called with.
    pub fn callable<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// Ends its request. Returns the object if nobody else holds it, so that it can serve another one.
    pub fn retire(self, py: Python<'_>) -> Option<Self> {
        let object = self.object(py);
        // If the exchange were borrowed here, a running `start_response` would end its own request.
        object.exchange.try_borrow_mut().ok()?.close();
        // Held by this reference and by the companions. `write` is held by the object alone, and the offers by `Offers` and by
        // each environ that has a clone of it.
        let offered = Arc::strong_count(&self.offers) as ffi::Py_ssize_t;
        let unshared = references(&self.object) == 1 + Self::COMPANIONS
            && object.write.borrow().as_ref().is_some_and(|write| references(write) == 1)
            && references(&self.offers.early_hints) == offered
            && references(&self.offers.client_disconnected) == offered;
        unshared.then_some(self)
    }
}

impl Drop for StartResponse {
    fn drop(&mut self) {
        Python::attach(|py| {
            let object = self.object(py);
            if let Ok(mut exchange) = object.exchange.try_borrow_mut() {
                exchange.close();
            }
            // The cycle must be broken by hand: it is unknown to the garbage collector.
            let write = object.write.try_borrow_mut().ok().and_then(|mut write| write.take());
            drop(write);
        });
    }
}

/// How many references there are to an object.
pub fn references(object: &Py<PyAny>) -> ffi::Py_ssize_t {
    // SAFETY: the object is alive as long as the reference; reading the count needs no more.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// The `write` callable.
#[pyclass(frozen, module = "tapster")]
struct Write {
    owner: Py<PyAny>,
}

#[pymethods]
impl Write {
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(bytes) = data.cast::<PyBytes>() else {
            let kind = data.get_type().name()?;
            return Err(PyTypeError::new_err(format!("write() takes bytes, not {kind}; encode text: data.encode()")));
        };
        let mut exchange = exchange_of(py, &self.owner).try_borrow_mut().map_err(|_| busy())?;
        exchange.write(bytes.as_bytes()).map_err(|reason| match reason {
            CannotWrite::Returned => PyRuntimeError::new_err(
                "write() called after the application returned: then only its iterable may, in __next__ and close() of the same \
                     request",
            ),
            CannotWrite::OtherThread => {
                PyRuntimeError::new_err("write() called by another thread than the one that runs the application")
            }
            CannotWrite::Gone => PyConnectionResetError::new_err("the client has closed the connection"),
            CannotWrite::Lost(why) => PyOSError::new_err(why),
            CannotWrite::Memory => PyMemoryError::new_err("write(): no memory for the block"),
        })?;
        Ok(())
    }
}

/// The exchange of a companion's owner.
pub fn exchange_of<'a>(_py: Python<'a>, owner: &'a Py<PyAny>) -> &'a RefCell<Exchange> {
    // SAFETY: companions are made by `Factory::make` alone, with an object of that layout as their owner, which lives as long as
    // they do; the token proves that this thread is attached.
    unsafe { &(*owner.as_ptr().cast::<Object>()).exchange }
}

/// The exchange is in use.
pub fn busy() -> PyErr {
    PyRuntimeError::new_err("start_response() is already running for this request")
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called once by the interpreter for an object of `Factory::make`, when no reference is left: its Rust fields
    // are initialised and are dropped here only; the memory came from PyObject_New; an instance of a heap type owns a
    // reference to it (bpo-35810).
    unsafe {
        let class = ffi::Py_TYPE(object);
        let fields = object.cast::<Object>();
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            ptr::drop_in_place(&raw mut (*fields).write);
            ptr::drop_in_place(&raw mut (*fields).memo);
            ptr::drop_in_place(&raw mut (*fields).exchange);
        }));
        drop(dropped);
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn vectorcall(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the interpreter calls this only on an attached thread.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: the callable is an object of `Factory::make`, alive during the call.
        let object = unsafe { &*callable.cast::<Object>() };
        // SAFETY: the vectorcall protocol (PEP 590): `args` holds that many borrowed positional arguments, then one for each
        // name of `kwnames`, which is a tuple of str or null.
        let arguments = unsafe {
            let positional = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let names = Borrowed::from_ptr_or_opt(py, kwnames);
            let named = names.as_ref().map_or(0, |names| ffi::Py_SIZE(names.as_ptr()) as usize);
            let all: &[*mut ffi::PyObject] =
                if positional + named == 0 { &[] } else { std::slice::from_raw_parts(args, positional + named) };
            ResponseArguments::parse(py, all, positional, names)
        };
        match arguments.and_then(|arguments| start(object, &arguments)) {
            Ok(()) => match &*object.write.borrow() {
                Some(write) => write.clone_ref(py).into_ptr(),
                None => py.None().into_ptr(),
            },
            Err(error) => {
                error.restore(py);
                ptr::null_mut()
            }
        }
    }));
    result.unwrap_or_else(|_| {
        // SAFETY: the thread is attached; the message is a C string.
        unsafe { ffi::PyErr_SetString(ffi::PyExc_SystemError, c"start_response() failed inside the server".as_ptr()) };
        ptr::null_mut()
    })
}

/// The arguments of a call.
pub(super) struct ResponseArguments<'a, 'py> {
    pub(super) status: Borrowed<'a, 'py, PyAny>,
    pub(super) headers: Borrowed<'a, 'py, PyAny>,
    exc_info: Option<Borrowed<'a, 'py, PyAny>>,
}

impl<'a, 'py> ResponseArguments<'a, 'py> {
    /// # Safety
    /// `all` holds live objects: `positional` ones, then one for each of `names`, a tuple of str.
    unsafe fn parse(
        py: Python<'py>,
        all: &'a [*mut ffi::PyObject],
        positional: usize,
        names: Option<Borrowed<'a, 'py, PyAny>>,
    ) -> PyResult<Self> {
        // Nearly every application calls it like this.
        if let ([status, headers], None) = (all, names) {
            // SAFETY: the caller vouches for live objects.
            let [status, headers] = [status, headers].map(|object| unsafe { Borrowed::from_ptr(py, *object) });
            return Ok(Self { status, headers, exc_info: None });
        }
        if positional > 3 {
            return Err(PyTypeError::new_err(format!(
                "start_response() takes (status, headers, exc_info=None), but {positional} positional arguments were given"
            )));
        }
        let mut found: [Option<Borrowed<'a, 'py, PyAny>>; 3] = [None; 3];
        for (place, object) in found.iter_mut().zip(&all[..positional]) {
            // SAFETY: the caller vouches for live objects.
            *place = Some(unsafe { Borrowed::from_ptr(py, *object) });
        }
        if let Some(names) = names {
            for (name, object) in names.cast::<PyTuple>()?.iter().zip(&all[positional..]) {
                let name = name.cast_into::<PyString>()?;
                let name = name.to_string_lossy();
                let Some(index) = ["status", "headers", "exc_info"].iter().position(|known| *known == name) else {
                    // PEP 3333 names the second one `response_headers`.
                    if name == "response_headers" && found[1].is_none() {
                        // SAFETY: as above.
                        found[1] = Some(unsafe { Borrowed::from_ptr(py, *object) });
                        continue;
                    }
                    return Err(PyTypeError::new_err(format!("start_response() got an unexpected argument '{name}'")));
                };
                if found[index].is_some() {
                    return Err(PyTypeError::new_err(format!("start_response() got '{name}' twice")));
                }
                // SAFETY: as above.
                found[index] = Some(unsafe { Borrowed::from_ptr(py, *object) });
            }
        }
        match found {
            [Some(status), Some(headers), exc_info] => {
                Ok(Self { status, headers, exc_info: exc_info.filter(|exc_info| !exc_info.is_none()) })
            }
            [None, ..] => {
                Err(PyTypeError::new_err("start_response() needs a status and a list of headers; the status is missing"))
            }
            [_, None, _] => {
                Err(PyTypeError::new_err("start_response() needs a status and a list of headers; the headers are missing"))
            }
        }
    }
}

fn start(object: &Object, arguments: &ResponseArguments<'_, '_>) -> PyResult<()> {
    let mut exchange = object.exchange.try_borrow_mut().map_err(|_| busy())?;
    if !exchange.is_open() {
        return Err(PyRuntimeError::new_err("start_response() called after the response was finished"));
    }
    match arguments.exc_info {
        Some(exc_info) if exchange.is_sent() => {
            drop(exchange);
            return Err(raised(exc_info));
        }
        Some(_) => exchange.forget(),
        None if exchange.is_begun() => {
            return Err(PyAssertionError::new_err(
                "start_response() called a second time without exc_info (PEP 3333 allows that only with exc_info=sys.exc_info())",
            ));
        }
        None => {}
    }
    let mut memo = object.memo.try_borrow_mut().map_err(|_| busy())?;
    if memo.recall(&mut exchange, arguments) {
        return Ok(());
    }
    let Err(misuse) = render(&mut exchange, arguments) else {
        memo.keep(&exchange, arguments);
        return Ok(());
    };
    drop(memo);
    exchange.forget();
    // Describing the mistake runs code of the application (`__repr__`), which may let other threads run, so the exchange must be
    // free: the server needs it when the call of the application returns.
    drop(exchange);
    Err(misuse.error())
}

/// The exception of an `exc_info` tuple, to be raised again: the head is already sent.
fn raised(exc_info: Borrowed<'_, '_, PyAny>) -> PyErr {
    match exc_info.cast::<PyTuple>().ok().and_then(|tuple| tuple.get_item(1).ok()) {
        Some(value) => PyErr::from_value(value),
        None => PyTypeError::new_err("start_response(): exc_info must be the tuple of sys.exc_info()"),
    }
}

/// The mistake in the arguments, in words.
enum Misuse<'py> {
    StatusType(Bound<'py, PyAny>),
    StatusText,
    HeadersType(Bound<'py, PyAny>),
    Pair(Bound<'py, PyAny>),
    NameType(Bound<'py, PyAny>),
    ValueType(Bound<'py, PyString>, Bound<'py, PyAny>),
    Text(Bound<'py, PyString>),
    Refused(Refused),
}

impl Misuse<'_> {
    fn error(&self) -> PyErr {
        match self {
            Self::StatusType(status) => {
                PyTypeError::new_err(format!("start_response(): status must be a str like '200 OK', not {}", kind(status)))
            }
            Self::StatusText => PyValueError::new_err("start_response(): the status has characters outside latin-1"),
            Self::HeadersType(headers) => PyTypeError::new_err(format!(
                "start_response(): headers must be a list of (name, value) tuples, not {}",
                kind(headers)
            )),
            Self::Pair(item) => PyTypeError::new_err(format!(
                "start_response(): each header must be a (name, value) tuple, not {}",
                item.repr().map_or_else(|_| kind(item), |repr| repr.to_string_lossy().into_owned())
            )),
            Self::NameType(name) => {
                PyTypeError::new_err(format!("start_response(): header names must be str, not {}", kind(name)))
            }
            Self::ValueType(name, value) => PyTypeError::new_err(format!(
                "start_response(): the value of header '{}' must be a str, not {}",
                name.to_string_lossy(),
                kind(value)
            )),
            Self::Text(name) => PyValueError::new_err(format!(
                "start_response(): header '{}' has characters outside latin-1; encode them as RFC 8187 or RFC 2047 says",
                name.to_string_lossy()
            )),
            Self::Refused(refused) => PyValueError::new_err(format!("start_response(): {refused}")),
        }
    }
}

/// Runs no Python code, since the exchange is borrowed.
fn render<'py>(exchange: &mut Exchange, arguments: &ResponseArguments<'_, 'py>) -> Result<(), Misuse<'py>> {
    let status = arguments.status.cast::<PyString>().map_err(|_| Misuse::StatusType(arguments.status.to_owned()))?;
    let status = text::to_latin1(status).ok_or(Misuse::StatusText)?;
    exchange.begin(status).map_err(Misuse::Refused)?;
    let headers = arguments.headers;
    if let Ok(list) = headers.cast::<PyList>() {
        list.iter().try_for_each(|item| field(exchange, &item))?;
    } else if let Ok(tuple) = headers.cast::<PyTuple>() {
        tuple.iter().try_for_each(|item| field(exchange, &item))?;
    } else {
        return Err(Misuse::HeadersType(headers.to_owned()));
    }
    exchange.check_size().map_err(Misuse::Refused)
}

fn field<'py>(exchange: &mut Exchange, item: &Bound<'py, PyAny>) -> Result<(), Misuse<'py>> {
    let pair = match item.cast::<PyTuple>() {
        Ok(tuple) if tuple.len() == 2 => tuple.get_item(0).ok().zip(tuple.get_item(1).ok()),
        Ok(_) => None,
        Err(_) => match item.cast::<PyList>() {
            Ok(list) if list.len() == 2 => list.get_item(0).ok().zip(list.get_item(1).ok()),
            _ => None,
        },
    };
    let Some((name, value)) = pair else { return Err(Misuse::Pair(item.clone())) };
    let Ok(name) = name.cast::<PyString>() else { return Err(Misuse::NameType(name)) };
    let Ok(value) = value.cast::<PyString>() else { return Err(Misuse::ValueType(name.clone(), value)) };
    let (Some(name_bytes), Some(value_bytes)) = (text::to_latin1(name.as_borrowed()), text::to_latin1(value.as_borrowed()))
    else {
        return Err(Misuse::Text(name.clone()));
    };
    exchange.field(name_bytes, value_bytes).map_err(Misuse::Refused)
}

/// Name of an object's type.
fn kind(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "another type".to_owned(), |name| name.to_string_lossy().into_owned())
}
