//! The arguments of a factory on the command line: Python literals only, by the rules of `ast.literal_eval`, so that nothing
//! is run but the factory.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::stdlib;

/// Positional and named arguments of `arguments`, the source between the parentheses. The error is one clause.
pub fn parse<'py>(py: Python<'py>, arguments: &str) -> Result<(Vec<Bound<'py, PyAny>>, Bound<'py, PyDict>), String> {
    let refused = |reason: &str| format!("the arguments ({arguments}) {reason}");
    let tree = stdlib::import(py, "ast")
        .and_then(|ast| ast.call_method1("parse", (format!("f({arguments})"), "<arguments>", "eval")))
        .map_err(|error| refused(&format!("are no valid Python: {}", error.value(py))))?;
    let parsed = literals(py, &tree).map_err(|error| {
        // What literal_eval says of anything else names its own objects.
        if error.is_instance_of::<PyValueError>(py) {
            refused("must be literals, such as 'text', 5, True, None, and lists and dicts of them")
        } else {
            refused(&format!("must be literals: {}", error.value(py)))
        }
    })?;
    parsed.ok_or_else(|| refused("must be a plain argument list of literals, without * or **"))
}

type Arguments<'py> = (Vec<Bound<'py, PyAny>>, Bound<'py, PyDict>);

/// `None` when the tree is anything but one call `f(...)` with plain arguments.
fn literals<'py>(py: Python<'py>, tree: &Bound<'py, PyAny>) -> PyResult<Option<Arguments<'py>>> {
    let ast = stdlib::import(py, "ast")?;
    let is = |node: &Bound<'py, PyAny>, class: &str| node.is_instance(&ast.getattr(class)?);
    let call = tree.getattr("body")?;
    if !is(&call, "Call")? || !is(&call.getattr("func")?, "Name")? {
        return Ok(None);
    }
    let value = |node: Bound<'py, PyAny>| ast.call_method1("literal_eval", (node,));
    let mut positional = Vec::new();
    for node in call.getattr("args")?.try_iter()? {
        let node = node?;
        if is(&node, "Starred")? {
            return Ok(None);
        }
        positional.push(value(node)?);
    }
    let named = PyDict::new(py);
    for keyword in call.getattr("keywords")?.try_iter()? {
        let keyword = keyword?;
        let name = keyword.getattr("arg")?;
        if name.is_none() {
            return Ok(None);
        }
        named.set_item(name, value(keyword.getattr("value")?)?)?;
    }
    Ok(Some((positional, named)))
}
