//! Options from the environment: `TAPSTER_<OPTION>`, and a few variables that other software sets for every server.

use std::ffi::{OsStr, OsString};

use super::error::{Error, shown};
use super::gunicorn::{self, ARGUMENTS_VARIABLE, Taken, Value};
use super::notice::Notice;
use super::options::{self, Opt, PREFIX, TABLE};
use super::origin::{Given, Origin};

/// What the environment gives.
#[derive(Debug, Default, PartialEq)]
pub struct Environment {
    /// Options by variables that other software sets for every server. Below the file.
    pub foreign: Vec<Given>,
    /// Options by our own variables. Above the file.
    pub own: Vec<Given>,
    /// Arguments for gunicorn.
    pub arguments: Option<OsString>,
    /// What the log is told.
    pub notices: Vec<Notice>,
}

/// Reads the options among `variables`. Variables with our prefix that are no option give warnings; they are not errors because
/// the environment has many writers. An empty variable counts as not set, since many tools cannot leave one out.
pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
    let Environment { mut foreign, mut own, mut arguments, notices: mut warnings } = Environment::default();
    let variables: Vec<_> = variables.into_iter().collect();
    // Then SCRIPT_NAME belongs to the one request that the process is for.
    let is_cgi = variables.iter().any(|(variable, _)| variable == "GATEWAY_INTERFACE");
    for (variable, value) in variables {
        let Some(variable) = variable.to_str() else { continue };
        if value.is_empty() || is_cgi && variable == "SCRIPT_NAME" {
            continue;
        }
        if let Some(option) = TABLE.iter().find(|option| option.foreign == Some(variable)) {
            let mut whole = OsString::from(option.foreign_before);
            whole.push(&value);
            foreign.push(given(option, variable, &whole)?);
        }
        if variable == ARGUMENTS_VARIABLE {
            arguments = Some(value);
            continue;
        }
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        match find(name) {
            Some(option) => {
                let given = given(option, variable, &value)?;
                if let Some(other) = own.iter().find(|other| other.option == option) {
                    return Err(value_error(&given, format!("the same option is given by {}; unset one", other.origin)));
                }
                own.push(given);
            }
            None => match setting(name) {
                Some(setting) => {
                    let text = Value::Text(value.to_string_lossy().into_owned());
                    if let Taken::Notice(notice) = setting.take(&text, &Origin::Environment(variable.into()))? {
                        warnings.push(notice);
                    }
                }
                None => warnings.push(Notice::warning(unknown(variable, name))),
            },
        }
    }
    warnings.sort_by(|one, other| one.text.cmp(&other.text));
    Ok(Environment { foreign, own, arguments, notices: warnings })
}

/// The setting of gunicorn that a variable of ours names and that is no option.
fn setting(name: &str) -> Option<&'static gunicorn::Setting> {
    let lower = name.to_ascii_lowercase();
    gunicorn::find(&lower).filter(|setting| setting.option().is_none() && name == lower.to_ascii_uppercase())
}

fn find(name: &str) -> Option<&'static Opt> {
    let lower = name.to_ascii_lowercase();
    let option = options::find(&lower).or_else(|| gunicorn::find(&lower)?.option());
    option.filter(|option| option.sources.environment() && name == lower.to_ascii_uppercase())
}

fn given(option: &'static Opt, variable: &str, value: &OsStr) -> Result<Given, Error> {
    let origin = Origin::Environment(variable.into());
    let Some(text) = value.to_str() else {
        let (value, why) = (value.to_string_lossy().into_owned(), "is not valid UTF-8".into());
        return Err(Error::Value { option, value, origin, why });
    };
    let values = match option.separator {
        Some(separator) => text.split(separator).map(|part| part.trim().into()).collect(),
        None => vec![text.into()],
    };
    Ok(Given { option, values, origin })
}

fn value_error(given: &Given, why: String) -> Error {
    Error::Value { option: given.option, value: given.values.join(","), origin: given.origin.clone(), why }
}

fn unknown(variable: &str, name: &str) -> String {
    let variable = shown(variable);
    if let Some(option) = options::find(&name.to_ascii_lowercase()) {
        return match option.sources.environment() {
            true => format!("{variable} (environment) is ignored: did you mean {}?", option.variable()),
            false => format!("{variable} (environment) is ignored: this option cannot be given in the environment"),
        };
    }
    match options::similar(name, |option| option.sources.environment()) {
        Some(option) => format!("{variable} (environment) is ignored: no such option; did you mean {}?", option.variable()),
        None => format!("{variable} (environment) is ignored: no such option; 'tapster --help' lists them all"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<Environment, Error> {
        read(pairs.iter().map(|(k, v)| (k.into(), v.into())))
    }

    #[test]
    fn each_option_is_read_from_its_variable() {
        let Environment { own: given, notices, .. } =
            read_pairs(&[("TAPSTER_LIMIT_REQUEST_FIELD_SIZE", "1k"), ("TAPSTER_BIND", ":1, [::1]:2"), ("PATH", "/bin")]).unwrap();
        assert_eq!(notices, []);
        assert_eq!(given[0].option.name, "limit-request-field_size");
        assert_eq!(given[0].values, ["1k"]);
        assert_eq!(given[1].values, [":1", "[::1]:2"]);
        assert_eq!(given[1].origin, Origin::Environment("TAPSTER_BIND".into()));
    }

    #[test]
    fn variables_that_other_software_sets_are_kept_apart() {
        let read =
            read_pairs(&[("TAPSTER_WORKERS", "2"), ("WEB_CONCURRENCY", "3"), ("PORT", "80"), ("GUNICORN_CMD_ARGS", "-w 4")]);
        let read = read.unwrap();
        let texts = |layer: &[Given]| layer.iter().map(|g| g.values.join(",")).collect::<Vec<_>>();
        assert_eq!(texts(&read.own), ["2"]);
        assert_eq!(texts(&read.foreign), ["3", "0.0.0.0:80"]);
        assert_eq!(read.arguments, Some("-w 4".into()));
        assert_eq!(texts(&read_pairs(&[("TAPSTER_WORKERS", ""), ("PORT", "")]).unwrap().foreign), Vec::<String>::new());
    }

    #[test]
    fn settings_of_gunicorn_are_variables_too() {
        let read = read_pairs(&[("TAPSTER_ACCESSLOG", "-"), ("TAPSTER_WORKER_CLASS", "gthread")]).unwrap();
        assert_eq!(read.own[0].option.name, "access-logfile");
        assert!(read.notices[0].text.starts_with("TAPSTER_WORKER_CLASS=gthread (environment): "), "{:?}", read.notices);
        let error = read_pairs(&[("TAPSTER_WORKER_CLASS", "tornado")]).unwrap_err().to_string();
        assert!(error.starts_with("TAPSTER_WORKER_CLASS=tornado (environment): runs Tornado's loop"), "{error}");
    }

    #[test]
    fn an_unknown_variable_with_our_prefix_is_a_warning() {
        let Environment { own: given, notices: warnings, .. } = read_pairs(&[
            ("TAPSTER_WORKRES", "2"),
            ("TAPSTER_ZZZ", "2"),
            ("TAPSTER_ENV", "A=1"),
            ("TAPSTER_HELP", "1"),
            ("TAPSTER_bind", ":1"),
        ])
        .unwrap();
        assert_eq!(given, []);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        for (variable, why) in [
            ("TAPSTER_WORKRES", "did you mean TAPSTER_WORKERS?"),
            ("TAPSTER_bind", "did you mean TAPSTER_BIND?"),
            ("TAPSTER_ENV", "cannot be given in the environment"),
            ("TAPSTER_ZZZ", "'tapster --help' lists them all"),
        ] {
            assert!(warnings.iter().any(|w| w.text.starts_with(variable) && w.text.ends_with(why)), "{variable}: {warnings:?}");
        }
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_only_when_it_is_an_option() {
        let bytes = || OsString::from_vec(vec![b'a', 0xff]);
        assert_eq!(read([("LANG".into(), bytes()), (bytes(), "x".into())]).unwrap(), Environment::default());
        let error = read([("TAPSTER_CHDIR".into(), bytes())]).unwrap_err().to_string();
        assert_eq!(error, "TAPSTER_CHDIR=a\u{fffd} (environment): is not valid UTF-8");
    }

    #[test]
    fn two_variables_for_one_option_contradict_each_other() {
        let error = read_pairs(&[("TAPSTER_LOG_FILE", "a"), ("TAPSTER_ERROR_LOGFILE", "b")]).unwrap_err().to_string();
        assert!(error.contains("given by environment TAPSTER_LOG_FILE; unset one"), "{error}");
    }
}
