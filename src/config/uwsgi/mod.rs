//! From a file of uWSGI to options. It is read for `tapster migrate` only: most of uWSGI's parts have no counterpart, so a file is
//! translated once and not served as it is.

mod ini;
mod table;

use std::path::Path;

use super::options;
use super::origin::{Given, Origin};

pub use ini::World;

/// What a file becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Options.
    pub given: Vec<Given>,
    /// Options that need no counterpart, with the reason.
    pub moot: Vec<String>,
    /// What is lost, with the reason and what to do.
    pub lost: Vec<String>,
}

/// Translates the text of the ini file at this absolute path; `named` is the path as it was given.
pub fn translate(text: &str, path: &Path, named: &Path, world: &World<'_>) -> Translation {
    let (lines, lost) = ini::read(text, path, world);
    let mut translation = Translation { lost, ..Translation::default() };
    let whole = table::Whole::of(&lines);
    for line in &lines {
        let sentence = |why: &str| format!("{} = {} (line {}): {why}", line.key, line.value, line.number);
        let used = |name: &str| lines.iter().any(|other| other.value.contains(&format!("%({name})")));
        match table::treat(line, &whole) {
            table::Counterpart::Options(options) => {
                for (name, value) in options {
                    translation.give(name, value, Origin::File { path: named.into(), line: Some(line.number) });
                }
            }
            table::Counterpart::Partly(options, why) => {
                for (name, value) in options {
                    translation.give(name, value, Origin::File { path: named.into(), line: Some(line.number) });
                }
                translation.lost.push(sentence(why));
            }
            table::Counterpart::Moot(why) => translation.moot.push(sentence(why)),
            table::Counterpart::Lost(why) => translation.lost.push(sentence(&why)),
            // A variable of the file's own has done its work by now.
            table::Counterpart::Unknown if used(&line.key) || text.contains(&format!("%({})", line.key)) => {}
            table::Counterpart::Unknown => {
                translation.lost.push(sentence("is not known here; look whether the application needs what it does"));
            }
        }
    }
    for (name, value) in whole.defaults() {
        translation.give(name, value, Origin::Default);
    }
    translation
}

impl Translation {
    /// Adds a value of an option; a repeatable one may have several.
    fn give(&mut self, name: &str, value: String, origin: Origin) {
        let Some(option) = options::find(name) else { return };
        let list = option.kind == options::ValueKind::List;
        match self.given.iter_mut().find(|given| given.option == option) {
            Some(given) if list => given.values.push(value),
            Some(given) => (given.values, given.origin) = (vec![value], origin),
            None => self.given.push(Given { option, values: vec![value], origin }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::merge;

    fn translated(text: &str) -> Translation {
        let world = World { variable: &|_| None, cores: 2 };
        translate(text, Path::new("/etc/uwsgi/shop.ini"), Path::new("shop.ini"), &world)
    }

    fn values(translation: &Translation) -> Vec<(&str, String)> {
        translation.given.iter().map(|given| (given.option.name, given.values.join(" "))).collect()
    }

    #[test]
    fn a_common_file_becomes_options() {
        let translation = translated(
            "[uwsgi]\nproject = shop\nbase = /srv\nchdir = %(base)/%(project)\nhome = %(base)/venv\nmodule = %(project).wsgi\n\
             callable = app\nmaster = true\nprocesses = 5\nthreads = 2\nsocket = %(base)/%(project).sock\nchmod-socket = 660\n\
             vacuum = true\ndie-on-term = true\nuid = www-data\nharakiri = 60\nmax-requests = 5000\nreload-on-rss = 300\n\
             env = A=1\nenv = B=2\nlogto = /var/log/shop.log\nbuffer-size = 32768\nstatic-map = /static=/srv/static\n",
        );
        assert_eq!(
            values(&translation),
            [
                ("chdir", "/srv/shop".into()),
                ("venv", "/srv/venv".into()),
                ("app", "shop.wsgi:app".into()),
                ("workers", "5".into()),
                ("threads", "2".into()),
                ("bind", "uwsgi:unix:/srv/shop.sock".into()),
                ("umask", "006".into()),
                ("user", "www-data".into()),
                ("timeout", "60".into()),
                ("max-requests", "5000".into()),
                ("max-worker-rss", "300M".into()),
                ("env", "A=1 B=2".into()),
                ("error-logfile", "/var/log/shop.log".into()),
                ("limit-request-field_size", "32768".into()),
                ("limit-request-line", "32768".into()),
                ("static-map", "/static=/srv/static".into()),
                ("static-symlinks", "beneath".into()),
                ("access-logfile", "-".into()),
            ]
        );
        assert!(merge(translation.given.clone()).is_ok());
        assert_eq!(translation.lost, [] as [&str; 0]);
        assert_eq!(translation.moot.len(), 3, "{:?}", translation.moot);
    }

    /// Names and values, but for those of defaults.
    fn asked(text: &str) -> Vec<(&'static str, Vec<String>)> {
        let given = translated(text).given.into_iter().filter(|given| given.origin != Origin::Default);
        given.map(|given| (given.option.name, given.values)).collect()
    }

    #[test]
    fn links_of_static_files_lead_as_far_as_they_did() {
        for (text, expected) in [
            ("static-map = /s=/srv/s\n", Some("beneath")),
            ("static-map2 = /s=/srv\n", Some("beneath")),
            ("check-static = /srv\n", Some("beneath")),
            ("static-map = /s=/srv/s\nstatic-safe = /srv/media\n", None),
            ("module = m\n", None),
        ] {
            let given = translated(text).given;
            let found = given.iter().find(|given| given.option.name == "static-symlinks").map(|given| given.values.concat());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn static_files_and_mounts_stay_what_they_are() {
        let own = |pairs: &[(&'static str, &[&str])]| -> Vec<(&'static str, Vec<String>)> {
            pairs.iter().map(|(name, values)| (*name, values.iter().map(|value| value.to_string()).collect())).collect()
        };
        for (text, expected) in [
            (
                "check-static = /srv/public\nstatic-map = /s=/srv/s\nstatic-map2 = /m=/srv/\nstatic-index = index.html\n",
                &[("static-map", &["/=/srv/public", "/s=/srv/s", "/m=/srv/m"][..]), ("static-index", &["index.html"])][..],
            ),
            ("static-gzip-all = true\n", &[("static-precompressed", &["true"])]),
            ("module = m\nmount = /a=b.py\n", &[("app", &["m"]), ("mount", &["/a=b.py"])]),
            ("mount = /a=b:c\nmount = /d=e\n", &[("app", &["b:c"]), ("mount", &["/a=b:c", "/d=e"])]),
            ("mount = /a=b\nno-default-app = true\nmanage-script-name = true\n", &[("mount", &["/a=b"])]),
            ("callable = app\nmodule = m\nmount = /a=b.py\n", &[("app", &["m:app"]), ("mount", &["/a=b.py:app"])]),
            ("mount = /a=b\nmount = /=m\n", &[("app", &["m"]), ("mount", &["/a=b"])]),
            (
                "module = m\nmount = h.test/=b\nmount = h.test/c=d\n",
                &[("app", &["m"]), ("mount", &["h.test:/=b", "h.test:/c=d"])],
            ),
        ] {
            assert_eq!(asked(text), own(expected), "{text}");
            let translation = translated(text);
            assert_eq!(translation.lost, [] as [&str; 0], "{text}");
            assert!(merge(translation.given).is_ok(), "{text}");
        }
        for text in
            ["mount = b.py\n", "mount = h.test:80/a=b\n", "mount = h.test=b\n", "module = m\nmount = /=b\n", "static-map2 = x\n"]
        {
            assert_eq!(translated(text).lost.len(), 1, "{text}");
        }
    }

    #[test]
    fn addresses_with_certificates_are_those_of_tls() {
        for line in [
            "https = 0.0.0.0:443,/etc/c.pem,/etc/k.pem,HIGH,!/etc/ca.pem",
            "https-socket = addr=0.0.0.0:443,cert=/etc/c.pem,key=/etc/k.pem,clientca=!/etc/ca.pem",
        ] {
            let translation = translated(&format!("{line}\nhttp = :80\nprocesses = 1\nharakiri = 1\nlogto = x\n"));
            let values = values(&translation);
            let expected = [
                ("bind", "https:0.0.0.0:443 http::80".into()),
                ("certfile", "/etc/c.pem".into()),
                ("keyfile", "/etc/k.pem".into()),
                ("ca-certs", "/etc/ca.pem".into()),
                ("cert-reqs", "required".into()),
            ];
            assert_eq!(values[..5], expected, "{line}");
            let said = translation.lost.iter().filter(|text| text.contains("ciphers are not chosen by hand")).count();
            assert_eq!(said, usize::from(line.contains("HIGH")));
            assert!(merge(translation.given).is_ok());
        }
    }

    #[test]
    fn what_has_no_counterpart_is_lost_with_a_reason() {
        let translation = translated(
            "cheaper = 2\nstats = :9191\nstatic-expires = /.* 60\ntouch-reload = x\ngevent = 100\nzzz = 1\nhttps = :443\n",
        );
        assert_eq!(translation.lost.len(), 7, "{:?}", translation.lost);
        assert!(translation.lost[0].starts_with("cheaper = 2 (line 1): "), "{:?}", translation.lost);
        assert_eq!(values(&translation), [("workers", "1".into()), ("timeout", "0".into()), ("access-logfile", "-".into())]);
    }
}
