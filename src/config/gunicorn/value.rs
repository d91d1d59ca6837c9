//! A value as a source gives it: text, or what Python and TOML have besides.

use std::fmt::Write;

use super::super::options::{Opt, ValueKind};

/// A value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Python's None.
    None,
    /// A switch.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// Several values.
    List(Vec<Self>),
    /// A dict, as the JSON that stands for it.
    Json(String),
    /// Something else, as Python shows it.
    Other(String),
}

impl Value {
    /// As messages show it, and as judges read it.
    pub fn text(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) | Self::Json(text) | Self::Other(text) => text.trim().into(),
            Self::List(items) => {
                let mut text = String::new();
                for item in items {
                    let comma = if text.is_empty() { "" } else { "," };
                    write!(text, "{comma}{}", item.text()).expect("a String takes all");
                }
                text
            }
        }
    }

    /// The texts that an option takes for it; `None`: it is not given. The error is the clause that follows the value in a
    /// message.
    pub(in crate::config) fn of_option(&self, option: &Opt) -> Result<Option<Vec<String>>, String> {
        if let (Some(bare), Self::Bool(on)) = (option.bare, self) {
            return Ok(on.then(|| vec![bare.into()]));
        }
        let text = match (option.kind, self) {
            (ValueKind::List, Self::Text(text)) => match option.separator {
                Some(separator) => return Ok(Some(text.split(separator).map(|part| part.trim().into()).collect())),
                None => return Ok(Some(vec![text.clone()])),
            },
            (ValueKind::List, Self::List(items)) => {
                let text = |item: &Self| match item {
                    Self::Text(text) => Ok(text.trim().to_owned()),
                    _ => Err("must be a list of strings".to_owned()),
                };
                return items.iter().map(text).collect::<Result<_, _>>().map(Some);
            }
            (ValueKind::List, _) => return Err("must be a string or a list of strings".into()),
            (ValueKind::Flag, Self::Bool(flag)) => flag.to_string(),
            // gunicorn takes the words in any case.
            (ValueKind::Flag, Self::Text(text)) => text.trim().to_ascii_lowercase(),
            (ValueKind::Flag, _) => return Err("must be True or False".into()),
            // A number of Python's is the mask itself.
            (ValueKind::Octal, Self::Integer(mask)) if *mask >= 0 => format!("{mask:o}"),
            (ValueKind::Octal, Self::Text(text)) => text.trim().into(),
            (ValueKind::Octal, _) => return Err("must be a number such as 0o022".into()),
            (ValueKind::Number, Self::Integer(number)) => number.to_string(),
            (ValueKind::Number, Self::Float(number)) => number.to_string(),
            (ValueKind::Number, Self::Text(text)) => text.trim().into(),
            (ValueKind::Number, _) => return Err("must be a number".into()),
            (ValueKind::Text | ValueKind::Positional, Self::Text(text) | Self::Json(text)) => text.trim().into(),
            (ValueKind::Text | ValueKind::Positional, Self::Integer(number)) => number.to_string(),
            (ValueKind::Text, Self::Other(_)) => {
                return Err("must be plain data: strings, numbers, lists and dicts of them".into());
            }
            (ValueKind::Text | ValueKind::Positional, _) => return Err("must be a string".into()),
            // They steer gunicorn's command and mean nothing in a file.
            (ValueKind::Switch, _) => return Ok(None),
        };
        Ok(Some(vec![text]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn what_python_has_becomes_the_texts_of_an_option() {
        let text = |t: &str| Value::Text(t.into());
        for (option, value, expected) in [
            ("bind", text("0.0.0.0:80, [::]:80"), Some(vec!["0.0.0.0:80", "[::]:80"])),
            ("bind", Value::List(vec![text(":1"), text("unix:a,b")]), Some(vec![":1", "unix:a,b"])),
            ("workers", Value::Integer(9), Some(vec!["9"])),
            ("workers", text(" 3 "), Some(vec!["3"])),
            ("daemon", Value::Bool(true), Some(vec!["true"])),
            ("daemon", text("True"), Some(vec!["true"])),
            ("umask", Value::Integer(0o27), Some(vec!["27"])),
            ("user", Value::Integer(33), Some(vec!["33"])),
            ("log-syslog", Value::Bool(true), Some(vec!["/dev/log"])),
            ("log-syslog", Value::Bool(false), None),
            ("proxy-protocol", Value::Bool(true), Some(vec!["auto"])),
            ("check-config", Value::Bool(true), None),
        ] {
            let expected = expected.map(|texts| texts.into_iter().map(String::from).collect());
            assert_eq!(value.of_option(options::find(option).unwrap()), Ok(expected), "{option} {value:?}");
        }
        for (option, value) in [
            ("bind", Value::Integer(80)),
            ("bind", Value::List(vec![Value::Integer(80)])),
            ("workers", Value::Bool(true)),
            ("daemon", Value::Integer(1)),
            ("user", Value::List(vec![])),
        ] {
            assert!(value.of_option(options::find(option).unwrap()).is_err(), "{option} {value:?}");
        }
    }
}
