//! Environs of requests from gateways whose variables were seen before, likewise: a template for each block of variables, and mostly a
//! spare.

use std::borrow::Cow;

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::{CachedEnviron, ClientObjects};
use crate::http::framing::Length;
use crate::http::header_cache::BlockId;
use crate::worker::app::Request;
use crate::wsgi::keys::Keys;
use crate::wsgi::text;

/// The parts of the path that the application is told.
pub struct GatewayPaths<'a> {
    /// SCRIPT_NAME.
    pub script: Cow<'a, [u8]>,
    /// PATH_INFO.
    pub path: Cow<'a, [u8]>,
}

/// Where a value comes from that may differ among requests with the same block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LooseSource {
    /// The field at this place.
    Field(usize),
    /// The variable at this place.
    Variable(usize),
    /// SCRIPT_NAME.
    Script,
    /// PATH_INFO.
    Path,
    /// QUERY_STRING.
    Query,
    /// The target: REQUEST_URI, and RAW_URI.
    Target,
}

impl LooseSource {
    fn text<'a>(self, request: &Request<'a>, paths: &'a GatewayPaths<'_>) -> &'a [u8] {
        let (head, bytes) = (request.head, request.bytes);
        let span = match self {
            Self::Script => return &paths.script,
            Self::Path => return &paths.path,
            Self::Field(place) => head.fields[place].value,
            Self::Variable(place) => head.variables[place].value,
            Self::Query => head.gateway.query,
            Self::Target => head.target,
        };
        span.of(bytes)
    }
}

/// The environ of a block of variables.
pub struct GatewayTemplate {
    block: BlockId,
    listener: usize,
    /// The values that may differ, with their keys.
    loose: Vec<(LooseSource, Py<PyString>)>,
    /// Never shown to an application.
    own: CachedEnviron,
    spare: Option<CachedEnviron>,
}

impl GatewayTemplate {
    /// The template of a block, with the values that `dict` holds, among them one for each loose key.
    pub fn new(
        block: BlockId,
        listener: usize,
        loose: Vec<(LooseSource, Py<PyString>)>,
        dict: Bound<'_, PyDict>,
        keys: &Keys,
    ) -> PyResult<Self> {
        let mut own = CachedEnviron::new(dict.clone());
        for (source, key) in &loose {
            let value = dict.get_item(key)?.ok_or_else(|| PyKeyError::new_err(key.clone_ref(dict.py())))?;
            if *source == LooseSource::Target {
                dict.set_item(&keys.raw_uri, &value)?;
            }
            own.values.push(value.cast_into::<PyString>()?.unbind());
        }
        Ok(Self { block, listener, loose, own, spare: None })
    }

    /// Whether this is the template of this block for this listener.
    pub fn fits(&self, block: BlockId, listener: usize) -> bool {
        self.block == block && self.listener == listener
    }

    /// An environ with the values of a request, given out. After an error the template is not to be used again.
    pub fn environ<'py>(
        &mut self,
        py: Python<'py>,
        keys: &Keys,
        request: &Request<'_>,
        paths: &GatewayPaths<'_>,
        client: &ClientObjects<'_, '_>,
        method: Option<&Bound<'_, PyString>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        // As for HTTP, the template gets them too.
        let cached = self.spare.as_mut().unwrap_or(&mut self.own);
        cached.settle(py, keys, client)?;
        let dict = cached.dict.bind(py);
        for ((source, key), value) in self.loose.iter().zip(&mut cached.values) {
            let bytes = source.text(request, paths);
            if text::to_latin1(value.bind_borrowed(py)) == Some(bytes) {
                continue;
            }
            let now = text::from_latin1(py, bytes)?;
            dict.set_item(key, &now)?;
            if *source == LooseSource::Target {
                dict.set_item(&keys.raw_uri, &now)?;
            }
            *value = now.unbind();
        }
        // Another length is set where the body is, and such an environ does not come back.
        let is_zero = request.framing.length == Length::Known(0);
        if cached.has_length != is_zero {
            match is_zero {
                true => dict.set_item(&keys.content_length, &keys.zero)?,
                false => dict.del_item(&keys.content_length)?,
            }
            cached.has_length = is_zero;
        }
        if self.spare.is_none() {
            self.spare = Some(self.own.copy(py)?);
        }
        let spare = self.spare.as_mut().expect("it was just made");
        spare.set_own(py, keys, request, method)?;
        Ok(spare.lend(py))
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
