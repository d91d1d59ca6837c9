//! The application of a worker with `--reload`: the loaded one, with the page before it; or the page alone, where none could be
//! loaded.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::channel::Breakage;
use crate::http::head::Span;
use crate::http::response::{Context, Encoder, End};
use crate::http::terms::Terms;
use crate::worker::app::{App, Fate, Interrupter, LifeHooks, ModuleSources, Outlet, Reply, Request, Summary};

use super::BreakageState;
use super::page::{html, plain};

/// Name of the threads of a worker whose application could not be loaded (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-page";

/// An application that may be broken.
pub struct BreakableApp {
    /// The one that was loaded last; `None`: none could be.
    app: Option<Box<dyn App>>,
    state: BreakageState,
}

impl BreakableApp {
    /// With the loaded application.
    pub fn new(app: Box<dyn App>, state: BreakageState) -> Self {
        Self { app: Some(app), state }
    }

    /// Without one, which is why the state has a breakage.
    pub fn none(state: BreakageState) -> Self {
        Self { app: None, state }
    }
}

/// Whether the request is one of a person who looks at a page.
fn is_of_browser(request: &Request<'_>) -> bool {
    let method = request.head.method.of(request.bytes);
    let accepts_html = |(name, value): (&[u8], &[u8])| {
        name.eq_ignore_ascii_case(b"accept") && value.to_ascii_lowercase().windows(HTML.len()).any(|part| part == HTML)
    };
    (method == b"GET" || method == b"HEAD") && request.head.iter(request.bytes).any(accepts_html)
}

/// The type that browsers ask for, and programs do not.
const HTML: &[u8] = b"text/html";

/// Renders the page, or the same as text.
fn show(breakage: &Breakage, request: &Request<'_>, out: &mut Vec<u8>) -> Summary {
    let (kind, body): (&[u8], String) = match is_of_browser(request) {
        true => (b"text/html; charset=utf-8", html(breakage)),
        false => (b"text/plain; charset=utf-8", plain(breakage)),
    };
    let terms = Terms { stale: true, ..request.terms };
    let from = out.len();
    let mut encoder = Encoder::begin(out, &Context { terms, ..request.context() }, b"500 Internal Server Error")
        .expect("three digits and a reason are a valid status");
    for (name, value) in [(&b"Content-Type"[..], kind), (b"Cache-Control", b"no-store")] {
        encoder.field(name, value).expect("a constant field without controls is valid");
    }
    let mut framing = encoder.finish(Some(body.len() as u64));
    let head = Span::new(from, out.len());
    framing.block(out, body.as_bytes());
    let fate = match framing.end(out) {
        End::Complete { persistent: true } => Fate::Keep,
        End::Complete { persistent: false } | End::Short(_) => Fate::Close,
    };
    Summary { status: framing.status, sent: framing.sent(), head, fate, ..Summary::default() }
}

impl App for BreakableApp {
    fn call(&mut self, mut request: Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        let breakage = self.state.get();
        match (&mut self.app, breakage) {
            (Some(app), None) => app.call(request, out, outlet),
            (Some(app), Some(breakage)) => {
                if is_of_browser(&request) {
                    return Reply::Complete(show(&breakage, &request, out));
                }
                request.terms.stale = true;
                app.call(request, out, outlet)
            }
            (None, breakage) => {
                let unknown = || Arc::new(Breakage { saved: 0, text: "the application could not be loaded".into() });
                Reply::Complete(show(&breakage.unwrap_or_else(unknown), &request, out))
            }
        }
    }

    fn release(&mut self) {
        if let Some(app) = &mut self.app {
            app.release();
        }
    }

    fn enter(&mut self) {
        if let Some(app) = &mut self.app {
            app.enter();
        }
    }

    fn together(&self) -> fn(&mut dyn FnMut()) {
        self.app.as_ref().map_or(|steps| steps(), |app| app.together())
    }

    fn is_alone(&self) -> bool {
        self.app.as_ref().is_some_and(|app| app.is_alone())
    }

    fn signalled(&mut self) {
        if let Some(app) = &mut self.app {
            app.signalled();
        }
    }

    fn tell_signals(&mut self, pipe: OwnedFd) {
        if let Some(app) = &mut self.app {
            app.tell_signals(pipe);
        }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> io::Result<()> {
        let state = self.state.clone();
        match &self.app {
            Some(app) => app.spawn(name, Box::new(move |app| body(Box::new(Self::new(app, state))))),
            None => {
                let thread = std::thread::Builder::new().name(THREAD.to_owned());
                thread.spawn(move || body(Box::new(Self::none(state)))).map(drop)
            }
        }
    }

    fn logged(&self) -> &[Option<String>] {
        self.app.as_ref().map_or(&[], |app| app.logged())
    }

    fn take_logged(&mut self) -> Vec<Option<String>> {
        self.app.as_mut().map_or_else(Vec::new, |app| app.take_logged())
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupter>> {
        self.app.as_ref()?.interrupter()
    }

    fn life_hooks(&self) -> Option<Arc<dyn LifeHooks>> {
        self.app.as_ref()?.life_hooks()
    }

    fn sources(&self) -> Option<Arc<dyn ModuleSources>> {
        self.app.as_ref()?.sources()
    }

    fn settle(&mut self) -> bool {
        self.app.as_mut().is_some_and(|app| app.settle())
    }

    fn finish(&mut self) {
        if let Some(app) = &mut self.app {
            app.finish();
        }
    }
}
