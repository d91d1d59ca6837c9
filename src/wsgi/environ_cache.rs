//! Environs that are made before their request comes, with a note of the values that each one holds.
//!
//! For each header block that is known there is a template, which no application ever sees, and mostly a spare: the environ of an
//! earlier request that came back as it was given. A spare is taken again only if nobody else refers to it and the interpreter
//! says that nothing was set or deleted in it since (the dict's version, which changes with each change and never comes twice).
//! Otherwise the template is copied. Either way only the values that differ are set.

use std::sync::Arc;

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{Borrowed, ffi};

use super::environ::told::ToldTexts;
use super::keys::Keys;
use super::offers::Offers;
use super::start_response::references;
use super::target::Uri;
use super::text;
use crate::http::header_cache::BlockId;
use crate::tls::facts::TlsFacts;
use crate::worker::app::Request;

pub mod gateway;

/// The environ of a header block.
pub struct Template {
    block: BlockId,
    listener: usize,
    /// Whether the block may set the scheme.
    trusted: bool,
    /// What a proxy has told of the request that it was made for: it may depend on more than the block.
    told: Option<ToldTexts>,
    /// The block's loose fields that are shown to the application: place and key.
    loose: Vec<(usize, Py<PyString>)>,
    /// Never shown to an application.
    own: CachedEnviron,
    spare: Option<CachedEnviron>,
}

impl Template {
    /// The template of a block, with the values that `dict` holds. `loose` are its loose fields that are in the dict: place and
    /// key.
    pub fn new(
        block: BlockId,
        request: &Request<'_>,
        loose: Vec<(usize, Py<PyString>)>,
        dict: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let mut own = CachedEnviron::new(dict.clone());
        for (_, key) in &loose {
            let value = dict.get_item(key)?.ok_or_else(|| PyKeyError::new_err(key.clone_ref(dict.py())))?;
            own.values.push(value.cast_into::<PyString>()?.unbind());
        }
        let (listener, trusted) = (request.listener, request.peer.trusted);
        Ok(Self { block, listener, trusted, told: ToldTexts::of(request), loose, own, spare: None })
    }

    /// Whether this is the template of this block for the listener and the kind of peer of this request, and for what was told of
    /// it.
    #[inline]
    pub fn fits(&self, block: &BlockId, request: &Request<'_>) -> bool {
        let is_told = request.head.assigned.is_told;
        self.block == *block
            && self.listener == request.listener
            && self.trusted == request.peer.trusted
            && match &self.told {
                None => !is_told,
                Some(told) => told.is_of(request),
            }
    }

    /// An environ with the values of the loose fields, the client and the offers of a request, to be given out. The spare is to
    /// be dropped if it is not given out.
    #[inline(always)] // each request of HTTP comes through the one caller
    pub fn environ(
        &mut self,
        py: Python<'_>,
        keys: &Keys,
        request: &Request<'_>,
        client: &ClientObjects<'_, '_>,
    ) -> PyResult<&mut CachedEnviron> {
        // Without a spare the template gets them too: an application whose environs never come back has many requests of one
        // client as well.
        let cached = self.spare.as_mut().unwrap_or(&mut self.own);
        cached.settle(py, keys, client)?;
        cached.set_loose(py, &self.loose, request)?;
        if self.spare.is_none() {
            self.spare = Some(self.own.copy(py)?);
        }
        Ok(self.spare.as_mut().expect("it was just made"))
    }

    /// Takes back the environ that was given out, if nobody has kept it or changed it.
    pub fn take_back(&mut self, environ: &Bound<'_, PyDict>) {
        if !self.spare.as_ref().is_some_and(|spare| spare.is_as_lent(environ)) {
            self.spare = None;
        }
    }

    /// Forgets the environ that was given out.
    pub fn drop_spare(&mut self) {
        self.spare = None;
    }
}

/// The values that mostly stay the same over the requests of a client.
pub struct ClientObjects<'a, 'py> {
    /// REMOTE_ADDR and REMOTE_PORT.
    pub remote: &'a [Borrowed<'a, 'py, PyString>; 2],
    /// The callables of the request.
    pub offers: &'a Arc<Offers>,
    /// What is known of an encrypted connection.
    pub tls: Option<&'a TlsFacts>,
}

/// A dict with a note of its values.
///
/// Invariant: nobody else changes the dict, and each field that is set says what the dict holds.
pub struct CachedEnviron {
    dict: Py<PyDict>,
    remote: Option<[Py<PyString>; 2]>,
    offers: Option<Arc<Offers>>,
    tls: Option<(&'static str, &'static str)>,
    /// Values of the block's loose fields.
    values: Vec<Py<PyString>>,
    /// Serial number of the target's strings.
    uri: u64,
    /// Whether the method is not GET.
    method: bool,
    /// Whether CONTENT_LENGTH is there, and 0: only for gateways.
    has_length: bool,
    /// The dict's version when it was given out, if the next request sets again all that was set in it.
    lent: Option<u64>,
}

impl CachedEnviron {
    /// A dict just copied from a base.
    pub fn new(dict: Bound<'_, PyDict>) -> Self {
        Self {
            dict: dict.unbind(),
            remote: None,
            offers: None,
            tls: None,
            values: Vec::new(),
            uri: Uri::ROOT,
            method: false,
            has_length: false,
            lent: None,
        }
    }

    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self {
            dict: self.dict.bind(py).copy()?.unbind(),
            remote: self.remote.as_ref().map(|both| both.each_ref().map(|one| one.clone_ref(py))),
            offers: self.offers.clone(),
            tls: self.tls,
            values: self.values.iter().map(|value| value.clone_ref(py)).collect(),
            uri: self.uri,
            method: self.method,
            has_length: self.has_length,
            lent: None,
        })
    }

    /// Sets the values that it does not hold yet. After an error it is not to be used again.
    #[inline]
    pub fn settle(&mut self, py: Python<'_>, keys: &Keys, client: &ClientObjects<'_, '_>) -> PyResult<()> {
        let [addr, port] = client.remote;
        let is_settled = client.tls.is_none()
            && self.remote.as_ref().is_some_and(|last| last[0].is(addr) && last[1].is(port))
            && self.offers.as_ref().is_some_and(|last| Arc::ptr_eq(last, client.offers));
        if is_settled { Ok(()) } else { self.settle_anew(py, keys, client) }
    }

    #[inline(never)]
    fn settle_anew(&mut self, py: Python<'_>, keys: &Keys, client: &ClientObjects<'_, '_>) -> PyResult<()> {
        let dict = self.dict.bind(py);
        let [addr, port] = client.remote;
        let remote = [(&keys.remote_addr, addr), (&keys.remote_port, port)];
        match &mut self.remote {
            Some(last) => {
                for (last, (key, now)) in last.iter_mut().zip(remote) {
                    if !last.is(now) {
                        dict.set_item(key, now)?;
                        *last = (**now).clone().unbind();
                    }
                }
            }
            None => {
                for (key, now) in remote {
                    dict.set_item(key, now)?;
                }
                self.remote = Some([addr, port].map(|one| (**one).clone().unbind()));
            }
        }
        if !self.offers.as_ref().is_some_and(|last| Arc::ptr_eq(last, client.offers)) {
            dict.set_item(&keys.early_hints, &client.offers.early_hints)?;
            dict.set_item(&keys.client_disconnected, &client.offers.client_disconnected)?;
            self.offers = Some(client.offers.clone());
        }
        match client.tls {
            None => Ok(()),
            Some(tls) => self.set_tls(py, keys, (tls.protocol, tls.cipher)),
        }
    }

    #[inline(never)]
    fn set_tls(&mut self, py: Python<'_>, keys: &Keys, tls: (&'static str, &'static str)) -> PyResult<()> {
        if self.tls == Some(tls) {
            return Ok(());
        }
        let dict = self.dict.bind(py);
        dict.set_item(&keys.ssl_protocol, text::key(py, tls.0)?)?;
        dict.set_item(&keys.ssl_cipher, text::key(py, tls.1)?)?;
        self.tls = Some(tls);
        Ok(())
    }

    /// Sets the values of the loose fields that are not the ones in it, compared byte for byte. After an error it is not to be
    /// used again.
    #[inline(always)] // as its caller
    fn set_loose(&mut self, py: Python<'_>, fields: &[(usize, Py<PyString>)], request: &Request<'_>) -> PyResult<()> {
        for ((place, key), value) in fields.iter().zip(&mut self.values) {
            let bytes = request.head.fields[*place].value.of(request.bytes);
            if text::to_latin1(value.bind_borrowed(py)) != Some(bytes) {
                let now = text::from_latin1(py, bytes)?;
                self.dict.bind(py).set_item(key, &now)?;
                *value = now.unbind();
            }
        }
        Ok(())
    }

    /// Sets what belongs to the request alone: the method, of which `None` is GET, and the name, if it has got one.
    #[inline(always)] // as its parts
    pub fn set_own(
        &mut self,
        py: Python<'_>,
        keys: &Keys,
        request: &Request<'_>,
        method: Option<&Bound<'_, PyString>>,
    ) -> PyResult<()> {
        self.set_method(py, keys, method)?;
        self.set_id(py, keys, request)
    }

    /// Sets the method; `None` is GET.
    #[inline]
    fn set_method(&mut self, py: Python<'_>, keys: &Keys, method: Option<&Bound<'_, PyString>>) -> PyResult<()> {
        if method.is_none() && !self.method { Ok(()) } else { self.change_method(py, keys, method) }
    }

    #[inline(never)]
    fn change_method(&mut self, py: Python<'_>, keys: &Keys, method: Option<&Bound<'_, PyString>>) -> PyResult<()> {
        match method {
            Some(method) => self.dict.bind(py).set_item(&keys.method, method)?,
            None if self.method => self.dict.bind(py).set_item(&keys.method, &keys.get)?,
            None => {}
        }
        self.method = method.is_some();
        Ok(())
    }

    /// Sets the request's X-Request-ID, if it has got one. It is set anew for each request, or for none.
    #[inline(always)] // most requests have none
    fn set_id(&mut self, py: Python<'_>, keys: &Keys, request: &Request<'_>) -> PyResult<()> {
        if request.head.assigned.id.is_empty() {
            return Ok(());
        }
        self.dict.bind(py).set_item(&keys.request_id, text::from_latin1(py, request.id())?)
    }

    /// Shows the dict to the application as it is.
    fn lend<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyDict> {
        let dict = self.dict.bind(py);
        self.lent = version(dict);
        dict.clone()
    }

    /// Whether nobody has kept or changed the dict that was shown; the caller has one reference to it.
    fn is_as_lent(&self, environ: &Bound<'_, PyDict>) -> bool {
        // Its own reference and the caller's.
        const OURS: ffi::Py_ssize_t = 2;
        self.lent.is_some() && version(environ) == self.lent && references(environ.as_any().as_unbound()) == OURS
    }

    /// Shows the dict to the application as it is; it does not come back.
    pub fn give_away(self) -> Py<PyDict> {
        self.dict
    }

    /// Sets the strings of the target, and shows the dict to the application.
    pub fn hand_out<'py>(&mut self, py: Python<'py>, keys: &Keys, uri: &Uri) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.dict.bind(py);
        if self.uri != uri.serial {
            uri.set(dict, keys)?;
            self.uri = uri.serial;
        }
        // A host in the target replaces a field of the block.
        self.lent = if uri.names_host() { None } else { version(dict) };
        Ok(dict.clone())
    }
}

/// A number that every change of a dict replaces by one that no dict has had; interpreters without it have `None`.
#[cfg(not(Py_3_14))]
#[allow(deprecated, reason = "3.12 announces its end, which came with 3.14; there is no other way to ask")]
fn version(dict: &Bound<'_, PyDict>) -> Option<u64> {
    // SAFETY: the object is a live dict, laid out as PyDictObject in this version (cpython/dictobject.h), and the thread is
    // attached.
    Some(unsafe { (*dict.as_ptr().cast::<ffi::PyDictObject>()).ma_version_tag })
}

#[cfg(Py_3_14)]
fn version(_dict: &Bound<'_, PyDict>) -> Option<u64> {
    None
}
