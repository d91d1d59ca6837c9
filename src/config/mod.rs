//! Checked, immutable settings. Values come from defaults, environment, file and command line (low to high); each keeps its
//! origin. Nothing here touches the system: an address is text with a checked form, a path is a path.

mod app_spec;
mod bind;
pub mod call;
pub mod control;
pub mod environment;
mod error;
pub mod file;
mod fixed;
pub mod gunicorn;
pub mod hooks;
mod logs;
mod merge;
mod notice;
pub mod options;
mod origin;
mod paths;
mod print;
mod reload;
mod settings;
pub mod signals;
mod static_files;
pub mod statsd;
mod tls;
mod trusted;
pub mod uwsgi;
mod value;
mod warmup;

pub use crate::protocol::Protocol;
pub use app_spec::{AppSpec, Callable, Code};
pub use bind::{Bind, Endpoint};
pub use control::ControlSocket;
pub use error::{Error, shown};
pub use fixed::keep_fixed;
pub use logs::{AccessFormat, Level, LogConfig, LogTarget};
pub use merge::{Configuration, merge};
pub use notice::Notice;
pub use origin::{Given, Origin};
pub use print::{line_of, to_toml};
pub use reload::{ReloadMode, WatchEngine};
pub use settings::{NO_SECRET, PythonSettings, Settings};
pub use static_files::{Expires, HASHED_NAMES, ImmutableNames, LinkPolicy, MimeType, StaticFiles, StaticMap};
pub use statsd::StatsdTarget;
pub use tls::{ClientCertificates, PairFiles, TlsSettings, TlsVersion};
pub use trusted::{Network, Trusted};
pub use warmup::Warmup;
