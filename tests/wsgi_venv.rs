//! The interpreter in a virtual environment: its prefix, path and executable, also for child processes.

mod wsgi_driver;

use std::process::Command;

use tapster::config::{PythonSettings, Settings};
use tapster::wsgi;
use wsgi_driver::{log, with_python};

#[test]
fn the_virtual_environment_decides_prefix_path_and_executable() {
    with_python(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let venv = dir.path().join("venv");
        let made = Command::new(env!("BUILD_PYTHON_EXECUTABLE")).args(["-m", "venv", "--without-pip"]).arg(&venv).status();
        assert!(made.is_ok_and(|status| status.success()), "python -m venv");
        let python = PythonSettings { venv: Some(venv.clone()), pythonpath: Vec::new() };
        let settings = Settings { python, ..Settings::default() };
        wsgi::check(&settings, &log(dir.path())).unwrap_or_else(|error| panic!("{}", error.text));
        let seen: Vec<String> = pyo3::Python::attach(|py| {
            use pyo3::types::PyAnyMethods;
            let code = c"__import__('sys').prefix, __import__('sys').executable, __import__('os').fsdecode(__import__('multiprocessing.spawn').spawn.get_executable()), \
                         next(p for p in __import__('sys').path if p.endswith('site-packages')), \
                         str(__import__('sys').base_prefix != __import__('sys').prefix), __import__('subprocess').run(\
                         [__import__('sys').executable, '-c', 'import sys; print(sys.prefix, end=str())'], capture_output=True, \
                         text=True).stdout, str(len(__import__('sys').argv)), str(__import__('faulthandler').is_enabled())";
            py.eval(code, None, None)
                .and_then(|tuple| tuple.try_iter()?.map(|item| item?.str()?.extract()).collect())
                .expect("strings")
        });
        let venv = venv.to_string_lossy().into_owned();
        let python = format!("{venv}/bin/python");
        assert_eq!(seen[..3], [venv.clone(), python.clone(), python]);
        assert!(seen[3].starts_with(&venv), "{}", seen[3]);
        assert_eq!(seen[4..], ["True".to_owned(), venv, std::env::args().count().to_string(), "True".to_owned()]);
    });
}
