//! sendfile(2).
