//! gunicorn's settings, all of them, and what each becomes here: an option, a word about what takes its place, or a refusal with
//! the reason. Command line, environment, TOML file and gunicorn file read the same table, so a setting is treated alike
//! wherever it is given.

mod file;
mod hooked;
mod judged;
mod source;
mod table;
mod value;
mod words;

use super::error::{Error, shown};
use super::notice::Notice;
use super::options::{self, Opt};
use super::origin::{Given, Origin};

pub use super::origin::ARGUMENTS_VARIABLE;
pub use file::{Content, FileLayer, Name};
pub use hooked::effective;
pub use source::Source;
pub use table::SETTINGS;
pub use value::Value;
pub use words::split;

/// The version of gunicorn whose settings these are.
pub const VERSION: &str = "27.0.1";

/// Its default of an option that here has another one, for those who bring their files along: applications keep state in their only
/// process, and memory is planned for it.
pub const WORKERS: (&str, &str) = ("workers", "1");

/// The file that gunicorn reads when no other is named, in the working directory.
pub const DEFAULT_FILE: &str = "gunicorn.conf.py";

/// A name of a gunicorn file less similar to a setting (Jaro-Winkler, 0 to 1) is a variable of its own.
const MISSPELT: f64 = 0.92;

/// One setting of gunicorn.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in a gunicorn file.
    pub name: &'static str,
    /// Its long flags without dashes. Empty where the flags are those of an option, and where gunicorn has none.
    pub flags: &'static [&'static str],
    /// Its short flag, likewise.
    pub short: Option<char>,
    /// Whether its flag stands alone.
    pub switch: bool,
    /// Whether it asks for something when it is off, as its flag does.
    pub off: bool,
    /// The value that asks for nothing, as a rule gunicorn's default; `None` and false ask for nothing anyway.
    pub plain: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It is the option of this name.
    Option(&'static str),
    /// Accepted, and the log says at level info why nothing is to be done.
    Told(&'static str),
    /// Accepted, and the log warns of what does not happen.
    Missed(&'static str),
    /// Refused: why, and what to do.
    Refused(&'static str),
    /// It depends on the value.
    Judged {
        /// Which values are accepted, for the manual page.
        about: &'static str,
        /// Decides.
        judge: fn(&str) -> Ruling,
    },
    /// A function of the file that gunicorn calls.
    Hook,
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It asks for what is the case.
    Nothing,
    /// See [`Treatment::Told`].
    Told(String),
    /// See [`Treatment::Missed`].
    Missed(String),
    /// See [`Treatment::Refused`].
    Refused(String),
}

/// What a source has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// An option.
    Option(Given),
    /// A word for the log.
    Notice(Notice),
    /// Nothing.
    Nothing,
}

impl Setting {
    /// The option that it is, if it is one.
    pub fn option(&self) -> Option<&'static Opt> {
        match self.treatment {
            Treatment::Option(name) => options::find(name),
            Treatment::Told(_) | Treatment::Missed(_) | Treatment::Refused(_) | Treatment::Judged { .. } | Treatment::Hook => {
                None
            }
        }
    }

    /// Whether the file's value is a function that gunicorn calls.
    pub fn is_hook(&self) -> bool {
        matches!(self.treatment, Treatment::Hook)
    }

    /// What this value means.
    pub fn take(&self, value: &Value, origin: &Origin) -> Result<Taken, Error> {
        let text = value.text();
        let is_plain = if self.off { text.eq_ignore_ascii_case(self.plain) } else { text == self.plain };
        if *value == Value::None || !self.plain.is_empty() && is_plain {
            return Ok(Taken::Nothing);
        }
        if let Some(option) = self.option() {
            let values = value.of_option(option).map_err(|why| self.error(value, origin, &why))?;
            return Ok(values.map_or(Taken::Nothing, |values| Taken::Option(Given { option, values, origin: origin.clone() })));
        }
        if *value == Value::Bool(false) && !self.off || text.is_empty() {
            return Ok(Taken::Nothing);
        }
        let ruling = match self.treatment {
            Treatment::Told(why) => Ruling::Told(why.into()),
            Treatment::Missed(why) => Ruling::Missed(why.into()),
            Treatment::Refused(why) => Ruling::Refused(why.into()),
            Treatment::Judged { judge, .. } => judge(&text),
            Treatment::Hook => Ruling::Refused(
                "is a function that gunicorn calls; define it in a gunicorn.conf.py, which --config may name".into(),
            ),
            Treatment::Option(_) => Ruling::Nothing,
        };
        Ok(match ruling {
            Ruling::Nothing => Taken::Nothing,
            Ruling::Told(why) => Taken::Notice(Notice::info(self.sentence(value, origin, &why))),
            Ruling::Missed(why) => Taken::Notice(Notice::warning(self.sentence(value, origin, &why))),
            Ruling::Refused(why) => return Err(self.error(value, origin, &why)),
        })
    }

    fn error(&self, value: &Value, origin: &Origin, why: &str) -> Error {
        Error::Setting(self.sentence(value, origin, why))
    }

    /// The setting as its source spells it, with the value, the source, and `why`.
    fn sentence(&self, value: &Value, origin: &Origin, why: &str) -> String {
        let text = shown(&value.text());
        let flag = match (self.flags, self.option()) {
            ([flag, ..], _) => flag,
            ([], Some(option)) => option.name,
            ([], None) => self.name,
        };
        match origin {
            Origin::CommandLine | Origin::GunicornArguments | Origin::GunicornDefault | Origin::Default => match self.switch {
                true => format!("--{flag} ({origin}): {why}"),
                false => format!("--{flag} {text} ({origin}): {why}"),
            },
            Origin::Environment(variable) => format!("{variable}={text} (environment): {why}"),
            Origin::File { .. } => format!("{} = {text} ({origin}): {why}", self.name),
            Origin::Call => format!("{}={text} ({origin}): {why}", self.name),
        }
    }
}

/// The setting with this name in a gunicorn file, or with this flag; written with `-` or `_`.
pub fn find(name: &str) -> Option<&'static Setting> {
    let name = name.replace('-', "_");
    SETTINGS.iter().find(|setting| setting.name == name || setting.flags.iter().any(|flag| flag.replace('-', "_") == name))
}

/// The setting that a variable of a gunicorn file was probably meant to be.
pub fn similar(variable: &str) -> Option<&'static Setting> {
    let rated = SETTINGS.iter().map(|setting| (strsim::jaro_winkler(setting.name, variable), setting));
    rated.filter(|(rate, _)| *rate >= MISSPELT).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, setting)| setting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::logs::Level;

    fn take(name: &str, value: Value) -> Result<Taken, Error> {
        find(name).expect(name).take(&value, &Origin::CommandLine)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn every_name_means_one_setting() {
        for setting in SETTINGS {
            let keys = || std::iter::once(&setting.name).chain(setting.flags);
            for key in keys() {
                let others = SETTINGS.iter().filter(|other| other.name != setting.name);
                assert!(others.clone().all(|other| other.name != *key && !other.flags.contains(key)), "{key}");
                assert!(options::find(key).is_none() || setting.option() == options::find(key), "{key} is another option");
            }
            assert!(!matches!(setting.treatment, Treatment::Option(_)) || setting.option().is_some(), "{}", setting.name);
            assert!(setting.option().is_none() || setting.flags.is_empty(), "{}: the option has the flags", setting.name);
            assert!(options::TABLE.iter().all(|o| o.short.is_none() || o.short != setting.short), "{}", setting.name);
        }
    }

    #[test]
    fn a_setting_is_an_option_a_word_or_a_refusal() {
        let Ok(Taken::Option(given)) = take("accesslog", text("-")) else { panic!() };
        assert_eq!((given.option.name, given.values), ("access-logfile", vec!["-".to_string()]));
        let Ok(Taken::Notice(notice)) = take("worker_class", text("gthread")) else { panic!() };
        assert_eq!(notice.level, Level::Info);
        assert!(notice.text.starts_with("--worker-class gthread (command line): "), "{notice}");
        let Ok(Taken::Notice(notice)) = take("tmp_upload_dir", text("/srv")) else { panic!() };
        assert_eq!(notice.level, Level::Warning);
        assert!(notice.text.starts_with("--tmp_upload_dir /srv (command line): "), "{notice}");
        let Ok(Taken::Notice(notice)) = take("worker_class", text("gevent")) else { panic!() };
        assert_eq!(notice.level, Level::Warning);
        assert!(
            notice.text.starts_with("--worker-class gevent (command line): ") && notice.text.contains("--threads"),
            "{notice}"
        );
        let error = take("worker_class", text("uvicorn.workers.UvicornWorker")).unwrap_err().to_string();
        assert!(error.starts_with("--worker-class uvicorn.workers.UvicornWorker (command line): "), "{error}");
        let Ok(Taken::Notice(notice)) = take("sendfile", Value::Bool(false)) else { panic!() };
        assert!(notice.text.starts_with("--no-sendfile (command line): "), "{notice}");
        for (name, value) in
            [("reload", Value::Bool(false)), ("certfile", Value::None), ("header_map", text("drop")), ("sendfile", text("true"))]
        {
            assert_eq!(take(name, value), Ok(Taken::Nothing), "{name}");
        }
    }

    #[test]
    fn a_variable_close_to_a_setting_is_noticed_and_others_are_not() {
        let guess = |name| similar(name).map(|setting| setting.name);
        assert_eq!(guess("worker_clas"), Some("worker_class"));
        assert_eq!(guess("accesslogs"), Some("accesslog"));
        for name in
            ["cores", "port", "host", "workers_per_core", "max_workers", "os", "multiprocessing", "log_level", "loglevels"]
        {
            if name != "loglevels" {
                assert_eq!(guess(name).filter(|_| name != "log_level"), None, "{name}");
            }
        }
    }
}
