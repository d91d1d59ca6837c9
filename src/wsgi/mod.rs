//! The bridge to Python: the only place that knows pyo3. Python objects do not leave it.
