//! The environ (PEP 3333, "environ Variables"), built for speed: the constant part is a dict per listener that is copied;
//! keys are interned with known hashes; what is equal to the copied placeholder is not set again.
//!
//! A header block that was seen before yields the same keys and values, so there is a dict for each of the last ones that holds
//! them too. Such a template is never shown to an application: what it gets is a copy, and all that differs between requests with
//! the same block is set in it for each.

use std::collections::BTreeMap;
use std::io::Write;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::names::{self, Meaning};
use super::text;
use crate::http::blocks::{BlockId, PLACES};
use crate::http::framing::Length;
use crate::http::head::{Head, Version};
use crate::http::target::{Form, Target, percent_decode};
use crate::worker::app::{Peer, Request};

/// Value of SERVER_SOFTWARE.
pub const SOFTWARE: &str = concat!("tapster/", env!("CARGO_PKG_VERSION"));

/// Key of the callable that sends `103 Early Hints`, as in gunicorn.
const EARLY_HINTS: &str = "wsgi.early_hints";

/// Key of the callable that says whether the client has left.
const CLIENT_DISCONNECTED: &str = "tapster.client_disconnected";

/// Longest request target whose strings are kept for the next request, in bytes.
const TARGET_MAX: usize = 1024;

/// Methods whose strings are kept.
const METHODS: [&str; 8] = ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "TRACE"];

/// What is the same in every request of one listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// SERVER_NAME.
    pub name: String,
    /// SERVER_PORT in decimal.
    pub port: String,
}

/// The objects that every environ shares.
pub struct Shared<'py> {
    /// `wsgi.input` of a request without a body.
    pub empty_input: Bound<'py, PyAny>,
    /// `wsgi.errors`.
    pub errors: Bound<'py, PyAny>,
    /// `wsgi.file_wrapper`.
    pub file_wrapper: Bound<'py, PyAny>,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
}

struct Keys {
    method: Py<PyString>,
    path: Py<PyString>,
    query: Py<PyString>,
    raw_uri: Py<PyString>,
    request_uri: Py<PyString>,
    protocol: Py<PyString>,
    remote_addr: Py<PyString>,
    remote_port: Py<PyString>,
    content_length: Py<PyString>,
    host: Py<PyString>,
    scheme: Py<PyString>,
    input: Py<PyString>,
    early_hints: Py<PyString>,
    client_disconnected: Py<PyString>,
}

/// A string together with the bytes that it was made from: the same bytes come again most of the time.
#[derive(Default)]
struct Last {
    bytes: Vec<u8>,
    object: Option<Py<PyString>>,
}

impl Last {
    fn of<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
        if let Some(object) = &self.object
            && self.bytes == bytes
        {
            return Ok(object.bind(py).clone());
        }
        let object = text::from_latin1(py, bytes)?;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.object = Some(object.clone().unbind());
        Ok(object)
    }
}

/// The strings of one request target.
struct Uri {
    target: Vec<u8>,
    uri: Py<PyString>,
    path: Py<PyString>,
    query: Option<Py<PyString>>,
    host: Option<Py<PyString>>,
}

impl Uri {
    fn new(py: Python<'_>, head: &Head, bytes: &[u8]) -> PyResult<Self> {
        let target = head.target.of(bytes);
        let uri = text::from_latin1(py, target)?;
        let string = |bytes| text::from_latin1(py, bytes).map(Bound::unbind);
        // The parser refuses what has none of the four forms.
        let Ok(parts) = Target::of(head, bytes) else {
            return Ok(Self { target: target.to_vec(), path: uri.clone().unbind(), uri: uri.unbind(), query: None, host: None });
        };
        let mut path = Vec::with_capacity(target.len());
        percent_decode(parts.path(bytes), &mut path);
        let path = if path == target { uri.clone().unbind() } else { string(&path)? };
        let query = parts.query.of(bytes);
        let query = if query.is_empty() { None } else { Some(string(query)?) };
        let host = match parts.form {
            Form::Absolute => Some(string(parts.authority.of(bytes))?),
            Form::Origin | Form::Authority | Form::Asterisk => None,
        };
        Ok(Self { target: target.to_vec(), uri: uri.unbind(), path, query, host })
    }

    fn set(&self, dict: &Bound<'_, PyDict>, keys: &Keys) -> PyResult<()> {
        let py = dict.py();
        dict.set_item(&keys.raw_uri, &self.uri)?;
        dict.set_item(&keys.request_uri, &self.uri)?;
        dict.set_item(&keys.path, &self.path)?;
        if let Some(query) = &self.query {
            dict.set_item(&keys.query, query)?;
        }
        if let Some(host) = &self.host {
            dict.set_item(&keys.host, host.bind(py))?;
        }
        Ok(())
    }
}

/// The environ of a header block, without what the request line, the client and the body say.
struct Template {
    block: BlockId,
    listener: usize,
    /// Whether the block may set the scheme.
    trusted: bool,
    dict: Py<PyDict>,
    /// REMOTE_ADDR and REMOTE_PORT of the latest client, which are in `dict`.
    remote: Option<[Py<PyString>; 2]>,
}

/// Makes environs.
pub struct Builder {
    bases: Vec<Py<PyDict>>,
    /// By the block's place.
    templates: [Option<Template>; PLACES],
    keys: Keys,
    methods: Vec<Py<PyString>>,
    http10: Py<PyString>,
    https: Py<PyString>,
    names: names::Table,
    uri: Option<Uri>,
    addr: Last,
    port: Last,
}

impl Builder {
    /// A builder for these listeners.
    pub fn new(py: Python<'_>, listeners: &[Listener], shared: &Shared<'_>) -> PyResult<Self> {
        let key = |name| text::key(py, name);
        Ok(Self {
            bases: listeners.iter().map(|listener| base(py, listener, shared).map(Bound::unbind)).collect::<PyResult<_>>()?,
            keys: Keys {
                method: key("REQUEST_METHOD")?,
                path: key("PATH_INFO")?,
                query: key("QUERY_STRING")?,
                raw_uri: key("RAW_URI")?,
                request_uri: key("REQUEST_URI")?,
                protocol: key("SERVER_PROTOCOL")?,
                remote_addr: key("REMOTE_ADDR")?,
                remote_port: key("REMOTE_PORT")?,
                content_length: key("CONTENT_LENGTH")?,
                host: key("HTTP_HOST")?,
                scheme: key("wsgi.url_scheme")?,
                input: key("wsgi.input")?,
                early_hints: key(EARLY_HINTS)?,
                client_disconnected: key(CLIENT_DISCONNECTED)?,
            },
            methods: METHODS.iter().map(|name| key(name)).collect::<PyResult<_>>()?,
            http10: key("HTTP/1.0")?,
            https: key("https")?,
            names: names::Table::new(py)?,
            templates: [const { None }; PLACES],
            uri: None,
            addr: Last::default(),
            port: Last::default(),
        })
    }

    /// The environ of a request; `input` is its body's stream, `None` for the shared empty one. `body_len` is the length of
    /// the decoded body.
    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        body_len: u64,
        input: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = match request.block {
            Some(block) => self.of_block(py, request, block)?,
            None => {
                let dict = self.of_fields(py, request)?;
                let [addr, port] = self.remote(py, request.peer)?;
                dict.set_item(&self.keys.remote_addr, addr)?;
                dict.set_item(&self.keys.remote_port, port)?;
                dict
            }
        };
        let method = request.head.method.of(request.bytes);
        if method != b"GET" {
            match METHODS.iter().position(|name| name.as_bytes() == method) {
                Some(known) => dict.set_item(&self.keys.method, &self.methods[known])?,
                None => dict.set_item(&self.keys.method, text::from_latin1(py, method)?)?,
            }
        }
        match request.framing.length {
            Length::None => {}
            Length::Known(_) | Length::Chunked => dict.set_item(&self.keys.content_length, decimal(py, body_len)?)?,
        }
        if let Some(input) = input {
            dict.set_item(&self.keys.input, input)?;
        }
        self.target(&dict, request.head, request.bytes)?;
        Ok(dict)
    }

    /// Sets what belongs to the request beyond PEP 3333.
    pub fn offer(&self, dict: &Bound<'_, PyDict>, early_hints: &Py<PyAny>, client_disconnected: &Py<PyAny>) -> PyResult<()> {
        dict.set_item(&self.keys.early_hints, early_hints)?;
        dict.set_item(&self.keys.client_disconnected, client_disconnected)
    }

    /// The listener's part, and what version and fields say.
    fn of_fields<'py>(&mut self, py: Python<'py>, request: &Request<'_>) -> PyResult<Bound<'py, PyDict>> {
        let base = self.bases.get(request.listener).or(self.bases.last()).expect("a server has a listener");
        let dict = base.bind(py).copy()?;
        if request.head.version == Version::Http10 {
            dict.set_item(&self.keys.protocol, &self.http10)?;
        }
        self.fields(&dict, request)?;
        Ok(dict)
    }

    /// As [`Builder::of_fields`] and with the client, by the template of the block.
    fn of_block<'py>(&mut self, py: Python<'py>, request: &Request<'_>, block: BlockId) -> PyResult<Bound<'py, PyDict>> {
        let (listener, trusted) = (request.listener, request.peer.trusted);
        let fits = |template: &Template| template.block == block && template.listener == listener && template.trusted == trusted;
        if !self.templates[block.place].as_ref().is_some_and(fits) {
            let dict = self.of_fields(py, request)?.unbind();
            self.templates[block.place] = Some(Template { block, listener, trusted, dict, remote: None });
        }
        let remote = self.remote(py, request.peer)?;
        let template = self.templates[block.place].as_mut().expect("it was just made");
        let dict = template.dict.bind(py);
        let same = |last: &[Py<PyString>; 2]| last.iter().zip(&remote).all(|(last, now)| last.is(now));
        if !template.remote.as_ref().is_some_and(same) {
            // Forgotten first: should the dict take only one of the two, the next request sets both.
            template.remote = None;
            let [addr, port] = &remote;
            dict.set_item(&self.keys.remote_addr, addr)?;
            dict.set_item(&self.keys.remote_port, port)?;
            template.remote = Some(remote.map(Bound::unbind));
        }
        dict.copy()
    }

    /// REMOTE_ADDR and REMOTE_PORT.
    fn remote<'py>(&mut self, py: Python<'py>, peer: &Peer) -> PyResult<[Bound<'py, PyString>; 2]> {
        Ok([self.addr.of(py, peer.addr.as_bytes())?, self.port.of(py, peer.port.as_bytes())?])
    }

    fn target(&mut self, dict: &Bound<'_, PyDict>, head: &Head, bytes: &[u8]) -> PyResult<()> {
        let target = head.target.of(bytes);
        if target == b"/" {
            return Ok(());
        }
        if let Some(uri) = &self.uri
            && uri.target == target
        {
            return uri.set(dict, &self.keys);
        }
        let uri = Uri::new(dict.py(), head, bytes)?;
        uri.set(dict, &self.keys)?;
        if target.len() <= TARGET_MAX {
            self.uri = Some(uri);
        }
        Ok(())
    }

    fn fields(&mut self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let py = dict.py();
        let mut expected = dict.len();
        let mut scheme = None;
        for (name, value) in request.head.iter(request.bytes) {
            let slot = self.names.slot(py, name)?;
            if slot.meaning() == Meaning::Scheme {
                scheme = Some(value);
            }
            if let Some((key, value)) = slot.pair(py, value)? {
                dict.set_item(key, value)?;
                expected += 1;
            }
        }
        if dict.len() != expected {
            self.join_repeated(dict, request)?;
        }
        if let Some(value) = scheme
            && request.peer.trusted
            && is_https(value)
        {
            dict.set_item(&self.keys.scheme, &self.https)?;
        }
        Ok(())
    }

    /// Sets all fields once more, with the values of repeated ones joined. Rare, so it may be slow.
    fn join_repeated(&mut self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let py = dict.py();
        let mut joined: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (name, value) in request.head.iter(request.bytes) {
            let meaning = self.names.slot(py, name)?.meaning();
            if meaning == Meaning::Dropped {
                continue;
            }
            joined
                .entry(names::environ_key(name))
                .and_modify(|all| {
                    all.extend_from_slice(meaning.separator());
                    all.extend_from_slice(value);
                })
                .or_insert_with(|| value.to_vec());
        }
        for (key, value) in joined {
            dict.set_item(text::from_latin1(py, &key)?, text::from_latin1(py, &value)?)?;
        }
        Ok(())
    }
}

/// Whether the last element of an X-Forwarded-Proto value is `https`: it was written by the peer that is trusted.
fn is_https(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or(value);
    last.trim_ascii().eq_ignore_ascii_case(b"https")
}

fn decimal(py: Python<'_>, number: u64) -> PyResult<Bound<'_, PyString>> {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut rest = &mut digits[..];
    write!(rest, "{number}").expect("20 digits hold every u64");
    let unused = rest.len();
    text::from_latin1(py, &digits[..20 - unused])
}

/// The dict that is copied for each request: constants, and placeholders for what differs, so that setting a value replaces
/// it and the copy never grows.
fn base<'py>(py: Python<'py>, listener: &Listener, shared: &Shared<'py>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let set = |name: &str, value: Bound<'py, PyAny>| dict.set_item(text::key(py, name)?, value);
    let string = |value: &str| text::key(py, value).map(|value| value.into_bound(py).into_any());
    set("REQUEST_METHOD", string("GET")?)?;
    set("SCRIPT_NAME", string("")?)?;
    set("PATH_INFO", string("/")?)?;
    set("QUERY_STRING", string("")?)?;
    set("RAW_URI", string("/")?)?;
    set("REQUEST_URI", string("/")?)?;
    set("SERVER_PROTOCOL", string("HTTP/1.1")?)?;
    set("SERVER_NAME", string(&listener.name)?)?;
    set("SERVER_PORT", string(&listener.port)?)?;
    set("SERVER_SOFTWARE", string(SOFTWARE)?)?;
    set("REMOTE_ADDR", string("")?)?;
    set("REMOTE_PORT", string("")?)?;
    set("wsgi.version", (1, 0).into_bound_py_any(py)?)?;
    set("wsgi.url_scheme", string("http")?)?;
    set("wsgi.input", shared.empty_input.clone())?;
    set("wsgi.input_terminated", true.into_bound_py_any(py)?)?;
    set("wsgi.errors", shared.errors.clone())?;
    set("wsgi.file_wrapper", shared.file_wrapper.clone())?;
    set("wsgi.multithread", shared.multithread.into_bound_py_any(py)?)?;
    set("wsgi.multiprocess", shared.multiprocess.into_bound_py_any(py)?)?;
    set("wsgi.run_once", false.into_bound_py_any(py)?)?;
    set(EARLY_HINTS, py.None().into_bound(py))?;
    set(CLIENT_DISCONNECTED, py.None().into_bound(py))?;
    make_room(&dict)?;
    Ok(dict)
}

/// Fields of a usual request: what a browser sends.
const USUAL_FIELDS: usize = 16;

/// Makes the dict, and so every copy of it, big enough for the fields of a usual request. A dict of n slots takes 2n/3 entries, and
/// one more makes it double; a key that goes again leaves the room behind (dictobject.c). No more than that one: a dict of
/// which a third was deleted is copied key by key.
fn make_room(dict: &Bound<'_, PyDict>) -> PyResult<()> {
    let smallest = dict.len().next_power_of_two();
    let slots = if dict.len() <= smallest * 2 / 3 { smallest } else { smallest * 2 };
    let room = slots * 2 / 3;
    if dict.len() + USUAL_FIELDS <= room {
        return Ok(());
    }
    let spare: Vec<String> = (dict.len()..=room).map(|number| format!("spare {number}")).collect();
    for name in &spare {
        dict.set_item(name, dict.py().None())?;
    }
    spare.iter().try_for_each(|name| dict.del_item(name))
}

#[cfg(test)]
mod tests {
    use super::is_https;

    #[test]
    fn the_scheme_is_the_one_that_the_nearest_proxy_wrote() {
        assert!(is_https(b"https"));
        assert!(is_https(b"http, HTTPS "));
        assert!(!is_https(b"https, http"));
        assert!(!is_https(b""));
    }
}
