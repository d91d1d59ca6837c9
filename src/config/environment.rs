//! Options from the environment: `TAPSTER_<OPTION>`, and a few variables that other software sets for every server.

use std::ffi::{OsStr, OsString};

use super::error::{Error, shown};
use super::options::{self, Opt, PREFIX, TABLE};
use super::origin::{Given, Origin};

/// Reads the options among `variables`; the texts are warnings about variables with our prefix that are no option. They are not
/// errors because the environment has many writers. An empty variable counts as not set, since many tools cannot leave one out.
pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(Vec<Given>, Vec<String>), Error> {
    let mut own: Vec<Given> = Vec::new();
    let mut foreign = Vec::new();
    let mut warnings = Vec::new();
    for (variable, value) in variables {
        let Some(variable) = variable.to_str() else { continue };
        if value.is_empty() {
            continue;
        }
        if let Some(option) = TABLE.iter().find(|option| option.foreign == Some(variable)) {
            foreign.push(given(option, variable, &value)?);
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
            None => warnings.push(unknown(variable, name)),
        }
    }
    warnings.sort();
    foreign.retain(|given| own.iter().all(|ours| ours.option != given.option));
    foreign.append(&mut own);
    Ok((foreign, warnings))
}

fn find(name: &str) -> Option<&'static Opt> {
    let lower = name.to_ascii_lowercase();
    options::find(&lower).filter(|option| option.sources.environment() && name == lower.to_ascii_uppercase())
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

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<(Vec<Given>, Vec<String>), Error> {
        read(pairs.iter().map(|(k, v)| (k.into(), v.into())))
    }

    #[test]
    fn each_option_is_read_from_its_variable() {
        let (given, warnings) =
            read_pairs(&[("TAPSTER_LIMIT_REQUEST_FIELD_SIZE", "1k"), ("TAPSTER_BIND", ":1, [::1]:2"), ("PATH", "/bin")]).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(given[0].option.name, "limit-request-field_size");
        assert_eq!(given[0].values, ["1k"]);
        assert_eq!(given[1].values, [":1", "[::1]:2"]);
        assert_eq!(given[1].origin, Origin::Environment("TAPSTER_BIND".into()));
    }

    #[test]
    fn our_variable_beats_a_foreign_one() {
        let values = |pairs| read_pairs(pairs).unwrap().0.into_iter().map(|g| g.values[0].clone()).collect::<Vec<_>>();
        assert_eq!(values(&[("TAPSTER_WORKERS", "2"), ("WEB_CONCURRENCY", "3")]), ["2"]);
        assert_eq!(values(&[("TAPSTER_WORKERS", ""), ("WEB_CONCURRENCY", "3")]), ["3"]);
    }

    #[test]
    fn an_unknown_variable_with_our_prefix_is_a_warning() {
        let (given, warnings) = read_pairs(&[
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
            assert!(warnings.iter().any(|w| w.starts_with(variable) && w.ends_with(why)), "{variable}: {warnings:?}");
        }
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_only_when_it_is_an_option() {
        let bytes = || OsString::from_vec(vec![b'a', 0xff]);
        assert_eq!(read([("LANG".into(), bytes()), (bytes(), "x".into())]).unwrap().0, []);
        let error = read([("TAPSTER_CHDIR".into(), bytes())]).unwrap_err().to_string();
        assert_eq!(error, "TAPSTER_CHDIR=a\u{fffd} (environment): is not valid UTF-8");
    }

    #[test]
    fn two_variables_for_one_option_contradict_each_other() {
        let error = read_pairs(&[("TAPSTER_LOG_FILE", "a"), ("TAPSTER_ERROR_LOGFILE", "b")]).unwrap_err().to_string();
        assert!(error.contains("given by environment TAPSTER_LOG_FILE; unset one"), "{error}");
    }
}
