//! Environs that are made before their request comes, and what of it stands in them.
//!
//! For each header block that is known there is a template, which no application ever sees, and mostly a spare: the environ of an
//! earlier request that came back as it was given. A spare is taken again only if nobody else refers to it and the interpreter
//! says that nothing was set or deleted in it since (the dict's version, which changes with each change and never comes twice).
//! Otherwise the template is copied. Either way only what differs from what stands in it is set.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{Borrowed, ffi};

use super::environ::{Keys, Uri};
use super::offers::Offers;
use crate::http::blocks::BlockId;

/// The environ of a header block.
pub struct Template {
    block: BlockId,
    listener: usize,
    /// Whether the block may set the scheme.
    trusted: bool,
    /// Never shown to an application.
    own: Ready,
    spare: Option<Ready>,
}

impl Template {
    /// The template of a block with what `dict` holds of it.
    pub fn new(block: BlockId, listener: usize, trusted: bool, dict: Bound<'_, PyDict>) -> Self {
        Self { block, listener, trusted, own: Ready::new(dict), spare: None }
    }

    /// Whether it is the one of this block for this listener and kind of peer.
    pub fn fits(&self, block: BlockId, listener: usize, trusted: bool) -> bool {
        self.block == block && self.listener == listener && self.trusted == trusted
    }

    /// An environ with the client and the offers set.
    pub fn take(&mut self, py: Python<'_>, keys: &Keys, steady: &Steady<'_, '_>) -> PyResult<Ready> {
        if let Some(mut spare) = self.spare.take() {
            spare.settle(py, keys, steady)?;
            return Ok(spare);
        }
        // In the template too: applications whose environs never come back have many requests of a client.
        self.own.settle(py, keys, steady)?;
        self.own.copy(py)
    }

    /// Keeps an environ that came back. `block` tells whose it was.
    pub fn give_back(&mut self, block: BlockId, spare: Ready) {
        if self.block == block {
            self.spare = Some(spare);
        }
    }
}

/// What stays the same over the requests of a client, mostly.
pub struct Steady<'a, 'py> {
    /// REMOTE_ADDR and REMOTE_PORT.
    pub remote: &'a [Borrowed<'a, 'py, PyString>; 2],
    /// The callables of the request.
    pub offers: &'a Arc<Offers>,
}

/// A dict and what stands in it.
///
/// Invariant: nobody else changes the dict, and each field that is set says what the dict holds.
pub struct Ready {
    dict: Py<PyDict>,
    remote: Option<[Py<PyString>; 2]>,
    offers: Option<Arc<Offers>>,
    /// Serial number of the target's strings.
    uri: u64,
    /// Whether the method is not GET.
    method: bool,
    /// Whether everything that a request sets in it is set anew for the next one.
    reusable: bool,
}

impl Ready {
    /// A dict as it was copied from a base.
    pub fn new(dict: Bound<'_, PyDict>) -> Self {
        Self { dict: dict.unbind(), remote: None, offers: None, uri: Uri::ROOT, method: false, reusable: true }
    }

    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self {
            dict: self.dict.bind(py).copy()?.unbind(),
            remote: self.remote.as_ref().map(|both| both.each_ref().map(|one| one.clone_ref(py))),
            offers: self.offers.clone(),
            uri: self.uri,
            method: self.method,
            reusable: true,
        })
    }

    /// Sets what is not yet in it. After an error it is not to be used again.
    pub fn settle(&mut self, py: Python<'_>, keys: &Keys, steady: &Steady<'_, '_>) -> PyResult<()> {
        let dict = self.dict.bind(py);
        let [addr, port] = steady.remote;
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
        if !self.offers.as_ref().is_some_and(|last| Arc::ptr_eq(last, steady.offers)) {
            dict.set_item(&keys.early_hints, &steady.offers.early_hints)?;
            dict.set_item(&keys.client_disconnected, &steady.offers.client_disconnected)?;
            self.offers = Some(steady.offers.clone());
        }
        Ok(())
    }

    /// Sets the method; `None` is GET.
    pub fn set_method(&mut self, py: Python<'_>, keys: &Keys, method: Option<&Bound<'_, PyString>>) -> PyResult<()> {
        match method {
            Some(method) => self.dict.bind(py).set_item(&keys.method, method)?,
            None if self.method => self.dict.bind(py).set_item(&keys.method, &keys.get)?,
            None => {}
        }
        self.method = method.is_some();
        Ok(())
    }

    /// Sets the strings of the target.
    pub fn set_uri(&mut self, py: Python<'_>, keys: &Keys, uri: &Uri) -> PyResult<()> {
        if self.uri != uri.serial {
            // It replaces a field of the block.
            self.reusable &= !uri.names_host();
            uri.set(self.dict.bind(py), keys)?;
            self.uri = uri.serial;
        }
        Ok(())
    }

    /// Shows the dict to the application.
    pub fn lend<'py>(self, py: Python<'py>, block: Option<BlockId>) -> (Bound<'py, PyDict>, Option<Lent>) {
        let dict = self.dict.bind(py).clone();
        let lent = match (block, version(&dict)) {
            (Some(block), Some(version)) if self.reusable => Some(Lent { block, version, ready: self }),
            _ => None,
        };
        (dict, lent)
    }
}

/// An environ in the hands of the application.
pub struct Lent {
    block: BlockId,
    version: u64,
    ready: Ready,
}

impl Lent {
    /// Takes it back, if nobody has kept it or changed it, with the block that it belongs to.
    pub fn take_back(self, environ: Bound<'_, PyDict>) -> Option<(BlockId, Ready)> {
        // This reference and the lent one.
        const OURS: ffi::Py_ssize_t = 2;
        let same = references(&environ) == OURS && version(&environ) == Some(self.version);
        same.then_some((self.block, self.ready))
    }
}

fn references(dict: &Bound<'_, PyDict>) -> ffi::Py_ssize_t {
    // SAFETY: the object is alive as long as the reference; reading the count needs no more.
    unsafe { ffi::Py_REFCNT(dict.as_ptr()) }
}

/// A number that every change of a dict replaces by one that no dict has had; interpreters without it have `None`.
#[cfg(not(Py_3_14))]
#[allow(deprecated, reason = "3.12 announces its end, which came with 3.14; there is no other way to ask")]
fn version(dict: &Bound<'_, PyDict>) -> Option<u64> {
    // SAFETY: the object is a live dict, laid out as PyDictObject in this version (cpython/dictobject.h), and the thread is attached.
    Some(unsafe { (*dict.as_ptr().cast::<ffi::PyDictObject>()).ma_version_tag })
}

#[cfg(Py_3_14)]
fn version(_dict: &Bound<'_, PyDict>) -> Option<u64> {
    None
}
