//! The environ of a request that came from a gateway: its variables in the place of what the server would find out itself.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::{Builder, is_same};
use crate::http::head::GatewayParts;
use crate::http::target::below;
use crate::worker::app::Request;
use crate::wsgi::environ_cache::{CachedEnviron, ClientObjects};
use crate::wsgi::mounts::AppPlace;
use crate::wsgi::offers::Offers;
use crate::wsgi::text;

impl Builder {
    /// The environ of a request with variables; it is not used again.
    pub(super) fn of_gateway<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        method: Option<&Bound<'py, PyString>>,
        (addr, port): (&[u8], &[u8]),
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.of_fields(py, request, place)?;
        let (head, bytes) = (request.head, request.bytes);
        for variable in &head.variables {
            if let Some((key, value)) = self.variables.slot(py, variable.name.of(bytes))?.pair(py, variable.value.of(bytes))? {
                dict.set_item(key, value)?;
            }
        }
        let GatewayParts { script, path, query, https } = head.gateway;
        self.set_path(&dict, place, script.of(bytes), path.of(bytes))?;
        if !query.is_empty() {
            dict.set_item(&self.keys.query, text::from_latin1(py, query.of(bytes))?)?;
        }
        let target = text::from_latin1(py, head.target.of(bytes))?;
        dict.set_item(&self.keys.raw_uri, &target)?;
        dict.set_item(&self.keys.request_uri, &target)?;
        if https {
            dict.set_item(&self.keys.scheme, &self.keys.https)?;
        }
        if head.assigned.is_told {
            self.tell(&dict, request)?;
        }
        let mut environ = CachedEnviron::new(dict);
        let remote = &[self.addr.of(py, addr)?, self.port.of(py, port)?];
        environ.settle(py, &self.keys, &ClientObjects { remote, offers, tls: None })?;
        environ.set_method(py, &self.keys, method)?;
        environ.set_id(py, &self.keys, request.id())?;
        Ok(environ.give_away().into_bound(py))
    }

    /// Sets SCRIPT_NAME and PATH_INFO. A root path takes the place of what the gateway says.
    fn set_path(&self, dict: &Bound<'_, PyDict>, place: AppPlace, script: &[u8], path: &[u8]) -> PyResult<()> {
        let py = dict.py();
        let point = &self.apps[place.index()].point;
        if self.root_path.is_empty() {
            let rest = point.below(path);
            if rest.len() < path.len() {
                // SCRIPT_NAME of the base is the mount.
                if !script.is_empty() {
                    dict.set_item(&self.keys.script, text::from_latin1(py, &[script, &*point.path].concat())?)?;
                }
                return dict.set_item(&self.keys.path, text::from_latin1(py, rest)?);
            }
            if !script.is_empty() {
                dict.set_item(&self.keys.script, text::from_latin1(py, script)?)?;
            }
            if !is_same(path, b"/") {
                dict.set_item(&self.keys.path, text::from_latin1(py, path)?)?;
            }
            return Ok(());
        }
        let whole = [script, path].concat();
        dict.set_item(&self.keys.path, text::from_latin1(py, point.below(below(&whole, &self.root_path)))?)
    }
}
