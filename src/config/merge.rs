//! From layers of given options to checked settings: the highest layer that gives an option wins it whole, every value of every
//! layer is checked, and what contradicts itself is refused.

use super::bind::Endpoint;
use super::encryption;
use super::error::Error;
use super::options::{self, TABLE};
use super::origin::{Given, Origin};
use super::settings::{NO_SECRET, Settings};

/// The settings, and where each came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// Checked.
    pub settings: Settings,
    /// Options that are set, in the order of the table.
    pub effective: Vec<Given>,
}

/// Defaults with `--reload`: a debugger may stop an import or a request for as long as its user thinks, and one worker is quicker to
/// load than many.
const DEVELOPMENT: &[(&str, &str)] = &[("workers", "1"), ("timeout", "0"), ("boot-timeout", "0")];

/// Defaults with `--debug`, for the same reason; and nobody would answer at a control socket.
const DEBUG: &[(&str, &str)] = &[("workers", "1"), ("timeout", "0"), ("boot-timeout", "0"), ("control-socket", "none")];

/// Options that only a master can fulfil.
const OF_A_MASTER: [&str; 13] = [
    "capture-output",
    "daemon",
    "group",
    "max-requests",
    "max-worker-age",
    "max-worker-rss",
    "preload",
    "reload",
    "statsd-host",
    "status-bind",
    "tls-watch",
    "user",
    "control-socket",
];

/// Merges `layers` (low to high) over the defaults. A value that a higher layer hides is checked as well: it would strike on the
/// day when the higher one is taken away.
pub fn merge(layers: impl IntoIterator<Item = Given>) -> Result<Configuration, Error> {
    let mut settings = Settings::blank();
    let defaults = TABLE.iter().filter_map(|option| {
        let text = option.default?;
        Some(Given { option, values: vec![text.into()], origin: Origin::Default })
    });
    let mut effective: Vec<Given> = Vec::new();
    for given in defaults.chain(layers) {
        apply(&mut settings, &given)?;
        effective.retain(|lower| lower.option != given.option);
        effective.push(given);
    }
    let development = match (settings.debug, settings.watch()) {
        (true, _) => DEBUG,
        (false, Some(_)) => DEVELOPMENT,
        (false, None) => &[],
    };
    for (name, text) in development {
        let unset = |given: &&mut Given| given.option.name == *name && given.origin == Origin::Default;
        if let Some(given) = effective.iter_mut().find(unset) {
            given.values = vec![(*text).into()];
            apply(&mut settings, given)?;
        }
    }
    let row = |given: &Given| TABLE.iter().position(|option| option == given.option);
    effective.sort_by_key(row);
    encryption::settle(&mut settings, &effective)?;
    let configuration = Configuration { settings, effective };
    configuration.refuse_contradictions()?;
    Ok(configuration)
}

impl Default for Settings {
    /// The settings of a start without any option.
    fn default() -> Self {
        merge([]).expect("the defaults of the table are valid, as its tests show").settings
    }
}

fn apply(settings: &mut Settings, given: &Given) -> Result<(), Error> {
    let Some(set) = given.option.set else { return Ok(()) };
    (given.option.clear)(settings);
    given.values.iter().try_for_each(|value| set(settings, value).map_err(|why| error(given, value, why)))
}

fn error(given: &Given, value: &str, why: String) -> Error {
    Error::Value { option: given.option, value: value.into(), origin: given.origin.clone(), why }
}

impl Configuration {
    /// What was given for an option.
    pub fn given(&self, name: &str) -> Option<&Given> {
        let option = options::find(name)?;
        self.effective.iter().find(|given| given.option == option)
    }

    /// Refuses with `--debug` what needs a master.
    fn refuse_master(&self) -> Result<(), Error> {
        if !self.settings.debug {
            return Ok(());
        }
        let is_asked = |given: &Given| {
            let off = given.values.iter().all(|value| matches!(value.as_str(), "" | "0" | "false" | "off" | "none"));
            given.origin != Origin::Default && given.origin != Origin::GunicornDefault && !off
        };
        if let Some(given) = OF_A_MASTER.into_iter().filter_map(|name| self.given(name)).find(|given| is_asked(given)) {
            let why = "needs a master, which a server with --debug does not have; leave one of the two out".to_owned();
            return Err(error(given, &given.values.join(","), why));
        }
        match (self.settings.workers, self.given("workers")) {
            (Some(workers), Some(given)) if workers > 1 => {
                let why = "is more than the one process that --debug serves from; leave one of the two out".to_owned();
                Err(error(given, &given.values.join(","), why))
            }
            _ => Ok(()),
        }
    }

    fn refuse_contradictions(&self) -> Result<(), Error> {
        self.refuse_master()?;
        let binds = &self.settings.binds;
        let Some(given) = self.given("bind") else { return Ok(()) };
        if binds.is_empty() {
            return Err(error(given, "[]", "has no address to listen on; give one, or leave the option out".into()));
        }
        for (index, bind) in binds.iter().enumerate() {
            if binds[..index].iter().any(|earlier| earlier.endpoint.collides(&bind.endpoint)) {
                return Err(error(given, &bind.to_string(), "is given twice; leave one out".into()));
            }
        }
        if let Some(bind) = binds.iter().find(|bind| self.settings.lacks_secret(bind) && !bind.endpoint.is_local()) {
            return Err(error(given, &bind.to_string(), NO_SECRET.into()));
        }
        if let (Some(fd), Some(ready)) = (self.settings.ready_fd, self.given("ready-fd"))
            && binds.iter().any(|bind| bind.endpoint == Endpoint::Fd(fd))
        {
            let why = format!("is also to be listened on, by fd://{fd} of --bind ({}); pass another descriptor", given.origin);
            return Err(error(ready, &fd.to_string(), why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bind;
    use crate::config::ControlSocket;
    use crate::config::WatchEngine;
    use crate::config::logs::Level;
    use crate::config::options::ValueKind;
    use crate::config::{AccessFormat, AppSpec, LogTarget, Network, Trusted};
    use std::time::Duration;

    fn given(name: &str, values: &[&str], origin: Origin) -> Given {
        let option = options::find(name).expect(name);
        Given { option, values: values.iter().map(|v| v.to_string()).collect(), origin }
    }

    fn environment(name: &str, values: &[&str]) -> Given {
        given(name, values, Origin::Environment(options::find(name).unwrap().variable()))
    }

    fn file(name: &str, values: &[&str]) -> Given {
        given(name, values, Origin::File { path: "t.toml".into(), line: Some(7) })
    }

    fn argument(name: &str, values: &[&str]) -> Given {
        given(name, values, Origin::CommandLine)
    }

    #[test]
    fn ajp_for_other_machines_needs_a_secret() {
        let binds = |protocol: &str, bind: &str, secret: &[&str]| {
            let mut layers = vec![argument("protocol", &[protocol]), argument("bind", &[bind])];
            layers.extend((!secret.is_empty()).then(|| argument("ajp-secret", secret)));
            merge(layers).map(|_| ()).map_err(|error| error.to_string())
        };
        for bind in ["ajp:0.0.0.0:8009", "ajp::8009", "ajp:[::]:8009", "ajp:10.0.0.1:8009", "ajp:example.org:8009"] {
            let why = binds("http", bind, &[]).expect_err(bind);
            assert!(why.contains(bind.trim_end_matches(":8009")) && why.contains("needs a secret: give --ajp-secret"), "{why}");
            assert_eq!(binds("http", bind, &["x"]), Ok(()));
        }
        assert!(binds("ajp", ":8009", &[]).is_err(), "also by --protocol");
        for bind in ["ajp:127.0.0.1:8009", "ajp:localhost:8009", "ajp:[::1]:8009", "ajp:unix:a", "ajp:fd://3", ":8009"] {
            assert_eq!(binds("http", bind, &[]), Ok(()), "{bind}");
        }
        assert!(binds("http", "ajp::8009", &[""]).expect_err("it is empty").contains("is empty"));
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let settings = Settings::default();
        let seconds = Duration::from_secs;
        assert_eq!(settings.app, AppSpec::Welcome);
        assert_eq!(settings.binds, [Bind::plain(Endpoint::Tcp { host: "127.0.0.1".into(), port: 8000 })]);
        assert_eq!((settings.backlog, settings.defer_accept), (2048, seconds(5)));
        assert_eq!((settings.workers, settings.worker_connections), (None, 16_384));
        assert_eq!((settings.timeout, settings.boot_timeout), (seconds(30), seconds(60)));
        assert_eq!((settings.max_requests, settings.max_requests_jitter, settings.max_worker_rss), (0, 0, 0));
        assert_eq!((settings.max_worker_age, settings.reload_surge, settings.warmup.clone()), (seconds(0), 1, None));
        assert_eq!((settings.graceful_timeout, settings.keep_alive), (seconds(30), seconds(5)));
        assert_eq!(
            (settings.header_timeout, settings.body_timeout, settings.write_timeout),
            (seconds(30), seconds(60), seconds(60))
        );
        assert_eq!((settings.limit_request_line, settings.limit_request_fields), (8190, 100));
        assert_eq!((settings.limit_request_field_size, settings.limit_request_body), (8190, 1 << 30));
        assert_eq!((settings.limit_spool, settings.body_buffer), (4 << 30, 2 << 20));
        assert_eq!((settings.chdir, settings.umask, settings.ready_fd, settings.env), (None, None, None, vec![]));
        assert_eq!(settings.python, Default::default());
        assert_eq!((settings.daemon, settings.capture_output, settings.syslog, settings.pid_file), (false, false, None, None));
        assert_eq!((settings.user, settings.group, settings.name), (None, None, None));
        assert_eq!((settings.access_log, settings.error_log, settings.log_level), (None, LogTarget::Stderr, Level::Info));
        assert!(matches!(settings.access_format, AccessFormat::Atoms(f) if f.starts_with("%(h)s ") && f.ends_with(" \"%(a)s\"")));
        let loopback = |addr: &str, prefix| Network { addr: addr.parse().unwrap(), prefix };
        assert_eq!(settings.forwarded_allow_ips, Trusted::Only(vec![loopback("127.0.0.1", 32), loopback("::1", 128)]));
        assert_eq!(settings.tls_watch, seconds(60));
        assert_eq!((settings.proxy_protocol, settings.proxy_allow_from), (None, settings.forwarded_allow_ips));
    }

    #[test]
    fn a_higher_layer_wins_whole() {
        let merged = merge([
            environment("workers", &["1"]),
            environment("keep-alive", &["1"]),
            environment("bind", &[":1"]),
            file("bind", &[":2", ":3"]),
            file("workers", &["2"]),
            argument("bind", &[":4"]),
        ])
        .unwrap();
        assert_eq!(merged.settings.binds, [Bind::plain(Endpoint::Tcp { host: "".into(), port: 4 })]);
        assert_eq!(merged.settings.workers, Some(2));
        assert_eq!(merged.settings.keep_alive, Duration::from_secs(1));
        let origin = |name| merged.given(name).unwrap().origin.to_string();
        assert_eq!(origin("bind"), "command line");
        assert_eq!(origin("workers"), "file t.toml line 7");
        assert_eq!(origin("keep-alive"), "environment TAPSTER_KEEP_ALIVE");
        assert_eq!(origin("backlog"), "default");
        assert_eq!(merged.given("chdir"), None);
    }

    #[test]
    fn one_process_refuses_what_needs_a_master() {
        let settings = merge([argument("debug", &["true"])]).unwrap().settings;
        assert_eq!((settings.workers, settings.timeout, settings.control_socket), (Some(1), Duration::ZERO, ControlSocket::Off));
        for name in OF_A_MASTER {
            let Some(option) = options::find(name).filter(|option| option.set.is_some()) else { continue };
            let value = match (option.kind, name) {
                (ValueKind::Flag, _) => "true",
                (_, "statsd-host" | "status-bind") => "127.0.0.1:9",
                (_, "reload") => "on",
                (_, "control-socket") => "c",
                (_, "max-worker-rss") => "16M",
                (ValueKind::Number, _) => "7",
                _ => "1h",
            };
            let refused = merge([argument("debug", &["true"]), argument(name, &[value])]).expect_err(name).to_string();
            assert!(refused.contains(name) && refused.contains("needs a master"), "{refused}");
            assert!(merge([argument("debug", &["false"]), argument(name, &[value])]).is_ok(), "{name}");
        }
        assert!(merge([argument("debug", &["true"]), argument("daemon", &["false"]), argument("workers", &["1"])]).is_ok());
        let refused = merge([argument("debug", &["true"]), argument("workers", &["2"])]).unwrap_err().to_string();
        assert!(refused.contains("one process"), "{refused}");
    }

    #[test]
    fn development_has_other_defaults_and_what_is_given_holds() {
        let seconds = Duration::from_secs;
        let settings = merge([argument("reload", &["auto"]), environment("timeout", &["7"])]).unwrap().settings;
        assert_eq!((settings.workers, settings.timeout, settings.boot_timeout), (Some(1), seconds(7), seconds(0)));
        assert_eq!(settings.watch(), Some(WatchEngine::Events));
        let merged = merge([argument("reload", &["off"]), argument("reload-engine", &["poll"])]).unwrap();
        assert_eq!((merged.settings.workers, merged.settings.watch()), (None, None));
        let merged = merge([argument("reload", &["on"]), argument("reload-engine", &["poll"])]).unwrap();
        assert_eq!(
            (merged.settings.watch(), merged.given("workers").unwrap().values.concat()),
            (Some(WatchEngine::Poll), "1".into())
        );
        assert_eq!(merge([argument("reload", &["poll"])]).unwrap().settings.watch(), Some(WatchEngine::Poll));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_as_its_source_spells_it() {
        for (layer, message) in [
            (
                argument("bind", &["127.0.0.1:99999"]),
                "--bind 127.0.0.1:99999 (command line): the port must be 0 to 65535, 0 letting the kernel choose",
            ),
            (file("workers", &["0"]), "workers = 0 (file t.toml line 7): must be a whole number from 1 to 4096, or auto"),
            (
                environment("log-level", &["loud"]),
                "TAPSTER_LOG_LEVEL=loud (environment): must be debug, info, warning, error or critical",
            ),
            (
                argument("app", &["m:"]),
                "APP m: (command line): the callable is missing behind the colon; name it, or leave the colon out",
            ),
        ] {
            assert_eq!(merge([layer]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn every_bound_holds() {
        for (name, good, bad) in [
            ("workers", "4096", "4097"),
            ("workers", "1", "AUTO"),
            ("timeout", "0", "499ms"),
            ("boot-timeout", "500ms", "25h"),
            ("max-requests", "0", "-1"),
            ("max-worker-rss", "16M", "1M"),
            ("max-worker-age", "1", "0.5"),
            ("reload-surge", "4096", "0"),
            ("reload", "inotify", "always"),
            ("reload-engine", "auto", "off"),
            ("reload-extra-file", "a.toml", ""),
            ("warmup", "GET /", "/"),
            ("warmup-requests", "100000", "0"),
            ("preload", "true", "maybe"),
            ("backlog", "65535", "0"),
            ("worker-connections", "1", "0"),
            ("defer-accept", "0", "1.5"),
            ("graceful-timeout", "0", "25h"),
            ("keep-alive", "0", "-1"),
            ("header-timeout", "100ms", "0"),
            ("body-timeout", "24h", "0"),
            ("write-timeout", "1h", "99ms"),
            ("limit-request-line", "16", "15"),
            ("limit-request-line", "1M", "2M"),
            ("limit-request-fields", "32768", "32769"),
            ("limit-request-field_size", "1M", "1"),
            ("limit-request-body", "9223372036854775807", "9223372036854775808"),
            ("body-buffer", "1k", "1023"),
            ("umask", "777", "1000"),
            ("ready-fd", "3", "2"),
            ("error-logfile", "./none", "none"),
            ("access-logfile", "none", ""),
            ("access-logformat", "json", ""),
            ("chdir", "a", ""),
            ("log-syslog", "/dev/log", ""),
            ("capture-output", "1", "yes"),
            ("daemon", "true", "on"),
            ("pid", "a", ""),
            ("user", "www-data", ""),
            ("group", "33", "a\n"),
            ("name", "a b", ""),
            ("venv", "a", "a\0"),
            ("env", "A=", "A"),
        ] {
            assert!(merge([argument(name, &[good])]).is_ok(), "{name} {good}");
            assert!(merge([argument(name, &[bad])]).is_err(), "{name} {bad}");
        }
    }

    #[test]
    fn zero_is_the_highest_limit_of_a_head() {
        let zeros = ["limit-request-line", "limit-request-fields", "limit-request-field_size"].map(|name| argument(name, &["0"]));
        let settings = merge(zeros).unwrap().settings;
        assert_eq!(settings.limit_request_line, 1 << 20);
        assert_eq!(settings.limit_request_fields, 32_768);
        assert_eq!(settings.limit_request_field_size, 1 << 20);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused_in_one_line(text in "\\PC*|[0-9.:,/%\\[\\]a-zé(){}'\"\\\\=*-]{0,30}|(unix:|fd://|tcp://|m:)\\PC*") {
            for option in TABLE {
                if let Err(error) = merge([argument(option.name, &[&text])]) {
                    proptest::prop_assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
    }

    #[test]
    fn a_hidden_value_is_checked_too() {
        assert!(merge([file("workers", &["x"]), argument("workers", &["1"])]).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let message = |layers: Vec<Given>| merge(layers).unwrap_err().to_string();
        assert_eq!(
            message(vec![argument("bind", &[":80", "0.0.0.0:80"])]),
            "--bind 0.0.0.0:80 (command line): is given twice; leave one out"
        );
        assert!(message(vec![file("bind", &[])]).contains("no address"));
        assert_eq!(
            message(vec![file("bind", &["fd://3"]), argument("ready-fd", &["3"])]),
            "--ready-fd 3 (command line): is also to be listened on, by fd://3 of --bind (file t.toml line 7); pass another descriptor"
        );
        assert!(merge([argument("bind", &["127.0.0.1:0", "127.0.0.1:0"])]).is_ok());
    }
}
