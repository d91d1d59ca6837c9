//! Options from the configuration file: TOML, one key per option, nothing nested but the variables of `env`. gunicorn's names of
//! settings are keys as well.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::Error;
use super::gunicorn::{self, Taken, Value};
use super::notice::Notice;
use super::options::{self, Opt, ValueKind};
use super::origin::{Given, Origin};

/// Reads the options of a file's content, and what the log is told about gunicorn's settings in it; `path` is for messages.
pub fn read(content: &[u8], path: &Path) -> Result<(Vec<Given>, Vec<Notice>), Error> {
    let content = std::str::from_utf8(content).map_err(|e| Error::File {
        path: path.into(),
        line: Some(line_of(content, e.valid_up_to())),
        why: "is not valid UTF-8".into(),
    })?;
    let table = DeTable::parse(content).map_err(|e| Error::File {
        path: path.into(),
        line: e.span().map(|span| line_of(content.as_bytes(), span.start)),
        why: format!(
            "is not TOML: {} (a gunicorn file ends in .py, or is named as file:PATH)",
            e.message().lines().collect::<Vec<_>>().join("; ")
        ),
    })?;
    let mut given: Vec<Given> = Vec::new();
    let mut notices = Vec::new();
    // The table is ordered by key; messages follow the order of the file.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let origin = Origin::File { path: path.into(), line: Some(line_of(content.as_bytes(), key.span().start)) };
        let name: &str = key.get_ref();
        let setting = gunicorn::find(name);
        let known = options::find(name).or_else(|| setting?.option());
        let Some(option) = known.filter(|option| option.sources.file()) else {
            if let (Some(setting), None) = (setting, known) {
                if let Taken::Notice(notice) = setting.take(&value_of(value.get_ref()), &origin)? {
                    notices.push(notice);
                }
                continue;
            }
            return Err(match known {
                Some(option) => Error::Value {
                    option,
                    value: text_of(value.get_ref()),
                    origin,
                    why: "is of no use in the file; give it on the command line".into(),
                },
                None => Error::UnknownKey { key: name.into(), origin, suggestion: options::similar(name, |o| o.sources.file()) },
            });
        };
        if option.bare.is_some() && matches!(value.get_ref(), DeValue::Boolean(false)) {
            continue;
        }
        let values = match values_of(option, value) {
            Ok(values) => values,
            Err(why) => return Err(Error::Value { option, value: text_of(value.get_ref()), origin, why }),
        };
        if let Some(other) = given.iter().find(|other| other.option == option) {
            let why = format!("the same option is given by {}; leave one out", other.origin);
            return Err(Error::Value { option, value: values.join(", "), origin, why });
        }
        given.push(Given { option, values, origin });
    }
    Ok((given, notices))
}

/// A value as settings of gunicorn take it.
fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => decimal(number).map_or_else(Value::Other, Value::Text),
        DeValue::Array(items) => Value::List(items.iter().map(|item| value_of(item.get_ref())).collect()),
        DeValue::String(_) | DeValue::Float(_) | DeValue::Datetime(_) => Value::Text(text_of(value)),
        DeValue::Table(_) => Value::Other(text_of(value)),
    }
}

fn values_of(option: &Opt, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let value = value.get_ref();
    match option.kind {
        ValueKind::Text if option.bare.is_some() && matches!(value, DeValue::Boolean(true)) => {
            Ok(option.bare.into_iter().map(String::from).collect())
        }
        ValueKind::Positional | ValueKind::Text => {
            string(value).map(|text| vec![text]).ok_or("must be a string in quotes".into())
        }
        ValueKind::Number => match value {
            DeValue::Integer(number) => decimal(number).map(|text| vec![text]),
            DeValue::Float(number) => Ok(vec![number.as_str().into()]),
            _ => string(value).map(|text| vec![text]).ok_or("must be a number or a string".into()),
        },
        ValueKind::Octal => match value {
            DeValue::Integer(number) if number.radix() == 8 => Ok(vec![number.as_str().into()]),
            DeValue::Integer(_) => Err("would be decimal in TOML; write the octal digits in quotes, or 0o in front".into()),
            _ => string(value).map(|text| vec![text]).ok_or("must be a string of octal digits".into()),
        },
        ValueKind::Flag => match value {
            DeValue::Boolean(flag) => Ok(vec![flag.to_string()]),
            _ => Err("must be true or false, without quotes".into()),
        },
        ValueKind::List => list(option, value),
        ValueKind::Switch => Err("belongs on the command line".into()),
    }
}

/// An array of strings; a string stands for an array of one, a table for `KEY=VALUE` pairs where those are expected.
fn list(option: &Opt, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Array(items) => {
            items.iter().map(|item| string(item.get_ref()).ok_or("must be an array of strings".into())).collect()
        }
        DeValue::Table(table) if option.name == "env" => table
            .iter()
            .map(|(key, value)| match string(value.get_ref()) {
                Some(text) => Ok(format!("{}={text}", key.get_ref())),
                None => Err(format!("must have strings as values, but {} is none", key.get_ref())),
            })
            .collect(),
        _ => Err("must be a string or an array of strings".into()),
    }
}

fn string(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(String::from)
}

/// TOML numbers may be hexadecimal, octal or binary; options read decimal text.
fn decimal(number: &DeInteger<'_>) -> Result<String, String> {
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Ok(number.to_string()),
        Err(_) => Err("is too large".into()),
    }
}

/// A value of any shape, for messages.
fn text_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".into(),
        DeValue::Table(_) => "{...}".into(),
    }
}

fn line_of(content: &[u8], offset: usize) -> usize {
    1 + content[..offset.min(content.len())].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(content: &str) -> Vec<(&'static str, Vec<String>)> {
        let (given, _) = read(content.as_bytes(), Path::new("t.toml")).unwrap_or_else(|e| panic!("{content}: {e}"));
        given.into_iter().map(|g| (g.option.name, g.values)).collect()
    }

    fn error(content: &str) -> String {
        read(content.as_bytes(), Path::new("t.toml")).expect_err(content).to_string()
    }

    #[test]
    fn each_kind_of_value_is_read() {
        for (content, name, expected) in [
            ("app = 'm:app'", "app", vec!["m:app"]),
            ("workers = 0x10", "workers", vec!["16"]),
            ("reload = true", "reload", vec!["auto"]),
            ("workers = 1_0", "workers", vec!["10"]),
            ("workers = 'auto'", "workers", vec!["auto"]),
            ("keep-alive = 1.5", "keep-alive", vec!["1.5"]),
            ("keep_alive = '2m'", "keep-alive", vec!["2m"]),
            ("limit-request-field-size = '1k'", "limit-request-field_size", vec!["1k"]),
            ("umask = 0o022", "umask", vec!["022"]),
            ("umask = '27'", "umask", vec!["27"]),
            ("bind = ':1'", "bind", vec![":1"]),
            ("bind = [':1', 'unix:a,b']", "bind", vec![":1", "unix:a,b"]),
            ("env = ['A=1']", "env", vec!["A=1"]),
            ("env = { A = '1', B = 'x=y' }", "env", vec!["A=1", "B=x=y"]),
            ("[env]\nA = '1'", "env", vec!["A=1"]),
        ] {
            assert_eq!(values(content), [(name, expected.iter().map(|s| s.to_string()).collect())], "{content}");
        }
    }

    #[test]
    fn an_origin_has_the_line_of_its_key() {
        let (given, _) = read(b"# first\n\nbind = [\n ':1',\n]\nworkers = 2\n", Path::new("t.toml")).unwrap();
        let lines: Vec<_> = given.iter().map(|g| g.origin.to_string()).collect();
        assert_eq!(lines, ["file t.toml line 3", "file t.toml line 6"]);
    }

    #[test]
    fn what_cannot_be_in_the_file_is_refused_with_its_line() {
        for (content, message) in [
            ("\nwrokers = 2", "wrokers (file t.toml line 2): no such option; did you mean workers?"),
            (
                "zzz = 2",
                "zzz (file t.toml line 1): no such option; 'tapster --help' lists them all, with - or _ between the words",
            ),
            ("config = 'x'", "config = x (file t.toml line 1): is of no use in the file; give it on the command line"),
            ("app = 3", "app = 3 (file t.toml line 1): must be a string in quotes"),
            ("workers = true", "workers = true (file t.toml line 1): must be a number or a string"),
            (
                "umask = 22",
                "umask = 22 (file t.toml line 1): would be decimal in TOML; write the octal digits in quotes, or 0o in front",
            ),
            ("bind = [1]", "bind = [...] (file t.toml line 1): must be an array of strings"),
            ("bind = {a = 'b'}", "bind = {...} (file t.toml line 1): must be a string or an array of strings"),
            ("env = {A = 1}", "env = {...} (file t.toml line 1): must have strings as values, but A is none"),
            (
                "keep-alive = 1\nkeep_alive = 2",
                "keep_alive = 2 (file t.toml line 2): the same option is given by file t.toml line 1; leave one out",
            ),
            (
                "[server]\nbind = ':1'",
                "server (file t.toml line 1): no such option; 'tapster --help' lists them all, with - or _ between the words",
            ),
        ] {
            assert_eq!(error(content), message);
        }
    }

    #[test]
    fn names_of_gunicorns_settings_are_keys() {
        assert_eq!(values("accesslog = '-'"), [("access-logfile", vec!["-".to_string()])]);
        assert_eq!(values("keepalive = 2"), [("keep-alive", vec!["2".to_string()])]);
        let (given, notices) =
            read(b"worker_class = 'gthread'\nheader_map = 'drop'\nreload = false", Path::new("t.toml")).unwrap();
        assert_eq!(given, []);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert!(notice.text.starts_with("worker_class = gthread (file t.toml line 1): "), "{notice}");
        for (content, message) in [
            ("\nworker-class = 'tornado'", "worker_class = tornado (file t.toml line 2): runs Tornado's loop"),
            ("post_fork = 'x'", "post_fork = x (file t.toml line 1): is a function that gunicorn calls"),
            ("keepalive = 1\nkeep-alive = 2", "keep_alive = 2 (file t.toml line 2): the same option is given by"),
        ] {
            assert!(error(content).starts_with(message), "{}", error(content));
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_on_one_line() {
        let message = error("workers = 2\nbind =\n");
        assert!(message.starts_with("configuration file t.toml line 2: is not TOML: "), "{message}");
        assert_eq!(message.lines().count(), 1);
        let message = read(b"\n\n# \xff", Path::new("t.toml")).unwrap_err().to_string();
        assert_eq!(message, "configuration file t.toml line 3: is not valid UTF-8");
    }
}
