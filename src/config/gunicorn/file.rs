//! A gunicorn file: how it is named, and what its names mean once it was executed. It is executed elsewhere.

use std::path::PathBuf;

use super::super::error::{Error, shown};
use super::super::hooks::is_called;
use super::super::notice::Notice;
use super::super::origin::{Given, Origin};
use super::source::Source;
use super::{Taken, Value};

/// Options of a file that others than root can write, which root would act on: it opens files by them, or gives rights by them.
const FOR_ROOT: [&str; 7] = ["access-logfile", "bind", "error-logfile", "group", "log-syslog", "pid", "user"];

/// A name that a file has set.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Its value. `None`: it is a function or a variable, whose value is nobody's concern.
    pub value: Option<Value>,
    /// The line that sets it last, where the source shows it.
    pub line: Option<usize>,
}

/// What an executed file leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Settings with their values, hooks and variables without, each in the order of its line.
    pub names: Vec<Name>,
    /// The file, or a directory with code of it, that others than root can write, if the master is root.
    pub exposed: Option<PathBuf>,
}

/// What a file means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileLayer {
    /// Options.
    pub given: Vec<Given>,
    /// What the log is told.
    pub notices: Vec<Notice>,
    /// Names of the hooks that it defines.
    pub hooks: Vec<&'static str>,
}

impl Content {
    /// What the names mean; `source` is for messages. The error is the first setting that is refused.
    pub fn layer(&self, source: &Source) -> Result<FileLayer, Error> {
        let (mut layer, mut refused) = self.layer_and_refusals(source);
        if !refused.is_empty() {
            return Err(refused.remove(0));
        }
        let uncalled: Vec<_> = layer.hooks.iter().copied().filter(|name| !is_called(name)).collect();
        if !uncalled.is_empty() {
            let path = source.path();
            layer.notices.push(Notice::warning(format!(
                "{} defines functions that are not called: {}",
                shown(&path.to_string_lossy()),
                uncalled.join(", ")
            )));
        }
        Ok(layer)
    }

    /// The same with all settings that are refused.
    pub fn layer_and_refusals(&self, source: &Source) -> (FileLayer, Vec<Error>) {
        let mut layer = FileLayer::default();
        let mut refused = Vec::new();
        for Name { name, value, line } in &self.names {
            let origin = Origin::File { path: source.path(), line: *line };
            // A file may have its own variables in capitals or with hyphens, so the name is taken to the letter.
            let setting = super::SETTINGS.iter().find(|setting| setting.name == name);
            match (setting, value) {
                (Some(setting), _) if setting.is_hook() => layer.hooks.push(setting.name),
                (Some(setting), Some(value)) => {
                    let taken = setting.take(value, &origin);
                    let taken = taken.and_then(|taken| self.refuse_exposed(&taken).map(|()| taken));
                    match taken {
                        Ok(Taken::Option(given)) => layer.given.push(given),
                        Ok(Taken::Notice(notice)) => layer.notices.push(notice),
                        Ok(Taken::Nothing) => {}
                        Err(error) => refused.push(error),
                    }
                }
                (Some(_), None) => {}
                (None, _) => {
                    if let Some(setting) = super::similar(name) {
                        let text = format!(
                            "{} ({origin}) is no setting and counts as a variable; did you mean {}?",
                            shown(name),
                            setting.name
                        );
                        layer.notices.push(Notice::warning(text));
                    }
                }
            }
        }
        (layer, refused)
    }

    fn refuse_exposed(&self, taken: &Taken) -> Result<(), Error> {
        let Taken::Option(given) = taken else { return Ok(()) };
        let Some(path) = self.exposed.as_ref().filter(|_| FOR_ROOT.contains(&given.option.name)) else { return Ok(()) };
        let why = format!(
            "root acts on it, and others can write to {}, where code of the file is; make that root's own, or give the option on the \
             command line",
            shown(&path.to_string_lossy())
        );
        Err(Error::Value { option: given.option, value: given.values.join(","), origin: given.origin.clone(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, value: Option<Value>) -> Name {
        Name { name: name.into(), value, line: Some(3) }
    }

    fn source() -> Source {
        Source::File("g.conf.py".into())
    }

    #[test]
    fn the_name_says_who_reads_the_file() {
        for (config, source) in [
            ("gunicorn.conf.py", Some(Source::File("gunicorn.conf.py".into()))),
            ("file:/etc/gunicorn", Some(Source::File("/etc/gunicorn".into()))),
            ("python:shop.gunicorn", Some(Source::Module("shop.gunicorn".into()))),
            ("tapster.toml", None),
            ("/etc/shop", None),
        ] {
            assert_eq!(Source::named(config), source, "{config}");
            if let Some(source) = source {
                assert_eq!(Source::named(&source.spelt()), Some(source), "{config}");
            }
        }
    }

    #[test]
    fn names_become_options_words_hooks_or_nothing() {
        let content = Content {
            names: vec![
                name("workers", Some(Value::Integer(3))),
                name("worker_class", Some(Value::Text("gthread".into()))),
                name("app", None),
                name("env", None),
                name("worker_clas", None),
                name("post_fork", None),
                name("dirty_post_fork", None),
            ],
            exposed: None,
        };
        let layer = content.layer(&source()).unwrap();
        assert_eq!(layer.given.len(), 1);
        assert_eq!(layer.given[0].origin.to_string(), "file g.conf.py line 3");
        assert_eq!(layer.hooks, ["post_fork", "dirty_post_fork"]);
        let texts: Vec<_> = layer.notices.iter().map(|notice| notice.text.as_str()).collect();
        assert!(texts[0].starts_with("worker_class = gthread (file g.conf.py line 3): "), "{texts:?}");
        assert_eq!(
            texts[1],
            "worker_clas (file g.conf.py line 3) is no setting and counts as a variable; did you mean worker_class?"
        );
        assert_eq!(texts[2], "g.conf.py defines functions that are not called: dirty_post_fork");
    }

    #[test]
    fn root_does_not_act_on_a_file_of_others() {
        let content = |setting: &str, value| Content { names: vec![name(setting, Some(value))], exposed: Some("/srv".into()) };
        assert!(content("workers", Value::Integer(3)).layer(&source()).is_ok());
        let error = content("pidfile", Value::Text("/etc/x".into())).layer(&source()).unwrap_err().to_string();
        assert!(error.starts_with("pid = /etc/x (file g.conf.py line 3): root acts on it"), "{error}");
    }
}
