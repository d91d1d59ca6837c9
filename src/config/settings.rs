//! Every setting, one field for each option.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::Protocol;
use crate::protocol::proxy::Accept;

use super::app_spec::AppSpec;
use super::bind::{Bind, Endpoint};
use super::control::ControlSocket;
use super::hooks::Hooks;
use super::logs::{AccessFormat, Level, LogConfig, LogTarget};
use super::mounts::Mount;
use super::proxy_headers::ProxyHeader;
use super::reload::{ReloadMode, WatchEngine};
use super::static_files::StaticFiles;
use super::statsd::StatsdTarget;
use super::tls::TlsSettings;
use super::trusted::Trusted;
use super::warmup::Warmup;

/// How the application's interpreter is set up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PythonSettings {
    /// Virtual environment: `--venv`, else an active VIRTUAL_ENV.
    #[serde(with = "super::paths")]
    pub venv: Option<PathBuf>,
    /// Directories put on `sys.path` after the working directory.
    #[serde(with = "super::paths")]
    pub pythonpath: Vec<PathBuf>,
}

impl PythonSettings {
    /// The same for a process that has not entered `--chdir` yet, to which their paths are relative.
    pub fn before(mut self, chdir: Option<&Path>) -> Self {
        if let Some(chdir) = chdir {
            self.venv = self.venv.map(|venv| chdir.join(venv));
            self.pythonpath.iter_mut().for_each(|entry| *entry = chdir.join(&*entry));
        }
        self
    }
}

/// Why an address is refused where [`Settings::lacks_secret`].
pub const NO_SECRET: &str =
    "speaks AJP to other machines, which needs a secret: give --ajp-secret, or listen on 127.0.0.1, [::1] or a unix socket";

/// Declares the settings, and their blank state with the same fields. That is not their `Default`, which is what a start without
/// any option has.
macro_rules! settings {
    ($(#[$about:meta])* pub struct Settings { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        pub struct Settings { $($(#[$doc])* pub $field: $type,)* }

        impl Settings {
            /// Whether AJP is spoken at this address and no secret asked for: then only this machine may connect.
            pub fn lacks_secret(&self, bind: &Bind) -> bool {
                self.protocol_at(bind) == Protocol::Ajp && self.ajp_secret.is_none()
            }

            /// The protocol that is spoken at this address.
            pub fn protocol_at(&self, bind: &Bind) -> Protocol {
                bind.protocol.unwrap_or(self.protocol)
            }

            /// Whether TLS is spoken at this address: where `https` says so, and at each of TCP that names no protocol, once there is a
            /// certificate. `is_unix`: it is a unix socket, which an inherited one shows only when it is taken over.
            pub fn encrypts(&self, bind: &Bind, is_unix: bool) -> bool {
                let by_default = bind.protocol.is_none() && self.protocol == Protocol::Http && !is_unix;
                bind.https || self.tls.is_some() && by_default
            }

            /// What the rows of the table start from: not set, or empty until the row's default is put in.
            pub(super) fn blank() -> Self {
                Self { $($field: Default::default(),)* }
            }
        }
    };
}

settings! {
    /// Everything that the operator has set, checked.
    ///
    /// A worker that executes itself afresh gets them as JSON ([`crate::birth`]).
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Settings {
        /// What to serve.
        pub app: AppSpec,
        /// `--mount`, in order; none has host and path of another one.
        pub mounts: Vec<Mount>,
        /// `-b/--bind`, at least one; default 127.0.0.1:8000.
        pub binds: Vec<Bind>,
        /// `--protocol`: of addresses that name none; default HTTP.
        pub protocol: Protocol,
        /// `--gateway-allow-from`; default 127.0.0.1,::1 and unix sockets.
        pub gateway_allow_from: Trusted,
        /// `--ajp-secret`: what fronts that speak AJP have to send.
        pub ajp_secret: Option<String>,
        /// `--root-path`: where the application is mounted, empty or with a slash at its begin and none at its end; decoded.
        pub root_path: String,
        /// `--static-map` and what belongs to it; default: no files are sent.
        pub static_files: StaticFiles,
        /// `--certfile` and what belongs to it; `None`: no address is encrypted.
        pub tls: Option<TlsSettings>,
        /// `--tls-watch`: pause between two looks at the files of TLS; 0 = they are read at a reload only; default 1 min.
        pub tls_watch: Duration,
        /// `--backlog`: length of each accept queue; default 2048.
        pub backlog: u32,
        /// `--defer-accept`: TCP_DEFER_ACCEPT in whole seconds, 0 = off; default 5 s.
        pub defer_accept: Duration,
        /// `-w/--workers`; `None` = auto: the usable cores, one for a server that a web server has started.
        pub workers: Option<usize>,
        /// `--threads`: requests that one worker has in the application at once; default 1.
        pub threads: usize,
        /// `--max-queue`: complete requests of one worker that may wait for the application; 0 = none; default 2048.
        pub max_queue: usize,
        /// `--queue-timeout`: longest wait of such a request; 0 = no limit; default 30 s.
        pub queue_timeout: Duration,
        /// `--no-lending`: whether connections stay in the worker that accepted them; default off.
        pub no_lending: bool,
        /// `--worker-connections`: most open connections per worker; default 16384.
        pub worker_connections: usize,
        /// `--max-requests`: a worker is replaced after so many; 0 = never (the default).
        pub max_requests: u64,
        /// `--max-requests-jitter`: up to so many more, at random for each worker; default 0.
        pub max_requests_jitter: u64,
        /// `--max-worker-rss`: a worker with more resident memory in bytes is replaced; 0 = never (the default).
        pub max_worker_rss: u64,
        /// `--max-worker-age`: a worker is replaced after this time; 0 = never (the default).
        pub max_worker_age: Duration,
        /// `--reload`; default off.
        pub reload: ReloadMode,
        /// `--debug`: whether one process serves, and has no master; default off.
        pub debug: bool,
        /// `--reload-engine`; default auto, which is the kernel's events.
        pub reload_engine: WatchEngine,
        /// `--reload-extra-file`: files and directories whose change reloads too, relative to where the server was started.
        #[serde(with = "super::paths")]
        pub reload_extra_files: Vec<PathBuf>,
        /// `--reload-surge`: workers beyond the number of workers while a new generation takes over; default 1.
        pub reload_surge: usize,
        /// `--preload`: whether the application is loaded once, for all workers; default off. See [`Settings::uses_mold`].
        pub preload: bool,
        /// `--warmup`: request that a worker answers to itself before it is ready.
        pub warmup: Option<Warmup>,
        /// `--warmup-requests`: how often; default 1.
        pub warmup_requests: u64,
        /// `-t/--timeout`: how long the application may take for one step of an answer; 0 = no limit; default 30 s.
        pub timeout: Duration,
        /// `--timeout-grace`: how much longer it may take once an exception is raised in it; 0 = none is raised; default 1 s.
        pub timeout_grace: Duration,
        /// `--boot-timeout`: how long a worker may take until it is ready; 0 = no limit; default 60 s.
        pub boot_timeout: Duration,
        /// `--graceful-timeout`: how long a drain may take; default 30 s.
        pub graceful_timeout: Duration,
        /// `--keep-alive`: how long an idle connection is kept; 0 = no keep-alive; default 5 s.
        pub keep_alive: Duration,
        /// `--header-timeout`: time for a whole head from its first byte (or from accept); beyond it 408; default 30 s.
        pub header_timeout: Duration,
        /// `--body-timeout`: longest pause between two reads of a body; beyond it 408; default 60 s.
        pub body_timeout: Duration,
        /// `--write-timeout`: longest time that a client takes no byte of its answer; default 60 s.
        pub write_timeout: Duration,
        /// `--limit-request-line`: bytes; default 8190.
        pub limit_request_line: usize,
        /// `--limit-request-fields`; default 100.
        pub limit_request_fields: usize,
        /// `--limit-request-field_size` (also spelled `--limit-request-field-size`): bytes; default 8190.
        pub limit_request_field_size: usize,
        /// `--limit-request-head`: bytes of request line and header fields together; default 64 KiB.
        pub limit_request_head: usize,
        /// `--limit-request-body`: bytes; default 1 GiB; 0 = no limit.
        pub limit_request_body: u64,
        /// `--limit-spool`: bytes that all workers have in temporary files; default 4 GiB, four of the largest bodies; 0 = no
        /// limit.
        pub limit_spool: u64,
        /// `--body-buffer`: bytes of a body kept in memory before it is spooled to a file; default 2 MiB, what a worker's budget
        /// for bodies has for 32 connections at once.
        pub body_buffer: usize,
        /// `--chdir`: working directory, changed to before the application is loaded.
        #[serde(with = "super::paths")]
        pub chdir: Option<PathBuf>,
        /// Interpreter.
        pub python: PythonSettings,
        /// `-e/--env KEY=VALUE`, in order.
        pub env: Vec<(String, String)>,
        /// `-m/--umask`; `None` = inherited.
        pub umask: Option<u32>,
        /// `--access-logfile`; `None` = no access log (the default).
        pub access_log: Option<LogTarget>,
        /// `--access-logformat`.
        pub access_format: AccessFormat,
        /// `--error-logfile`; default stderr.
        pub error_log: LogTarget,
        /// `--log-level`; default info.
        pub log_level: Level,
        /// `--log-syslog`: socket of the system log, for the logs that would go to a standard stream.
        #[serde(with = "super::paths")]
        pub syslog: Option<PathBuf>,
        /// `--log-config`: how workers set up Python's `logging`.
        pub log_config: Option<LogConfig>,
        /// `--capture-output`; default off.
        pub capture_output: bool,
        /// `--boot-profile`; default off.
        pub boot_profile: bool,
        /// `-D/--daemon`; default off.
        pub daemon: bool,
        /// `-p/--pid`: file for the process id of the master.
        #[serde(with = "super::paths")]
        pub pid_file: Option<PathBuf>,
        /// `-u/--user`: name or number.
        pub user: Option<String>,
        /// `-g/--group`: name or number.
        pub group: Option<String>,
        /// `-n/--name`: for process titles.
        pub name: Option<String>,
        /// `--status-bind`: where figures are shown; none by default.
        pub status_binds: Vec<Endpoint>,
        /// `--statsd-host`: where metrics are sent to; nowhere by default.
        pub statsd_host: Option<StatsdTarget>,
        /// The address of that host, once it was looked up.
        pub statsd_address: Option<SocketAddr>,
        /// `--statsd-prefix`: in front of their names, with its point; default empty.
        pub statsd_prefix: String,
        /// `--dogstatsd-tags`: of each metric; default none.
        pub dogstatsd_tags: String,
        /// `--enable-backlog-metric`: whether the backlog is sent too; default off.
        pub backlog_metric: bool,
        /// `--control-socket`; default: on where there is a place for it.
        pub control_socket: ControlSocket,
        /// `--control-socket-mode`: of its file; default 0600.
        pub control_socket_mode: u32,
        /// The configuration file that was read, if there is one and it is no module: TOML, or gunicorn's; relative to where the
        /// server was started.
        #[serde(with = "super::paths")]
        pub config_file: Option<PathBuf>,
        /// The functions of a gunicorn file that the server calls; `None`: there is no such file, or it defines none.
        pub hooks: Option<Hooks>,
        /// Whether the command line or the file gives `--bind`: then sockets that a service manager has opened are not used.
        pub binds_given: bool,
        /// `--forwarded-allow-ips`; default 127.0.0.1,::1 and unix sockets.
        pub forwarded_allow_ips: Trusted,
        /// `--trusted-proxy-headers`: which fields of the proxies that are trusted say who the client is, of one family; default:
        /// none.
        pub trusted_proxy_headers: Vec<ProxyHeader>,
        /// `--clear-untrusted-proxy-headers`: whether such fields are hidden from the application where they are not believed.
        pub clear_untrusted_proxy_headers: bool,
        /// `--request-id`: whether each request gets an X-Request-ID.
        pub request_id: bool,
        /// `--proxy-protocol`: which versions of it; `None`: off.
        pub proxy_protocol: Option<Accept>,
        /// `--proxy-allow-from`; default 127.0.0.1,::1 and unix sockets.
        pub proxy_allow_from: Trusted,
        /// `--ready-fd N`: written `READY <addresses>\n` once every worker is ready, closed on failure.
        pub ready_fd: Option<i32>,
    }
}

impl Settings {
    /// Whether a web server has started this one, with a listening socket as standard input, and nothing says where else to listen. It
    /// is seen by the addresses, which outlive reloads and upgrades.
    pub fn is_spawned(&self) -> bool {
        !self.binds_given && self.binds.iter().any(|bind| bind.endpoint == Endpoint::Fd(0))
    }

    /// Whether requests of no mount have an application. Where there are mounts and no APP they have none: a welcome page would stand
    /// in for what the operator has left out.
    pub fn serves_unmounted(&self) -> bool {
        self.mounts.is_empty() || self.app != AppSpec::Welcome
    }

    /// All applications: that of requests of no mount, if there is one, and those of the mounts.
    pub fn apps(&self) -> impl Iterator<Item = &AppSpec> {
        self.serves_unmounted().then_some(&self.app).into_iter().chain(self.mounts.iter().map(|mount| &mount.app))
    }

    /// The application that the server is named after.
    pub fn first_app(&self) -> &AppSpec {
        self.apps().next().unwrap_or(&self.app)
    }

    /// Threads of one worker that serve: one more than requests in the application, so that one is always free for the sockets.
    pub fn all_threads(&self) -> usize {
        self.threads + 1
    }

    /// Whether the workers are forks of a process that has loaded the application (`--preload`). Not with `--reload`, where each
    /// worker says what it has loaded, nor with `--debug`, where there are no forks, and not for an object, of whose process the workers are forks anyway.
    pub fn uses_mold(&self) -> bool {
        self.preload && !self.debug && self.watch().is_none() && !matches!(self.app, AppSpec::Object { .. })
    }

    /// How changes of the sources are noticed; `None`: they are not.
    pub fn watch(&self) -> Option<WatchEngine> {
        match self.reload {
            ReloadMode::Off => None,
            ReloadMode::On => Some(self.reload_engine),
            ReloadMode::By(engine) => Some(engine),
        }
    }
}
