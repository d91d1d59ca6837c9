//! `--print-config`: the settings as a configuration file that gives the same settings, each line with its origin.

use std::fmt::Write;

use super::merge::Configuration;
use super::options::{Opt, Section, TABLE, ValueKind};
use super::origin::{Given, Origin};

/// The text of `--print-config`.
pub fn to_toml(configuration: &Configuration) -> String {
    let mut out = String::from("# Tapster's configuration: every option, its value, and where that comes from.\n");
    if let Some(Given { values, origin, .. }) = configuration.given("config") {
        let path: String = values.concat().escape_debug().collect();
        line(&mut out, format_args!("# read from {path}  # {origin}"));
    }
    for section in Section::ALL {
        let mut rows = TABLE.iter().filter(|option| option.section == section && option.set.is_some()).peekable();
        if rows.peek().is_none() {
            continue;
        }
        line(&mut out, format_args!("\n# {}", section.heading()));
        for option in rows {
            let key = option.key();
            match configuration.given(option.name) {
                Some(given) => line(&mut out, format_args!("{}  # {}", line_of(given), given.origin)),
                None => line(&mut out, format_args!("# {key} is not set  # {}", Origin::Default)),
            }
        }
    }
    out
}

/// The line of a file that gives the same.
pub fn line_of(given: &Given) -> String {
    format!("{} = {}", given.option.key(), toml_value(given.option, &given.values))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

fn toml_value(option: &Opt, values: &[String]) -> String {
    match (option.kind, values) {
        (ValueKind::List, values) => toml::Value::from(values.to_vec()).to_string(),
        (ValueKind::Flag, [text]) => (matches!(text.as_str(), "true" | "1")).to_string(),
        (ValueKind::Number, [text]) if is_toml_integer(text) => text.clone(),
        (_, values) => toml::Value::from(values.concat()).to_string(),
    }
}

/// TOML has no leading zeros, and its integers are those of i64.
fn is_toml_integer(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i64>().is_ok_and(|n| n.to_string() == text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::options;
    use crate::config::{file, merge};

    fn given(name: &str, values: &[&str]) -> Given {
        let option = options::find(name).expect(name);
        Given { option, values: values.iter().map(|v| v.to_string()).collect(), origin: Origin::CommandLine }
    }

    #[track_caller]
    fn comes_back(layers: Vec<Given>) {
        let before = merge(layers).unwrap();
        let text = to_toml(&before);
        let (layer, _) = file::read(text.as_bytes(), Path::new("t.toml")).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let after = merge(layer).unwrap();
        assert_eq!(before.settings, after.settings, "{text}");
    }

    #[test]
    fn the_defaults_come_back() {
        comes_back(vec![]);
    }

    #[test]
    fn every_option_comes_back() {
        let layers = vec![
            given("app", &["m:make(\"x\\n'\", k=1)"]),
            given("mount", &["/a=m:make(\"x, y\")", "h.example:/=a b/c.py"]),
            given("chdir", &["/srv/a b#c"]),
            given("pythonpath", &["a:b", "c,d"]),
            given("venv", &["v\"env\\"]),
            given("env", &["A=1", "B=x\ny # 'z' \"\"\"", "C=\u{7f}\u{1b}"]),
            given("bind", &["[::1]:0", "unix:a,b", "fd://5", "https:unix:c"]),
            given("certfile", &["/etc/a b.pem", "b.pem"]),
            given("keyfile", &["/etc/a b.key"]),
            given("ca-certs", &["ca \"s\".pem"]),
            given("cert-reqs", &["2"]),
            given("tls-min", &["1.3"]),
            given("tls-watch", &["5m"]),
            given("backlog", &["00128"]),
            given("defer-accept", &["0"]),
            given("umask", &["027"]),
            given("forwarded-allow-ips", &[""]),
            given("protocol", &["scgi"]),
            given("gateway-allow-from", &["10.0.0.0/8"]),
            given("ajp-secret", &["s3cr\"et"]),
            given("root-path", &["/shop"]),
            given("static-map", &["/static=/srv/a b", "/=pub\"lic"]),
            given("static-index", &["index.html"]),
            given("static-expires", &["1h"]),
            given("static-immutable", &["-[0-9a-z]{8}\\."]),
            given("static-versioned", &["true"]),
            given("static-precompressed", &["true"]),
            given("static-symlinks", &["beneath"]),
            given("mime-type", &["ply=model/ply", "x=text/plain; charset=\"a\""]),
            given("trusted-proxy-headers", &["x-forwarded-for x-forwarded-proto"]),
            given("clear-untrusted-proxy-headers", &["true"]),
            given("request-id", &["true"]),
            given("proxy-protocol", &["v1"]),
            given("proxy-allow-from", &["10.0.0.0/8"]),
            given("workers", &["3"]),
            given("threads", &["3"]),
            given("max-queue", &["0"]),
            given("queue-timeout", &["5s"]),
            given("no-lending", &["true"]),
            given("worker-connections", &["10"]),
            given("max-requests", &["1000"]),
            given("max-requests-jitter", &["100"]),
            given("max-worker-rss", &["512M"]),
            given("max-worker-age", &["1h"]),
            given("reload", &["poll"]),
            given("debug", &["false"]),
            given("reload-engine", &["inotify"]),
            given("reload-extra-file", &["a.toml", "b c"]),
            given("reload-surge", &["2"]),
            given("preload", &["true"]),
            given("boot-profile", &["1"]),
            given("warmup", &["GET /healthz?a=\"'"]),
            given("warmup-requests", &["200"]),
            given("timeout", &["5m"]),
            given("timeout-grace", &["0"]),
            given("boot-timeout", &["0"]),
            given("graceful-timeout", &["1.5"]),
            given("keep-alive", &["500ms"]),
            given("header-timeout", &["1m"]),
            given("body-timeout", &["2m"]),
            given("write-timeout", &["3m"]),
            given("limit-request-line", &["0"]),
            given("limit-request-fields", &["7"]),
            given("limit-request-field_size", &["1k"]),
            given("limit-request-head", &["32k"]),
            given("limit-request-body", &["9223372036854775807"]),
            given("limit-spool", &["2G"]),
            given("body-buffer", &["1M"]),
            given("access-logfile", &["-"]),
            given("access-logformat", &["%(h)s '%(r)s' \"%(a)s\" \\ \t"]),
            given("error-logfile", &["e.log"]),
            given("log-level", &["DEBUG"]),
            given("log-config", &["{\"root\": {\"level\": \"DEBUG\"}}"]),
            given("log-syslog", &["/dev/log"]),
            given("capture-output", &["1"]),
            given("daemon", &["true"]),
            given("pid", &["/run/a b.pid"]),
            given("user", &["www-data"]),
            given("group", &["33"]),
            given("name", &["a \"site\""]),
            given("status-bind", &["127.0.0.1:9000", "unix:/run/a b"]),
            given("control-socket", &["/run/a b.ctl"]),
            given("control-socket-mode", &["0660"]),
            given("statsd-host", &["127.0.0.1:8125"]),
            given("statsd-prefix", &["shop.web"]),
            given("dogstatsd-tags", &["env:prod,region:\"eu\""]),
            given("enable-backlog-metric", &["true"]),
            given("ready-fd", &["9"]),
        ];
        let settings = TABLE.iter().filter(|option| option.set.is_some()).count();
        assert_eq!(layers.len(), settings, "a row of the table is missing here");
        comes_back(layers);
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(variable in "[A-Z]{1,3}=[^\\x00]*", path in "[^\\x00]+", format in ".+") {
            comes_back(vec![
                given("env", &[&variable, "LAST=1"]),
                given("chdir", &[&path]),
                given("access-logformat", &[&format]),
            ]);
        }
    }

    #[test]
    fn each_line_ends_with_its_origin() {
        let configuration = merge([
            Given { origin: Origin::Environment("TAPSTER_WORKERS".into()), ..given("workers", &["4"]) },
            Given { origin: Origin::File { path: "a\nb".into(), line: Some(2) }, ..given("log-level", &["debug"]) },
            given("config", &["a\nb"]),
        ])
        .unwrap();
        let text = to_toml(&configuration);
        for expected in [
            "# read from a\\nb  # command line\n",
            "\nworkers = 4  # environment TAPSTER_WORKERS\n",
            "\nlog_level = \"debug\"  # file a\\nb line 2\n",
            "\nbind = [\"127.0.0.1:8000\"]  # default\n",
            "\n# chdir is not set  # default\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
