"""The options of `tapster.serve` and `tapster.start`, for those who check types and for editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import TypedDict, Union

# `Union` because Python 3.9 evaluates these.
_Text = Union[str, "PathLike[str]"]
_Number = Union[int, float, str, timedelta]
_List = Union[_Text, Sequence[_Text]]


class Options(TypedDict, total=False):
    """What is left out, or None, comes from the file of `config`, the environment, or the default."""

    # options: generated from the table
    mount: _List | None
    """Serve another application for paths that begin with PATH, by whole segments; the longest one counts. Its SCRIPT_NAME is PATH, and PATH_INFO the rest. HOST:/PATH=APP counts for one host, whatever its port, and before those that count for all. APP has the paths of no mount; without it they are answered 404. Each worker loads all of them. Repeatable; a variable of the environment has one."""

    chdir: _Text | None
    """Change to this directory before the application is loaded."""

    pythonpath: _List | None
    """Directories to search for modules after the working directory, separated by commas or colons. Repeatable."""

    venv: _Text | None
    """Virtual environment of the application; without it the active one, if any."""

    env: _List | Mapping[str, str] | None
    """Set a variable in the environment of the application. Repeatable."""

    bind: _List | None
    """Listen here: HOST:PORT, :PORT (all IPv4 addresses), [IPV6]:PORT, unix:PATH or fd://N (an inherited socket). The port is 8000 when there is none; port 0 lets the kernel choose. A protocol may stand in front, as in scgi:127.0.0.1:4000, uwsgi:unix:PATH or https::443. Repeatable. The default is 127.0.0.1:8000."""

    protocol: _Text | None
    """What is spoken at addresses that name no protocol: http, or what a front server speaks to a gateway: fastcgi, scgi, uwsgi or ajp. The default is http."""

    gateway_allow_from: _Text | None
    """Front servers that may connect where another protocol than HTTP is spoken, and are believed all that they say of the client: addresses and networks (10.0.0.0/8) separated by commas, or * for everybody. Unix sockets always may. The default is 127.0.0.1,::1."""

    ajp_secret: _Text | None
    """What a front server that speaks AJP has to send with each request, as Tomcat's `secret`; others are answered 403. Needed where AJP is spoken at other addresses than those of this machine. The command line can be read by all users of a machine: the file and TAPSTER_AJP_SECRET cannot."""

    root_path: _Text | None
    """Where the application is mounted, such as /shop: SCRIPT_NAME of every request. PATH_INFO is the rest of a path that begins with it, and the whole of one whose root the server in front has cut off."""

    backlog: _Number | None
    """Length of the queue of connections that wait to be accepted. The default is 2048."""

    defer_accept: _Number | None
    """Let the kernel hold a new TCP connection until its first bytes arrive, for at most this many whole seconds; 0 turns it off. The default is 5."""

    umask: int | str | None
    """File mode mask in octal; without it the inherited one holds, and unix sockets are open to everybody."""

    forwarded_allow_ips: _Text | None
    """Proxies whose forwarding headers are believed: addresses and networks (10.0.0.0/8) separated by commas, or * for everybody. Unix sockets are always believed. The default is 127.0.0.1,::1."""

    trusted_proxy_headers: _Text | None
    """Fields by which the proxies of --forwarded-allow-ips say who the client is and what it asked for: x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-forwarded-port and x-forwarded-prefix, or forwarded, or x-real-ip and x-scheme, separated by commas or blanks. Name only what the proxy writes itself. Without it only X-Forwarded-Proto is believed."""

    clear_untrusted_proxy_headers: bool | None
    """Hide Forwarded, X-Forwarded-*, X-Real-IP and X-Scheme from the application where they are not believed: those of other peers, and of trusted ones what --trusted-proxy-headers does not name."""

    request_id: bool | None
    """Give each request an X-Request-ID, in the environ, the answer, the logs and the status: the one of a proxy of --forwarded-allow-ips or of a front server, else a new one."""

    proxy_protocol: _Text | bool | None
    """Expect the PROXY protocol at the start of every connection, from a proxy that names the client in it: v1, v2, or auto for either, which is meant when MODE is left out and another option follows, or nothing. A connection that does not begin with it is closed. The default is off."""

    proxy_allow_from: _Text | None
    """Proxies that may connect while --proxy-protocol is on: addresses and networks (10.0.0.0/8) separated by commas, or * for everybody. Unix sockets always may. The default is 127.0.0.1,::1."""

    certfile: _List | None
    """Speak TLS, with the certificates in this file in PEM: the server's own, then those that sign it. Then every address of TCP is encrypted unless a protocol stands in front of it (http:127.0.0.1:8000); a unix socket is where https: does. The file is read again when it changes. Repeatable: a client gets the certificate for the name that it asks for, else the first."""

    keyfile: _List | None
    """The private key of the certificate in PEM, not encrypted; without it the key is in the file of --certfile. Repeatable: the first is for the first certificate. Only the master reads it, as the user that starts the server."""

    ca_certs: _Text | None
    """The certificates in PEM that sign those of clients, for --cert-reqs."""

    cert_reqs: _Number | None
    """Which certificate a client has to show: none, optional (one that is shown must be valid) or required; or gunicorn's 0, 1, 2. The default is none."""

    tls_min: _Number | None
    """Oldest version of TLS that is spoken: 1.2 or 1.3. The default is 1.2."""

    tls_watch: _Number | None
    """Look so often whether the files of certificates and keys have changed, and serve what they have then; new files that are of no use are refused, and the present ones stay. 0: only a reload reads them. The default is 1m."""

    static_map: _List | None
    """Send the files of this directory for paths that begin with PATH, without the application: also while all its threads are busy. What is not there is answered 404. /=DIR tries the file and leaves the rest to the application (robots.txt, favicon.ico). A relative DIR starts at --chdir. Names that begin with a dot are never sent. Repeatable; the longest path counts."""

    static_index: _Text | None
    """The file that stands for its directory, such as index.html. A directory without a slash behind it is redirected to the path with one. Without this option directories are not found."""

    static_expires: _Number | None
    """How long browsers and caches may keep a file without asking (Cache-Control: max-age). 0 has them ask each time, which an answer without a body confirms; none says nothing, and they guess. The default is 0."""

    static_immutable: _Text | None
    """Names in which this regular expression is found never get another content: they are kept for a year. The default is those of Django's ManifestStaticFilesStorage. For Vite it is -[A-Za-z0-9_-]{8}\.[a-z0-9]+$ below a path that has nothing else. none is no name. The default is \.[0-9a-f]{12}(\.[^/.]+)?$."""

    static_versioned: bool | None
    """Treat every file that is asked for with ?v=ANYTHING as one that never changes, as Tornado does. Only for sites whose every such URL is made by static_url: any other ?v= keeps a stale file with its reader for a year."""

    static_precompressed: bool | None
    """Send app.js.br, app.js.zst or app.js.gz in the place of app.js to clients that take it, unless it is older than app.js. Answers have Vary: Accept-Encoding then."""

    static_symlinks: _Text | None
    """What becomes of symbolic links below a directory: follow, beneath (only while they stay below it; absolute ones do not count as such) or deny. The default is follow."""

    mime_type: _List | None
    """Media type of files with this extension, such as ply=model/ply, in front of the built-in ones. Repeatable."""

    workers: _Number | None
    """Number of worker processes; auto is one for each usable core, and one where a web server starts Tapster. The default is auto."""

    threads: _Number | None
    """Requests that one worker has in the application at once. With 1 the application runs in the main thread of its process; with more it must be thread-safe, and a WebSocket takes one of them as long as it stands. The default is 1."""

    max_queue: _Number | None
    """Complete requests of one worker that may wait until the application has time for them; more are answered 503 with Retry-After. With 0 none waits. The default is 2048."""

    no_lending: bool | None
    """Keep every connection in the worker that has accepted it. Without this, a worker that is busy hands the connection of a request that would have to wait over to a worker that is free, and a worker that leaves hands over its idle connections."""

    worker_connections: _Number | None
    """Most open connections of one worker; while it has them, it accepts no more. The default is 16384."""

    max_requests: _Number | None
    """Replace a worker after this many requests; 0 never does. One worker at a time, and the new one is ready before the old one drains. The default is 0."""

    max_requests_jitter: _Number | None
    """Add a random number of requests up to this to --max-requests, for each worker its own. The default is 0."""

    max_worker_rss: _Number | None
    """Replace a worker whose resident memory is above this; 0 never does. With --preload only memory counts that it does not share. The default is 0."""

    max_worker_age: _Number | None
    """Replace a worker that has served for this long; 0 never does. The default is 0."""

    reload: _Text | bool | None
    """For development: load the application again when its modules, its templates, a --reload-extra-file or the configuration file change. Broken code leaves the old one serving, and browsers are shown its traceback until it is mended. auto and inotify learn of changes from the kernel; poll looks at the files each second, for file systems that the kernel hears nothing of. With it the defaults are --workers 1, --timeout 0 and --boot-timeout 0; with a --boot-timeout a load that hangs has failed, too. Refused under a service manager. The default is off."""

    debug: bool | None
    """For development: serve from this very process, which has the terminal, so that breakpoint() and the debuggers of editors work. There is no master: nothing is reloaded, nobody replaces the process when it dies, and options that need a master are refused. It stops when its terminal hangs up. With it the defaults are --workers 1, --timeout 0, --boot-timeout 0 and --control-socket none."""

    reload_engine: _Text | None
    """How --reload without a value notices changes: auto, inotify or poll. The default is auto."""

    reload_extra_file: _List | None
    """With --reload, load the application again when this file changes, or any file in this directory (not below it). Repeatable."""

    reload_surge: _Number | None
    """Most workers beyond --workers while a reload replaces them: more is faster and takes more memory. The default is 1."""

    preload: bool | None
    """Load the application once, in a process of its own, the mold, of which the workers are forks: they share its memory, and a worker that has died is back in some milliseconds. Threads and connections that the application has when it is loaded are named in a warning, for they are no worker's own. A reload makes a new mold first. Without effect with --reload and --debug, and for an object that a program serves."""

    boot_profile: bool | None
    """Tell in the error log how long each worker took to boot and which imports took longest; with --check-config, tell it at once."""

    warmup: _Text | None
    """Request that each worker, or with --preload the mold, sends to its own application before it says that it is ready, such as 'GET /healthz'; an answer of 400 or above is a failed boot."""

    warmup_requests: _Number | None
    """How often --warmup is asked. With --preload the mold is asked, and what it has made of the answers, such as compiled templates and regular expressions, is shared by all workers; 200 leave little to be made. The default is 1."""

    timeout: _Number | None
    """How long the application may run for one request, or for one block of a streamed answer; beyond it the request is interrupted (--timeout-grace). 0 is no limit. The default is 30s."""

    timeout_grace: _Number | None
    """At --timeout tapster.RequestTimeout is raised in the request, which has this much time to end. Then its client is answered 504 without it, the log gets the request and the Python stacks, and the worker is replaced. 0 raises no exception. The default is 1s."""

    boot_timeout: _Number | None
    """How long a worker may take to load the application and to answer --warmup. 0 is no limit. The default is 60s."""

    graceful_timeout: _Number | None
    """How long workers may take to finish their requests when they leave: at a graceful stop, a reload, a replacement. The default is 30s."""

    keep_alive: _Number | None
    """How long an idle connection is kept for the next request; 0 closes after each answer. The default is 5s."""

    header_timeout: _Number | None
    """Time for the whole head of a request; beyond it the answer is 408. The default is 30s."""

    body_timeout: _Number | None
    """Longest pause of a client within a request body; beyond it the answer is 408. The default is 60s."""

    queue_timeout: _Number | None
    """Longest time that a complete request may wait until the application has time for it; beyond it 503 with Retry-After. 0 = no limit. The default is 30s."""

    write_timeout: _Number | None
    """Longest time that a client may take no byte of its answer; beyond it the connection is closed. The default is 60s."""

    limit_request_line: _Number | None
    """Longest request line in bytes; beyond it the answer is 414. 0 stands for 1M, the highest limit. The default is 8190."""

    limit_request_fields: _Number | None
    """Most header fields; beyond it the answer is 431. 0 stands for 32768, the highest limit. The default is 100."""

    limit_request_field_size: _Number | None
    """Longest header field in bytes, name and value together; beyond it the answer is 431. 0 stands for 1M, the highest limit. The default is 8190."""

    limit_request_head: _Number | None
    """Longest head in bytes, request line and header fields together; beyond it the answer is 431. 0 stands for 16M, the highest limit. Unfinished requests of one worker's connections have 64 MiB in all; beyond it the answer is 503. The default is 64k."""

    limit_request_body: _Number | None
    """Largest request body in bytes; beyond it the answer is 413. 0 is no limit. The default is 1G."""

    limit_spool: _Number | None
    """Most bytes in temporary files (TMPDIR) of all workers together: bodies beyond --body-buffer, and what write() made faster than its client reads. Beyond it requests with such a body are answered 503 with Retry-After, and such an answer is cut. A body that is larger is answered 413. 0 is no limit. The default is 4G."""

    body_buffer: _Number | None
    """Bytes of a request body kept in memory; a larger body goes to a temporary file, and so do others while a worker's bodies have 64 MiB in all. The default is 2m."""

    access_logfile: _Text | None
    """Write the access log here; - is standard output, none turns it off. The default is none."""

    access_logformat: _Text | None
    """Format of the access log: gunicorn's %(...)s atoms and %(Q)s, the microseconds that a request waited for a thread; or json for one JSON object a line. %(t)s is when the request was complete (gunicorn: when its answer was). The default is %(h)s %(l)s %(u)s %(t)s '%(r)s' %(s)s %(b)s '%(f)s' '%(a)s'."""

    error_logfile: _Text | None
    """Write the error log here; - is standard error. The default is -."""

    log_level: _Text | None
    """Least severity that the error log records: debug, info, warning, error or critical. The default is info."""

    log_config: _Text | None
    """Set up Python's logging by this file in each worker, before it loads the application: JSON for logging.config.dictConfig, or what logging.config.fileConfig reads. The server's own logs stay as they are."""

    log_syslog: _Text | bool | None
    """Send the logs that would go to standard output or standard error to the system log instead, as RFC 5424 datagrams to this unix socket."""

    capture_output: bool | None
    """Write what the application, its libraries and the hooks of a gunicorn file print to standard output and standard error to the error log, as one record for each line, whatever the log level."""

    daemon: bool | None
    """Run in the background: the command returns when every worker is ready, or with the exit code and the reason when the start has failed."""

    pid: _Text | None
    """Write the process id of the master to this file, and remove it at the end. If a running server has it, the start is refused."""

    user: _Text | None
    """Run the workers, and with them the application, as this user (name or number), with its groups and without any capability. The master stays root: sockets, logs and the pid file are opened by it. The user must be able to read Python, its packages and the application."""

    group: _Text | None
    """Run the workers with this group (name or number) instead of the main one of the user."""

    name: _Text | None
    """Name of this server in the process titles, as in `tapster: master [NAME]`; without it, APP."""

    status_bind: _List | None
    """Show figures here over HTTP, in the forms of --bind: a page at /, /status.json, /metrics for Prometheus, /health/live and /health/ready for probes. The master answers, whatever the workers do. It shows the paths of requests to whoever reaches the address, and takes no commands. Repeatable."""

    statsd_host: _Text | None
    """Send metrics here by UDP, or to a unix datagram socket as unix://PATH, for statsd or DogStatsD: gunicorn's names (gunicorn.requests, .request.status.N, .request.duration, .workers, .log.exception, .log.warning, .log.error, .log.critical), and tapster.threads.busy, .requests.waiting and .worker.exits.CAUSE. The master sends them every 10 s, and never waits. A name is looked up at the start and at a reload."""

    statsd_prefix: _Text | None
    """Put this and a point in front of the names of metrics for statsd. The default is ."""

    dogstatsd_tags: _Text | None
    """Give metrics for statsd these tags, as DogStatsD reads them: name:value,name:value. The default is ."""

    enable_backlog_metric: bool | None
    """Send gunicorn.backlog to statsd too: connections that wait to be accepted."""

    control_socket: _Text | None
    """Listen for the commands (tapster status, reload, ...) on this unix socket; none turns it off. auto is NAME.ctl in the first directory of these that is there and belongs to this user: $RUNTIME_DIRECTORY (systemd), $XDG_RUNTIME_DIR/tapster, /run/tapster. The default is auto."""

    control_socket_mode: int | str | None
    """Mode of the control socket's file, in octal, 600 at least. Whoever may write to it may reload, stop and upgrade this server, and see queries and clients of requests. The default is 600."""

    config: _Text | None
    """Read options from this TOML file: the same names, each with its value. A file in .py, file:PATH or python:MODULE is a configuration file of gunicorn, which a process of its own executes; without this option, ./gunicorn.conf.py is one."""

    ready_fd: _Number | None
    """Write READY, the addresses and a newline to this descriptor once every worker is ready; close it on failure."""

    # options: end
