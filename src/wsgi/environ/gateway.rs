//! The environ of a request that came from a gateway: its variables in the place of what the server would find out itself.

use std::borrow::Cow;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Builder;
use crate::http::head::{Field, GatewayParts};
use crate::http::header_cache::BlockId;
use crate::http::loose::{is_loose_field, is_loose_variable};
use crate::http::places::PLACES;
use crate::http::target::below;
use crate::worker::app::Request;
use crate::wsgi::environ_cache::gateway::{GatewayPaths, GatewayTemplate, LooseSource};
use crate::wsgi::environ_cache::{CachedEnviron, ClientObjects};
use crate::wsgi::mounts::{AppPlace, MountPoint};
use crate::wsgi::offers::Offers;
use crate::wsgi::text;

impl Builder {
    /// The environ of a request with variables.
    #[inline(never)] // HTTP has a shorter way
    pub(super) fn of_gateway<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        // What a proxy has told may depend on more than the block.
        let Some(block) = request.block.filter(|_| !request.head.assigned.is_told) else {
            return self.of_variables(py, request, place, offers);
        };
        let known = self.apps[place.index()].gateway_templates[block.place()].as_ref();
        if !known.is_some_and(|template| template.fits(block, request.listener)) {
            let template = self.gateway_template(py, request, place, block)?;
            self.apps[place.index()].gateway_templates[block.place()] = Some(template);
        }
        let (remote, method) = (&self.remote.of(py, request)?, self.methods.of(py, request)?);
        let app = &mut self.apps[place.index()];
        let paths = paths(request, &self.root_path, &app.point);
        let template = app.gateway_templates[block.place()].as_mut().expect("it was just made");
        let client = ClientObjects { remote, offers, tls: None };
        match template.environ(py, &self.keys, request, &paths, &client, method.as_ref()) {
            Ok(environ) => {
                self.lent = Some((place, PLACES + block.place()));
                Ok(environ)
            }
            Err(error) => {
                app.gateway_templates[block.place()] = None;
                Err(error)
            }
        }
    }

    /// The template of a block, of one of its requests.
    #[cold]
    fn gateway_template(
        &mut self,
        py: Python<'_>,
        request: &Request<'_>,
        place: AppPlace,
        block: BlockId,
    ) -> PyResult<GatewayTemplate> {
        let (head, bytes) = (request.head, request.bytes);
        let dict = self.of_fields(py, request, place)?;
        self.set_variables(&dict, request)?;
        if head.gateway.https {
            dict.set_item(&self.keys.scheme, &self.keys.https)?;
        }
        let is_single = |all: &[Field], name: &[u8]| all.iter().filter(|other| other.name.of(bytes) == name).count() == 1;
        let mut loose = vec![
            (LooseSource::Script, self.keys.script.clone_ref(py)),
            (LooseSource::Path, self.keys.path.clone_ref(py)),
            (LooseSource::Query, self.keys.query.clone_ref(py)),
            (LooseSource::Target, self.keys.request_uri.clone_ref(py)),
        ];
        for (place, field) in head.fields.iter().enumerate() {
            let name = field.name.of(bytes);
            if is_loose_field(name) && is_single(&head.fields, name) {
                let key = self.names.slot(py, name)?.key(py);
                loose.extend(key.map(|key| (LooseSource::Field(place), key)));
            }
        }
        for (place, variable) in head.variables.iter().enumerate() {
            let name = variable.name.of(bytes);
            if is_loose_variable(name) && is_single(&head.variables, name) {
                let key = self.variables.slot(py, name)?.key(py);
                loose.extend(key.map(|key| (LooseSource::Variable(place), key)));
            }
        }
        GatewayTemplate::new(block, request.listener, loose, dict, &self.keys)
    }

    fn set_variables(&mut self, dict: &Bound<'_, PyDict>, request: &Request<'_>) -> PyResult<()> {
        let (py, bytes) = (dict.py(), request.bytes);
        for variable in &request.head.variables {
            if let Some((key, value)) = self.variables.slot(py, variable.name.of(bytes))?.pair(py, variable.value.of(bytes))? {
                dict.set_item(key, value)?;
            }
        }
        Ok(())
    }

    /// The environ of variables that were not seen before; it is not used again.
    fn of_variables<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        place: AppPlace,
        offers: &Arc<Offers>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.of_fields(py, request, place)?;
        let (head, bytes) = (request.head, request.bytes);
        self.set_variables(&dict, request)?;
        let GatewayParts { query, https, .. } = head.gateway;
        let GatewayPaths { script, path } = paths(request, &self.root_path, &self.apps[place.index()].point);
        dict.set_item(&self.keys.script, text::from_latin1(py, &script)?)?;
        dict.set_item(&self.keys.path, text::from_latin1(py, &path)?)?;
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
        let remote = &self.remote.of(py, request)?;
        environ.settle(py, &self.keys, &ClientObjects { remote, offers, tls: None })?;
        environ.set_own(py, &self.keys, request, self.methods.of(py, request)?.as_ref())?;
        Ok(environ.give_away().into_bound(py))
    }

    /// The template that has lent an environ, where that is of a block of variables.
    pub(super) fn lent_gateway_template(&mut self, (app, place): (AppPlace, usize)) -> Option<&mut GatewayTemplate> {
        self.apps[app.index()].gateway_templates.get_mut(place.checked_sub(PLACES)?)?.as_mut()
    }

    /// Takes back the environ that such a template has lent.
    #[inline(never)]
    pub(super) fn take_back_from_gateway(&mut self, lent: (AppPlace, usize), environ: &Bound<'_, PyDict>) {
        if let Some(template) = self.lent_gateway_template(lent) {
            template.take_back(environ);
        }
    }
}

/// SCRIPT_NAME and PATH_INFO of an application that is mounted there. A root path takes the place of what the gateway says.
fn paths<'a>(request: &Request<'a>, root_path: &[u8], point: &'a MountPoint) -> GatewayPaths<'a> {
    let GatewayParts { script, path, .. } = request.head.gateway;
    let (script, path) = (script.of(request.bytes), path.of(request.bytes));
    if !root_path.is_empty() {
        let whole = [script, path].concat();
        let path = point.below(below(&whole, root_path)).to_vec();
        return GatewayPaths { script: [root_path, &point.path].concat().into(), path: path.into() };
    }
    let rest = point.below(path);
    let script: Cow<'_, [u8]> = match script {
        b"" => (&*point.path).into(),
        script if rest.len() < path.len() => [script, &*point.path].concat().into(),
        script => script.into(),
    };
    GatewayPaths { script, path: rest.into() }
}
