//! What the other tests rely on without a look: the harness itself.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use common::{SOON, place, wait_for};

/// Names the file in which this program says what it has made, when it is started by itself to be killed.
const TOLD: &str = "HARNESS_TOLD";

#[test]
fn what_a_test_program_has_made_goes_with_it_even_if_it_is_killed() {
    if let Some(file) = env::var_os(TOLD) {
        let made = place::fresh("made-").keep();
        fs::write(file, format!("{}\n", made.display())).expect("the temp directory is writable");
        return thread::sleep(SOON);
    }
    let dir = place::fresh("told-");
    let told = dir.path().join("told");
    let mut program = Command::new(env::current_exe().expect("/proc is mounted"));
    program.args(["--exact", "what_a_test_program_has_made_goes_with_it_even_if_it_is_killed"]).env(TOLD, &told);
    let mut program = program.stdout(Stdio::null()).spawn().expect("it can be started");
    let made = wait_for("what it has made", SOON, || fs::read_to_string(&told).ok().filter(|text| text.ends_with('\n')));
    let made = Path::new(made.trim_end());
    assert!(made.is_dir());
    program.kill().and_then(|()| program.wait()).expect("it is ours");
    let around = made.parent().expect("it is in the directory of the program");
    wait_for("the end of that", SOON, || (!around.exists()).then_some(()));
}
