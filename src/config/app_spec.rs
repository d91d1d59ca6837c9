//! What to serve: the syntax of APP. Whether the module or the callable exists is found out by the loader.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AppSpec {
    /// The built-in welcome page.
    #[default]
    Welcome,
    /// `module[:expression]` or a path to a `.py`/`.wsgi` file with the same suffix.
    Target {
        /// Where the code is.
        code: Code,
        /// The callable in it; `None`: `application`, then `app`.
        callable: Option<Callable>,
        /// As typed, for messages.
        text: String,
    },
    /// An object of the Python program that has called the server.
    Object {
        /// The program, for messages and titles.
        text: String,
    },
}

/// Where application code is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Code {
    /// A dotted module name.
    Module(String),
    /// A file.
    File(#[serde(with = "super::paths")] PathBuf),
}

/// The expression after the colon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Callable {
    /// Attribute path: `obj.attr` is two names.
    pub path: Vec<String>,
    /// Arguments when it is a factory call: Python source of the literals between the parentheses, checked by the loader with
    /// `ast.literal_eval` rules.
    pub call: Option<String>,
}

impl AppSpec {
    /// Reads `CODE[:CALLABLE]`. CODE is a path when it ends in `.py` or contains a slash, else a module name (but see
    /// [`AppSpec::prefer_file`]); it ends at the first colon, so that the arguments of a factory may contain anything. The error
    /// says why and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("a NUL character cannot be in a name".into());
        }
        let (code, callable) = match text.split_once(':') {
            Some((code, callable)) => (code, Some(parse_callable(callable)?)),
            None => (text, None),
        };
        Ok(Self::Target { code: parse_code(code)?, callable, text: text.into() })
    }

    /// `site.wsgi` is the module of every Django project, and the file name of every mod_wsgi script. Without a slash it is a
    /// module unless `is_file` says that such a file exists in the directory where the application is loaded.
    #[must_use]
    pub fn prefer_file(self, is_file: impl FnOnce(&Path) -> bool) -> Self {
        match self {
            Self::Target { code: Code::Module(name), callable, text } if name.ends_with(".wsgi") && is_file(Path::new(&name)) => {
                Self::Target { code: Code::File(name.into()), callable, text }
            }
            Self::Welcome | Self::Target { .. } | Self::Object { .. } => self,
        }
    }
}

fn parse_code(code: &str) -> Result<Code, String> {
    if code.is_empty() {
        return Err("the module is missing; write MODULE:CALLABLE or PATH/FILE.py:CALLABLE".into());
    }
    if code.ends_with('/') {
        return Err("a directory cannot be served; name a module or a .py or .wsgi file in it".into());
    }
    if code.contains('/') || code.ends_with(".py") {
        return Ok(Code::File(code.into()));
    }
    // Wider than Python's identifiers on purpose: importlib imports `my-app` as well.
    let part_is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if !code.split('.').all(part_is_name) {
        return Err(format!("{code:?} is neither a module name nor a path; a path contains a slash or ends in .py"));
    }
    Ok(Code::Module(code.into()))
}

fn parse_callable(text: &str) -> Result<Callable, String> {
    if text.is_empty() {
        return Err("the callable is missing behind the colon; name it, or leave the colon out".into());
    }
    let (path, call) = match text.split_once('(') {
        Some((path, rest)) => (path, Some(parse_arguments(rest)?)),
        None => (text, None),
    };
    if !path.split('.').all(is_identifier) {
        return Err(format!("{path:?} is not a Python name; write NAME, NAME.ATTRIBUTE or FACTORY() behind the colon"));
    }
    Ok(Callable { path: path.split('.').map(String::from).collect(), call })
}

fn is_identifier(part: &str) -> bool {
    let mut chars = part.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_')
}

/// Takes what follows the opening parenthesis and returns what stands before the closing one, which must come last.
fn parse_arguments(rest: &str) -> Result<String, String> {
    let mut open = vec![')'];
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        if let Some(q) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == q => quote = None,
                _ => {}
            }
            continue;
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => {
                if open.pop() != Some(c) {
                    return Err(format!("{c:?} closes a bracket that is not open"));
                }
                let after = &rest[at + c.len_utf8()..];
                match (open.is_empty(), after.is_empty()) {
                    (true, true) => return Ok(rest[..at].trim().into()),
                    (true, false) => return Err(format!("{after:?} stands behind the factory call; end with the parenthesis")),
                    (false, _) => {}
                }
            }
            _ => {}
        }
    }
    Err(match quote {
        Some(_) => "a quote of the factory's arguments is not closed; quote APP for the shell, as in 'module:make(\"x\")'".into(),
        None => "the parenthesis of the factory call is not closed; quote APP for the shell, as in 'module:make()'".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attribute path and arguments.
    type Parts = (Vec<String>, Option<String>);

    fn parts(text: &str) -> (Code, Option<Parts>) {
        match AppSpec::parse(text).expect(text) {
            AppSpec::Target { code, callable, text: kept } => {
                assert_eq!(kept, text);
                (code, callable.map(|c| (c.path, c.call)))
            }
            AppSpec::Welcome | AppSpec::Object { .. } => panic!("{text} gave the welcome page"),
        }
    }

    fn module(name: &str) -> Code {
        Code::Module(name.into())
    }

    fn file(name: &str) -> Code {
        Code::File(name.into())
    }

    fn callable(path: &[&str], call: Option<&str>) -> Option<Parts> {
        Some((path.iter().map(|p| p.to_string()).collect(), call.map(String::from)))
    }

    #[test]
    fn every_form_of_an_app_is_understood() {
        assert_eq!(parts("app"), (module("app"), None));
        assert_eq!(parts("project.wsgi_2:application"), (module("project.wsgi_2"), callable(&["application"], None)));
        assert_eq!(parts("m:obj.attr"), (module("m"), callable(&["obj", "attr"], None)));
        assert_eq!(parts("m:make()"), (module("m"), callable(&["make"], Some(""))));
        assert_eq!(parts("m:f.make( 'x', k=1 )"), (module("m"), callable(&["f", "make"], Some("'x', k=1"))));
        assert_eq!(parts("m:make(\"a)b:\\\"c/d\", [1, (2,)], {})").1.unwrap().1.unwrap(), "\"a)b:\\\"c/d\", [1, (2,)], {}");
        assert_eq!(parts("path/app.py"), (file("path/app.py"), None));
        assert_eq!(parts("path/app.wsgi:app"), (file("path/app.wsgi"), callable(&["app"], None)));
        assert_eq!(parts("./serve:app"), (file("./serve"), callable(&["app"], None)));
        assert_eq!(parts("my-app:app"), (module("my-app"), callable(&["app"], None)));
        assert_eq!(parts("m:größe"), (module("m"), callable(&["größe"], None)));
    }

    #[test]
    fn a_module_called_wsgi_is_a_file_only_where_the_file_exists() {
        let code = |exists| match AppSpec::parse("site.wsgi:app").unwrap().prefer_file(|_| exists) {
            AppSpec::Target { code, .. } => code,
            AppSpec::Welcome | AppSpec::Object { .. } => panic!("welcome page"),
        };
        assert_eq!(code(false), module("site.wsgi"));
        assert_eq!(code(true), file("site.wsgi"));
        let other = AppSpec::parse("site.app").unwrap();
        assert_eq!(other.clone().prefer_file(|_| panic!("asked for a file that no path can mean")), other);
    }

    #[test]
    fn what_is_not_an_app_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "module is missing"),
            (":app", "module is missing"),
            ("m:", "callable is missing"),
            ("dir/", "directory"),
            ("a..b", "neither a module name nor a path"),
            (".a", "neither"),
            ("a b", "neither"),
            ("m:1x", "not a Python name"),
            ("m:a..b", "not a Python name"),
            ("m:(1)", "not a Python name"),
            ("m:a b", "not a Python name"),
            ("m:make(", "not closed"),
            ("m:make('x)", "quote"),
            ("m:make(]", "closes a bracket"),
            ("m:make()x", "behind the factory call"),
            ("m:make().app", "behind the factory call"),
            ("m\0", "NUL"),
        ] {
            let error = AppSpec::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
