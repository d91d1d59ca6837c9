//! What a trusted proxy has told of a request (`--trusted-proxy-headers`), in the place of what the server would say itself.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::Builder;
use crate::http::head::{Findings, Scheme};
use crate::worker::app::Request;
use crate::wsgi::text;

impl Builder {
    /// Sets scheme, host, port and prefix, those that were told.
    #[cold]
    pub(super) fn tell(&self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let (py, keys, bytes) = (dict.py(), &self.keys, request.bytes);
        let Findings { scheme, host, name, port, prefix, .. } = request.head.assigned;
        match scheme {
            Some(Scheme::Https) => {
                dict.set_item(&keys.scheme, &keys.https)?;
                dict.set_item(&keys.https_key, &keys.on)?;
            }
            Some(Scheme::Http) => {
                dict.set_item(&keys.scheme, &keys.http)?;
                if dict.contains(&keys.https_key)? {
                    dict.del_item(&keys.https_key)?;
                }
            }
            None => {}
        }
        for (key, value) in [(&keys.host, host), (&keys.server_name, name), (&keys.server_port, port)] {
            if !value.is_empty() {
                dict.set_item(key, text::from_latin1(py, value.of(bytes))?)?;
            }
        }
        if !prefix.is_empty() {
            // The proxy has cut it off in front of what the server mounts its application at.
            let own = dict.get_item(&keys.script)?.and_then(|own| own.cast_into::<PyString>().ok());
            let prefix = text::from_latin1(py, prefix.of(bytes))?;
            match own {
                Some(own) => dict.set_item(&keys.script, prefix.add(own)?)?,
                None => dict.set_item(&keys.script, prefix)?,
            }
        }
        Ok(())
    }
}

impl Builder {
    /// Sets the host, if one was told, where the target has named another one.
    #[cold]
    pub(super) fn tell_host(&self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let host = request.head.assigned.host.of(request.bytes);
        if host.is_empty() { Ok(()) } else { dict.set_item(&self.keys.host, text::from_latin1(dict.py(), host)?) }
    }
}

/// What was told of a request, kept to be compared with that of another one.
#[derive(Debug, PartialEq, Eq)]
pub struct ToldTexts {
    scheme: Option<Scheme>,
    /// Host, port and prefix.
    texts: [Vec<u8>; 3],
}

impl ToldTexts {
    /// Of this request; `None`: nothing was told. Their length is bounded as that of the known block is, which they come from.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        let Findings { is_told, scheme, host, port, prefix, .. } = request.head.assigned;
        is_told.then(|| Self { scheme, texts: [host, port, prefix].map(|span| span.of(request.bytes).to_vec()) })
    }

    /// Whether the same was told of this request.
    #[cold]
    pub fn is_of(&self, request: &Request<'_>) -> bool {
        let Findings { is_told, scheme, host, port, prefix, .. } = request.head.assigned;
        let texts = [host, port, prefix].map(|span| span.of(request.bytes));
        is_told && self.scheme == scheme && self.texts.iter().zip(texts).all(|(kept, text)| kept == text)
    }
}
