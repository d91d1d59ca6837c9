//! Which of the applications has a request (`--mount`), and the applications themselves.
//!
//! The path is decoded, and nothing else is done to it: `/a//b` is below `/a`, as PATH_INFO `//b`. A mount has the paths that begin
//! with its own, by whole segments. Mounts of the host that is asked for come first, then those of all hosts; among each the one with
//! the longest path counts.
//!
//! Whatever the server keeps from one request for the next is kept for each application apart (`environ::Builder`), so nothing of a
//! mount can be in a request for another one.

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::config::{Mount, canonical_host};
use crate::http::target::{Target, below, percent_decode};
use crate::worker::app::Request;

/// Bytes of a path or host for which a thread keeps room.
const KEPT_MAX: usize = 1024;

/// The applications of a worker, by [`AppPlace`]. That of requests of no mount may be missing.
pub struct Callables(Vec<Option<Py<PyAny>>>);

/// An application's place among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppPlace(usize);

impl AppPlace {
    /// That of requests of no mount.
    pub const UNMOUNTED: Self = Self(0);

    /// As an index: that of requests of no mount, then the mounts.
    pub fn index(self) -> usize {
        self.0
    }
}

impl Callables {
    /// That of requests of no mount, if there is one, and those of the mounts in the order of the settings.
    pub fn new(unmounted: Option<Py<PyAny>>, mounted: Vec<Py<PyAny>>) -> Self {
        Self([unmounted].into_iter().chain(mounted.into_iter().map(Some)).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.0.iter().flatten()
    }

    /// The one at this place.
    #[inline]
    pub fn at(&self, place: AppPlace) -> Option<&Py<PyAny>> {
        self.0.get(place.0)?.as_ref()
    }

    /// Whether there are no mounts.
    #[inline]
    pub fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// The same objects once more.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.iter().map(|one| one.as_ref().map(|one| one.clone_ref(py))).collect())
    }

    /// Has `put` replace each of them.
    pub fn try_map<E>(self, mut put: impl FnMut(Py<PyAny>) -> Result<Py<PyAny>, E>) -> Result<Self, E> {
        Ok(Self(self.0.into_iter().map(|one| one.map(&mut put).transpose()).collect::<Result<_, _>>()?))
    }

    /// The first of them, which can be replaced.
    pub fn first_mut(&mut self) -> Option<&mut Py<PyAny>> {
        self.0.iter_mut().flatten().next()
    }
}

/// Where an application is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountPoint {
    /// As in [`Mount::prefix`].
    pub path: Vec<u8>,
    host: Option<Vec<u8>>,
}

impl MountPoint {
    /// The part of a decoded path below it; the whole path when it is not below it.
    pub fn below<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        below(path, &self.path)
    }

    fn has(&self, path: &[u8]) -> bool {
        matches!(path.strip_prefix(&*self.path), Some([] | [b'/', ..]))
    }
}

/// The mounts of a server, as a thread asks for them.
#[derive(Debug)]
pub struct Mounts {
    /// In the order of the settings.
    points: Vec<MountPoint>,
    /// Places in `points`: those of a host first, then those with the longer paths.
    order: Vec<usize>,
    /// Whether the host of a request matters.
    by_host: bool,
    /// `--root-path`.
    root_path: Vec<u8>,
    /// Of the latest request.
    path: Vec<u8>,
    host: Vec<u8>,
}

impl Mounts {
    /// Those of the settings.
    pub fn new(mounts: &[Mount], root_path: &str) -> Self {
        let point = |mount: &Mount| MountPoint {
            path: mount.prefix.clone().into_bytes(),
            host: mount.host.clone().map(String::into_bytes),
        };
        let points: Vec<MountPoint> = mounts.iter().map(point).collect();
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by_key(|&at| (points[at].host.is_none(), std::cmp::Reverse(points[at].path.len())));
        Self {
            by_host: points.iter().any(|point| point.host.is_some()),
            points,
            order,
            root_path: root_path.as_bytes().to_vec(),
            path: Vec::new(),
            host: Vec::new(),
        }
    }

    /// The places of all applications: that of requests of no mount, then the mounts.
    pub fn points(&self) -> impl Iterator<Item = MountPoint> {
        [MountPoint::default()].into_iter().chain(self.points.iter().cloned())
    }

    /// The place of the application that has this request.
    pub fn place(&mut self, request: &Request<'_>) -> PyResult<AppPlace> {
        self.read(request)?;
        let Self { points, path, host, .. } = self;
        let has_host = |point: &MountPoint| point.host.as_ref().is_none_or(|own| own == host);
        let mut order = self.order.iter().copied().filter(|&at| has_host(&points[at]));
        let found = order.clone().find(|&at| points[at].has(path)).or_else(|| {
            // A front server that knows the mount has cut it off: nginx with `uwsgi_param SCRIPT_NAME /shop`.
            if !request.head.is_from_gateway() || !self.root_path.is_empty() {
                return None;
            }
            let script = request.head.gateway.script.of(request.bytes);
            if script.is_empty() {
                return None;
            }
            order.find(|&at| points[at].path == script)
        });
        Ok(found.map_or(AppPlace::UNMOUNTED, |at| AppPlace(at + 1)))
    }

    /// Reads the path, decoded and below the root path, and the host.
    fn read(&mut self, request: &Request<'_>) -> PyResult<()> {
        let (head, bytes) = (request.head, request.bytes);
        self.path.clear();
        self.path.shrink_to(KEPT_MAX);
        self.host.clear();
        self.host.shrink_to(KEPT_MAX);
        // Decoding makes nothing longer, and neither is longer than the head.
        let of_gateway = head.gateway.script.len() + head.gateway.path.len();
        let longest = head.target.len() + if head.is_from_gateway() { of_gateway } else { 0 };
        self.path.try_reserve(longest).map_err(|_| PyMemoryError::new_err(()))?;
        let mut authority = None;
        if head.is_from_gateway() {
            // Where there is a root path it takes the place of what the gateway says.
            if !self.root_path.is_empty() {
                self.path.extend_from_slice(head.gateway.script.of(bytes));
            }
            self.path.extend_from_slice(head.gateway.path.of(bytes));
        } else if let Ok(target) = Target::of(head, bytes) {
            percent_decode(target.path(bytes), &mut self.path);
            authority = Some(target.authority.of(bytes)).filter(|authority| !authority.is_empty());
        }
        let cut = self.path.len() - below(&self.path, &self.root_path).len();
        self.path.drain(..cut);
        if self.by_host {
            // The authority of an absolute form takes the place of the field (RFC 9112 section 3.2.2).
            let field = || head.iter(bytes).find(|(name, _)| name.eq_ignore_ascii_case(b"host")).map(|(_, value)| value);
            // What a trusted proxy tells takes the place of both.
            let told = Some(head.assigned.host.of_any(bytes)).filter(|host| !host.is_empty());
            canonical_host(told.or(authority).or_else(field).unwrap_or_default(), &mut self.host);
        }
        Ok(())
    }
}
