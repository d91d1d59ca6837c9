//! The `tapster` command: hands the arguments to the library and exits with its code.

fn main() {
    std::process::exit(tapster::run(std::env::args_os()));
}
