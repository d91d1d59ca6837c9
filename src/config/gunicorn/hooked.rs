//! The settings as hooks see them: by gunicorn's names, with the values that hold, in Python's types.

use std::time::Duration;

use super::super::hooks::HookValue;
use super::super::merge::Configuration;
use super::super::options::{Opt, ValueKind};
use super::super::origin::Given;
use super::super::value;
use super::SETTINGS;

/// What stands in the table for the value of an option that takes bytes.
const SIZE: &str = "SIZE";

/// The settings that are options.
pub fn effective(configuration: &Configuration) -> Vec<(String, HookValue)> {
    let set = SETTINGS.iter().filter_map(|setting| {
        let given = configuration.given(setting.option()?.name);
        Some((setting.name.to_owned(), given.map_or(HookValue::None, value_of)))
    });
    set.collect()
}

fn value_of(given: &Given) -> HookValue {
    let Given { option, values, .. } = given;
    match (option.kind, &values[..]) {
        (ValueKind::List, values) => HookValue::List(values.to_vec()),
        (ValueKind::Flag, [text]) => value::flag(text).map_or(HookValue::None, HookValue::Bool),
        (ValueKind::Octal, [text]) => {
            i64::from_str_radix(text.trim_start_matches("0o"), 8).map_or(HookValue::None, HookValue::Integer)
        }
        (ValueKind::Number, [text]) => number(option, text),
        (_, values) => HookValue::Text(values.concat()),
    }
}

/// A number as Python has it: whole, or seconds, or bytes. A word such as `auto` stays one.
fn number(option: &Opt, text: &str) -> HookValue {
    if let Ok(number) = text.parse() {
        return HookValue::Integer(number);
    }
    // `m` is minutes of a time and mebibytes of a size.
    if option.value == SIZE {
        let bytes = value::size(text, 0, i64::MAX as u64).ok().and_then(|bytes| i64::try_from(bytes).ok());
        return bytes.map_or(HookValue::None, HookValue::Integer);
    }
    match value::duration(text, Duration::ZERO, Duration::MAX) {
        Ok(time) if time.subsec_nanos() == 0 => i64::try_from(time.as_secs()).map_or(HookValue::None, HookValue::Integer),
        Ok(time) => HookValue::Float(time.as_secs_f64()),
        Err(_) => HookValue::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, merge, options};

    #[test]
    fn settings_have_the_values_that_hold_in_pythons_types() {
        let given = |name: &str, values: &[&str]| Given {
            option: options::find(name).expect(name),
            values: values.iter().map(|value| value.to_string()).collect(),
            origin: Origin::CommandLine,
        };
        let configuration = merge([
            given("workers", &["3"]),
            given("timeout", &["2m"]),
            given("keep-alive", &["1.5"]),
            given("limit-request-line", &["8k"]),
            given("bind", &[":80", "unix:/x"]),
            given("umask", &["027"]),
            given("daemon", &["true"]),
            given("log-level", &["debug"]),
        ]);
        let settings = effective(&configuration.unwrap());
        let value = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let text = |text: &str| HookValue::Text(text.into());
        for (name, expected) in [
            ("workers", HookValue::Integer(3)),
            ("timeout", HookValue::Integer(120)),
            ("keepalive", HookValue::Float(1.5)),
            ("limit_request_line", HookValue::Integer(8192)),
            ("bind", HookValue::List(vec![":80".into(), "unix:/x".into()])),
            ("umask", HookValue::Integer(0o27)),
            ("daemon", HookValue::Bool(true)),
            ("loglevel", text("debug")),
            ("errorlog", text("-")),
            ("chdir", HookValue::None),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        assert_eq!(value("worker_class"), None);
    }
}
