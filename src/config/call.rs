//! Options as arguments of a Python function: the names of the table with `_` between the words, and those of gunicorn's settings.

use super::error::Error;
use super::gunicorn::{self, Taken, Value};
use super::notice::Notice;
use super::options::{self, Opt, ValueKind};
use super::origin::{Given, Origin};

/// What the functions of other servers call it, where that is not alike: waitress, cheroot, granian, bjoern.
const FOREIGN: [(&str, &str); 11] = [
    ("address", "bind"),
    ("channel_timeout", "keep_alive"),
    ("connection_limit", "worker_connections"),
    ("listen", "bind"),
    ("max_request_body_size", "limit_request_body"),
    ("max_request_header_size", "limit_request_head"),
    ("numthreads", "threads"),
    ("processes", "workers"),
    ("request_queue_size", "backlog"),
    ("trusted_proxy", "forwarded_allow_ips"),
    ("unix_socket_perms", "umask"),
];

/// Reads the arguments, and what the log is told about gunicorn's settings among them. `None` and false are no argument, where they
/// ask for nothing.
pub fn read(arguments: impl IntoIterator<Item = (String, Value)>) -> Result<(Vec<Given>, Vec<Notice>), Error> {
    let mut given: Vec<Given> = Vec::new();
    let mut notices = Vec::new();
    for (name, value) in arguments {
        let setting = gunicorn::find(&name);
        let known = options::find(&name).or_else(|| setting?.option());
        let Some(option) = known.filter(|option| is_argument(option)) else {
            match (known, setting) {
                (None, Some(setting)) => {
                    if let Taken::Notice(notice) = setting.take(&value, &Origin::Call)? {
                        notices.push(notice);
                    }
                    continue;
                }
                (Some(option), _) => {
                    let why = "steers the command, and is no argument here".into();
                    return Err(Error::Value { option, value: value.text(), origin: Origin::Call, why });
                }
                (None, None) => return Err(Error::UnknownKey { suggestion: meant(&name), key: name, origin: Origin::Call }),
            }
        };
        if value == Value::None {
            continue;
        }
        let failed = |why| Error::Value { option, value: value.text(), origin: Origin::Call, why };
        let Some(values) = value.of_option(option).map_err(failed)? else { continue };
        if given.iter().any(|other| other.option == option) {
            return Err(failed("is given twice, by another name too; leave one out".into()));
        }
        given.push(Given { option, values, origin: Origin::Call });
    }
    Ok((given, notices))
}

/// Whether an option can be such an argument. The application is the function's own.
pub fn is_argument(option: &Opt) -> bool {
    !matches!(option.kind, ValueKind::Switch | ValueKind::Positional)
}

fn meant(name: &str) -> Option<&'static Opt> {
    let foreign = FOREIGN.iter().find(|(other, _)| *other == name).and_then(|(_, own)| options::find(own));
    foreign.or_else(|| options::similar(name, is_argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn error(name: &str, value: Value) -> String {
        read([(name.to_owned(), value)]).expect_err(name).to_string()
    }

    #[test]
    fn each_kind_of_argument_is_read() {
        for (name, value, option, expected) in [
            ("workers", Value::Integer(2), "workers", vec!["2"]),
            ("keep_alive", Value::Float(1.5), "keep-alive", vec!["1.5"]),
            ("bind", text(":1, unix:a"), "bind", vec![":1", "unix:a"]),
            ("bind", Value::List(vec![text(":1")]), "bind", vec![":1"]),
            ("env", Value::List(vec![text("A=1")]), "env", vec!["A=1"]),
            ("daemon", Value::Bool(true), "daemon", vec!["true"]),
            ("umask", Value::Integer(0o22), "umask", vec!["22"]),
            ("accesslog", text("-"), "access-logfile", vec!["-"]),
            ("config", text("x.toml"), "config", vec!["x.toml"]),
        ] {
            let (given, notices) = read([(name.to_owned(), value)]).expect(name);
            assert_eq!((given[0].option.name, &given[0].values), (option, &expected.iter().map(|s| s.to_string()).collect()));
            assert_eq!(notices, []);
        }
        assert_eq!(read([("workers".to_owned(), Value::None)]), Ok((vec![], vec![])));
    }

    #[test]
    fn a_setting_of_gunicorn_is_a_word_for_the_log() {
        let (given, notices) = read([("worker_class".to_owned(), text("gthread"))]).unwrap();
        assert_eq!(given, []);
        assert!(notices[0].text.starts_with("worker_class=gthread (argument of the call): "), "{notices:?}");
    }

    #[test]
    fn what_cannot_be_an_argument_is_refused_with_what_to_write() {
        assert_eq!(error("wrokers", text("2")), "wrokers (argument of the call): no such option; did you mean workers?");
        assert!(error("listen", text(":80")).ends_with("did you mean bind?"));
        assert!(error("zzz", text("")).contains("no such option; 'tapster --help'"));
        assert!(error("help", Value::Bool(true)).contains("steers the command"));
        assert!(error("app", text("m:app")).contains("steers the command"));
        assert_eq!(error("daemon", Value::Integer(1)), "daemon=1 (argument of the call): must be True or False");
        let twice = [("access_logfile", "-"), ("accesslog", "a")].map(|(name, value)| (name.to_owned(), text(value)));
        assert!(read(twice).unwrap_err().to_string().contains("is given twice"));
    }
}
