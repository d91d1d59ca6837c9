//! The [`App`] that calls a WSGI application: the way of one request through Python.
//!
//! open the exchange → environ → call → (common results: render at once) or (others: an [`Answer`] that the loop advances)

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::answer::{self, Answer, COPY_MAX};
use super::environ::{Builder, ListenerEnviron, SharedObjects};
use super::errors::{Errors, Lines};
use super::failure::{self, Failure};
use super::file_wrapper::FileWrapper;
use super::finish;
use super::hijack::{OfferedSocket, Upgrades};
use super::hooks::WorkerHooks;
use super::input::Input;
use super::mounts::{AppPlace, Callables, Mounts};
use super::signals;
use super::sources::LoadedSources;
use super::start::{WorkerStart, load_app};
use super::start_response::{Factory, StartResponse};
use super::thread::{self, Detached};
use super::timeout::Interrupt;
use crate::channel::BootError;
use crate::config::{Mount, Settings};
use crate::http::response::{Context, End, Fit};
use crate::log::error::Log;
use crate::log::escape::TryText;
use crate::worker::app::{
    App, Interrupter, LifeHooks, ModuleSources, Outlet, Renounce, Reply, Request, RequestBody, Summary, ToldSources, WorkerFacts,
};

/// A WSGI application on the thread that loaded it.
pub struct Wsgi {
    plan: Arc<Plan>,
    callables: Callables,
    mounts: Mounts,
    environ: Builder,
    factory: Factory,
    /// The `start_response` of the last request, if the application let go of it.
    spare: Option<StartResponse>,
    upgrades: Upgrades,
    /// The connection that the running call may take over.
    offer: Option<OfferedSocket>,
    errors: Arc<Lines>,
    names: Vec<Py<PyString>>,
    logged: Vec<Option<String>>,
    log: Log,
    interrupt: Arc<Interrupt>,
    /// Set while the thread does not have the GIL.
    detached: Option<Detached>,
}

/// Renders an answer of the server's own.
type OwnAnswer = fn(&mut Vec<u8>, &Context<'_>) -> Summary;

/// The settings from which every thread prepares the application.
pub struct Plan {
    /// The listeners, in order.
    pub listeners: Vec<ListenerEnviron>,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `wsgi.run_once`.
    pub run_once: bool,
    /// The error log.
    pub log: Log,
    /// Environ variables for the access log.
    pub environ_names: Vec<String>,
    /// `--root-path`.
    pub root_path: String,
    /// `--mount`.
    pub mounts: Vec<Mount>,
    /// Whether X-Forwarded-Proto of a trusted peer sets the scheme: without `--trusted-proxy-headers`.
    pub believes_proto: bool,
    /// The hooks of the worker, if there are any.
    pub hooks: Option<Arc<WorkerHooks>>,
    /// Where the application was loaded from, if somebody asks.
    pub sources: Option<Arc<LoadedSources>>,
}

impl Plan {
    /// For one of so many workers of a server.
    pub fn new(
        settings: &Settings,
        listeners: Vec<ListenerEnviron>,
        workers: usize,
        log: Log,
        environ_names: Vec<String>,
    ) -> Self {
        Self {
            listeners,
            multithread: settings.threads > 1,
            multiprocess: workers > 1,
            run_once: false,
            log,
            environ_names,
            root_path: settings.root_path.clone(),
            mounts: settings.mounts.clone(),
            believes_proto: settings.trusted_proxy_headers.is_empty(),
            hooks: None,
            sources: None,
        }
    }

    /// For a process that serves one request, beside others.
    fn for_one_request(self) -> Self {
        Self { multithread: false, multiprocess: true, run_once: true, ..self }
    }

    /// With these hooks and sources.
    pub fn with(self, hooks: Option<Arc<WorkerHooks>>, sources: Option<Arc<LoadedSources>>) -> Arc<Self> {
        Arc::new(Self { hooks, sources, ..self })
    }
}

/// All that an application is started with.
pub struct AppStart<'a> {
    /// Settings of this generation.
    pub settings: &'a Settings,
    /// The listeners, in order.
    pub listeners: Vec<ListenerEnviron>,
    /// Workers in all.
    pub workers: usize,
    /// Whether the process is for one request, and others serve others (CGI).
    pub run_once: bool,
    /// Children that the application forks call it first.
    pub renounce: &'a Renounce,
    /// What hooks learn of the worker.
    pub facts: &'a WorkerFacts,
    /// To be told where the application was loaded from; `None`: nobody asks.
    pub told: Option<&'a ToldSources>,
    /// The error log.
    pub log: Log,
    /// Environ variables that [`App::logged`] returns after each call.
    pub environ_names: Vec<String>,
    /// A descriptor, open for the life of the process, for the stacks of all Python threads when a signal ends it.
    pub stacks: Option<i32>,
}

impl Wsgi {
    /// Starts the interpreter on this thread and loads the application. The working directory and the environment must be set
    /// already.
    #[allow(clippy::new_ret_no_self, reason = "what the worker needs is the trait, and the type stays on this side")]
    pub fn new(start: AppStart<'_>) -> Result<Box<dyn App>, BootError> {
        let AppStart { settings, listeners, workers, run_once, renounce, facts, told, log, environ_names, stacks } = start;
        let loaded = load_app(settings, workers, &log, Some(&WorkerStart { renounce, facts, told }), stacks)?;
        let plan = Plan::new(settings, listeners, workers, log, environ_names);
        let plan = if run_once { plan.for_one_request() } else { plan };
        Self::assemble(plan.with(loaded.hooks, loaded.sources), loaded.callables)
    }

    /// The applications as the calling thread serves them.
    pub(super) fn assemble(plan: Arc<Plan>, callables: Callables) -> Result<Box<dyn App>, BootError> {
        Python::attach(|py| {
            Self::prepare(py, callables, plan)
                .map(|wsgi| Box::new(wsgi) as Box<dyn App>)
                .map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })
        })
    }

    /// Prepares all that requests of the calling thread share.
    pub fn prepare(py: Python<'_>, callables: Callables, plan: Arc<Plan>) -> PyResult<Self> {
        let mounts = Mounts::new(&plan.mounts, &plan.root_path);
        let errors = Lines::new(plan.log.clone());
        let shared = SharedObjects {
            empty_input: Bound::new(py, Input::new(RequestBody::Empty))?.into_any(),
            errors: Bound::new(py, Errors(errors.clone()))?.into_any(),
            file_wrapper: py.get_type::<FileWrapper>().into_any(),
            multithread: plan.multithread,
            multiprocess: plan.multiprocess,
            run_once: plan.run_once,
            root_path: plan.root_path.clone().into_bytes(),
            believes_proto: plan.believes_proto,
        };
        Ok(Self {
            environ: Builder::new(py, &plan.listeners, &shared, mounts.points())?,
            callables,
            mounts,
            factory: Factory::new(py)?,
            spare: None,
            upgrades: Upgrades::default(),
            offer: None,
            errors,
            names: plan.environ_names.iter().map(|name| PyString::new(py, name).unbind()).collect(),
            logged: Vec::new(),
            log: plan.log.clone(),
            interrupt: Interrupt::here(plan.log.clone()),
            detached: None,
            plan,
        })
    }

    fn serve(&mut self, py: Python<'_>, request: &mut Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        let mark = out.len();
        let place = match self.callables.is_one() {
            true => AppPlace::UNMOUNTED,
            false => match self.place(py, request) {
                Ok(place) => place,
                Err(answer) => return Reply::Complete(answer(out, &request.context())),
            },
        };
        let start_response = match self.spare.take().map_or_else(|| self.factory.make(py), Ok) {
            Ok(start_response) => start_response,
            Err(error) => {
                self.log.critical(format_args!("{}: {}", line(request), failure::traceback(py, &error)));
                return Reply::Complete(answer::refuse(out, &request.context()));
            }
        };
        start_response.exchange(py).borrow_mut().open(request.terms, request.date, request.id(), request.client.clone());

        let result = match self.call_app(py, request, place, &start_response, out, outlet) {
            Ok(result) if self.offer.is_none() => {
                self.errors.flush();
                result
            }
            result => match self.settle(py, result, request) {
                Ok(Ok(result)) => result,
                Ok(Err(failure)) => {
                    let mut answer = Answer::none(start_response, line(request), self.log.clone());
                    // The output of `write()` has sent the earlier answers with it.
                    let mark = mark.min(out.len());
                    return Reply::Complete(answer.fail(py, &failure, out, mark));
                }
                Err(summary) => {
                    self.spare = start_response.retire(py);
                    return Reply::Complete(summary);
                }
            },
        };
        if let Some(summary) = complete(&start_response, &result, out, request, &self.log) {
            self.spare = start_response.retire(py);
            return Reply::Complete(summary);
        }
        let mut answer = Answer::none(start_response, line(request), self.log.clone());
        match answer.prepare(py, &result, out, outlet) {
            Err(failure) => {
                let mark = mark.min(out.len());
                Reply::Complete(answer.fail(py, &failure, out, mark))
            }
            Ok(()) => Reply::Blocks(Box::new(answer)),
        }
    }

    /// What follows from a call that has failed, or might have taken the connection over. `Err`: it has.
    #[cold]
    fn settle<'py>(
        &mut self,
        py: Python<'py>,
        result: Result<Bound<'py, PyAny>, Failure>,
        request: &Request<'_>,
    ) -> Result<Result<Bound<'py, PyAny>, Failure>, Summary> {
        self.errors.flush();
        match self.offer.take() {
            Some(offer) => offer.end(py, result, &line(request), &self.log).map_or_else(Ok, Err),
            None => Ok(result),
        }
    }

    /// The place of the application that has the request, or the answer where there is none.
    #[cold]
    fn place(&mut self, py: Python<'_>, request: &Request<'_>) -> Result<AppPlace, OwnAnswer> {
        let answer: OwnAnswer = match self.mounts.place(request) {
            Ok(place) if self.callables.at(place).is_some() => return Ok(place),
            Ok(_) => answer::not_found,
            Err(error) => {
                self.log.critical(format_args!("{}: {}", line(request), failure::traceback(py, &error)));
                answer::refuse
            }
        };
        // Without a call there is no environ, nor what an earlier one had.
        self.logged.clear();
        Err(answer)
    }

    fn call_app<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request<'_>,
        place: AppPlace,
        start_response: &StartResponse,
        out: &mut Vec<u8>,
        outlet: &mut dyn Outlet,
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let body = std::mem::take(&mut request.body);
        let body_len = body.len();
        let input = if body_len == 0 { None } else { Some(Bound::new(py, Input::new(body))?.into_any()) };
        let environ = self.environ.build(py, request, place, body_len, input.as_ref(), start_response.offers())?;
        if let Some(takeover) = &request.upgrade
            && self.plan.multithread
        {
            self.offer = Some(self.upgrades.offer(&environ, takeover)?);
        }
        let callable = self.callables.at(place).expect("requests of no application are answered").bind(py);
        let result = start_response.lend(py, out, outlet, || callable.call1((&environ, start_response.callable(py))));
        if !self.names.is_empty() {
            self.logged = self.names.iter().map(|name| logged(&environ, name)).collect();
        }
        self.environ.take_back(&environ);
        Ok(result?)
    }
}

/// Renders the common results at once: a list or tuple with one small block. `None` leaves the result to an [`Answer`].
fn complete(
    start_response: &StartResponse,
    result: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    request: &Request<'_>,
    log: &Log,
) -> Option<Summary> {
    let py = result.py();
    let item = if let Ok(list) = result.cast_exact::<PyList>() {
        if list.len() != 1 {
            return None;
        }
        list.get_item(0).ok()?
    } else if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        if tuple.len() != 1 {
            return None;
        }
        tuple.get_item(0).ok()?
    } else {
        return None;
    };
    let data = item.cast_exact::<PyBytes>().ok()?.as_bytes();
    let mut exchange = start_response.exchange(py).borrow_mut();
    if data.is_empty() || data.len() > COPY_MAX || exchange.is_sent() {
        return None;
    }
    let body = exchange.head(Some(data.len() as u64), out)?;
    let fit = body.block(out, data);
    let end = body.end(out);
    match fit {
        Fit::All => {}
        Fit::Cut(excess) => answer::log_excess(log, &line(request), excess),
    }
    if let End::Short(missing) = end {
        answer::log_short(log, &line(request), missing);
    }
    let (status, sent, fate) = (body.status, body.sent(), answer::fate(end, body.until_close()));
    Some(Summary { status, sent, head: exchange.place(), fate, failed: false })
}

fn logged(environ: &Bound<'_, PyDict>, name: &Py<PyString>) -> Option<String> {
    let text = environ.get_item(name).ok()??.str().ok()?;
    let text = match text.to_str() {
        Err(error) if error.is_instance_of::<PyMemoryError>(environ.py()) => return None,
        Ok(text) => Cow::Borrowed(text),
        Err(_) => text.to_string_lossy(),
    };
    let mut value = String::new();
    value.try_reserve_exact(text.len()).ok()?;
    value.push_str(&text);
    Some(value)
}

/// Method and target, and the name of the request where it has got one, for the log, as far as there is memory for them.
fn line(request: &Request<'_>) -> String {
    let mut line = TryText::default();
    let (method, target) = (request.head.method.of(request.bytes), request.head.target.of(request.bytes));
    let id = request.id();
    let before: &[u8] = if id.is_empty() { b"" } else { b", request id " };
    let words = [method, b" ", target, before, id].into_iter().flat_map(<[u8]>::utf8_chunks);
    let mut pieces = words.flat_map(|chunk| [chunk.valid(), if chunk.invalid().is_empty() { "" } else { "\u{FFFD}" }]);
    let _ = pieces.try_for_each(|piece| line.write_str(piece));
    line.into_string()
}

impl App for Wsgi {
    fn call(&mut self, mut request: Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        self.detached = None;
        let mark = out.len();
        let result = catch_unwind(AssertUnwindSafe(|| Python::attach(|py| self.serve(py, &mut request, out, outlet))));
        result.unwrap_or_else(|_| {
            let line = String::from_utf8_lossy(request.head.line.of(request.bytes));
            self.log.critical(format_args!("{line}: the server failed while it called the application"));
            out.truncate(mark.min(out.len()));
            let taken = self.offer.take().and_then(OfferedSocket::abandon);
            Reply::Complete(taken.unwrap_or_else(|| answer::refuse(out, &request.context())))
        })
    }

    fn release(&mut self) {
        if self.detached.is_none() {
            self.detached = Some(Detached::new());
        }
    }

    fn enter(&mut self) {
        self.detached = None;
    }

    /// Within one `Python::attach` another one costs a counter instead of a tenth of a small block.
    fn together(&self) -> fn(&mut dyn FnMut()) {
        |steps| Python::attach(|_| steps())
    }

    fn is_alone(&self) -> bool {
        self.detached.is_none() && thread::is_only()
    }

    fn signalled(&mut self) {
        self.detached = None;
        Python::attach(|py| signals::handle(py, &self.log));
    }

    fn tell_signals(&mut self, pipe: OwnedFd) {
        self.detached = None;
        Python::attach(|py| {
            // Signals that came while the application was loaded: no byte in the pipe will announce them.
            signals::handle(py, &self.log);
            if let Err(error) = signals::tell(py, pipe) {
                let error = failure::traceback(py, &error);
                self.log.error(format_args!("signal handlers of the application may run late: {error}"));
            }
        });
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> io::Result<()> {
        Python::attach(|py| {
            let (callables, plan) = (self.callables.clone_ref(py), self.plan.clone());
            thread::start(py, name, move || {
                let log = plan.log.clone();
                match Python::attach(|py| Self::prepare(py, callables, plan).map_err(|error| failure::traceback(py, &error))) {
                    Ok(wsgi) => body(Box::new(wsgi)),
                    Err(error) => log.critical(format_args!("a thread cannot prepare the application: {error}")),
                }
            })
            .map_err(|error| io::Error::other(failure::traceback(py, &error)))
        })
    }

    fn logged(&self) -> &[Option<String>] {
        &self.logged
    }

    fn take_logged(&mut self) -> Vec<Option<String>> {
        std::mem::take(&mut self.logged)
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupter>> {
        Some(self.interrupt.clone())
    }

    fn life_hooks(&self) -> Option<Arc<dyn LifeHooks>> {
        self.plan.hooks.clone().map(|hooks| hooks as Arc<dyn LifeHooks>)
    }

    fn sources(&self) -> Option<Arc<dyn ModuleSources>> {
        self.plan.sources.clone().map(|sources| sources as Arc<dyn ModuleSources>)
    }

    fn settle(&mut self) -> bool {
        self.detached = None;
        Python::attach(|py| self.interrupt.settle(py))
    }

    fn finish(&mut self) {
        self.detached = None;
        self.errors.flush();
        Python::attach(|py| {
            if let Some(hooks) = &self.plan.hooks {
                hooks.exit(py);
            }
            finish::run(py, &self.log);
        });
    }
}
