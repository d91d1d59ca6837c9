//! `tapster.wsgi.environ`: the environ of a request that is described and not received, made as for one that is.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::environ::{Builder, ListenerEnviron, SharedObjects};
use super::file_wrapper::FileWrapper;
use super::input::Input;
use super::mounts::{AppPlace, MountPoint};
use super::start_response::Factory;
use crate::config::Settings;
use crate::http::framing::{self, Length};
use crate::http::head::{Head, HeadView, Limits, Parsed};
use crate::http::terms::Terms;
use crate::worker::app::{Client, Peer, Request, RequestBody};

/// A client that stays.
struct StayingClient;

impl Client for StayingClient {
    fn has_left(&self) -> bool {
        false
    }
}

/// A field as bytes.
type FieldBytes = (Vec<u8>, Vec<u8>);

/// Method, target and version; fields; body; address and port of client and server; `--root-path`; `wsgi.errors`.
type Description<'py> = ([Vec<u8>; 3], Vec<FieldBytes>, Vec<u8>, [(String, String); 2], String, Bound<'py, PyAny>);

/// Adds the function to a module.
pub fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let function = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyDict>> {
        environ(arguments.py(), arguments.extract()?).map(Bound::unbind)
    };
    module.add("environ", PyCFunction::new_closure(module.py(), Some(c"environ"), None, function)?)
}

fn environ<'py>(py: Python<'py>, arguments: Description<'py>) -> PyResult<Bound<'py, PyDict>> {
    let ([method, target, version], fields, body, [client, server], root_path, errors) = arguments;
    let mut bytes = [&method[..], b" ", &target, b" ", &version, b"\r\n"].concat();
    for (name, value) in &fields {
        bytes.extend([&name[..], b": ", value, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    let refused = |why: &dyn std::fmt::Display| PyValueError::new_err(format!("the server refuses this request: {why}"));
    let settings = Settings::default();
    let limits = Limits {
        request_line: settings.limit_request_line,
        fields: settings.limit_request_fields,
        field_size: settings.limit_request_field_size,
    };
    let mut head = Head::default();
    let parsed = head.parse(&bytes, &limits).map_err(|error| refused(&error))?;
    // A line end in a part would make it another request.
    if parsed == Parsed::Partial || head.fields.len() != fields.len() || head.len != bytes.len() {
        return Err(refused(&"a line end stands in the middle of its head"));
    }
    let framing = framing::of(&head, &bytes).map_err(|error| refused(&error))?;
    let body_len = body.len() as u64;
    match framing.length {
        Length::Known(length) if length != body_len => {
            return Err(refused(&format_args!("its Content-Length is {length}, and its body has {body_len} bytes")));
        }
        Length::None if body_len > 0 => return Err(refused(&"its body has no length")),
        Length::Known(_) | Length::None | Length::Chunked => {}
    }
    let root_path = root_path.trim_end_matches('/').as_bytes().to_vec();
    let shared = SharedObjects {
        empty_input: Bound::new(py, Input::new(RequestBody::Empty))?.into_any(),
        errors,
        file_wrapper: py.get_type::<FileWrapper>().into_any(),
        multithread: false,
        multiprocess: true,
        run_once: false,
        root_path,
        believes_proto: true,
    };
    let listener = ListenerEnviron { name: server.0, port: server.1, is_encrypted: false };
    let mut builder = Builder::new(py, &[listener], &shared, [MountPoint::default()])?;
    let peer = Peer { addr: client.0.as_str().into(), port: client.1.as_str().into(), trusted: true, proxy: None };
    let request = Request {
        bytes: &bytes,
        head: &head,
        block: None,
        framing,
        peer: &peer,
        tls: None,
        client: Arc::new(StayingClient),
        listener: 0,
        terms: Terms::of(HeadView { head: &head, bytes: &bytes }, false),
        date: b"",
        body: RequestBody::Empty,
        upgrade: None,
    };
    let input = if body.is_empty() { None } else { Some(Bound::new(py, Input::new(RequestBody::Memory(body)))?.into_any()) };
    let start_response = Factory::new(py)?.make(py)?;
    builder.build(py, &request, AppPlace::UNMOUNTED, body_len, input.as_ref(), start_response.offers())
}
