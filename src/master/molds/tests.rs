use std::process::Command;

use super::*;
use crate::master::table;
use crate::{channel, mold};

#[test]
fn the_end_of_a_mold_that_did_not_do_its_work_is_none_that_was_asked_for() {
    let mut process = Command::new("sleep").arg("60").spawn().expect("it can be started");
    let pid = Pid::from_raw(process.id().cast_signed());
    let (end, _) = channel::pair().expect("a channel");
    let (orders, _) = mold::pair().expect("a channel");
    let mut keeper = MoldKeeper::default();
    keeper.put(Mold::new((Generation(1), pid), end, orders, table::stacks_file().expect("a file"), None));
    keeper.kill(pid);
    keeper.dismiss(|_| true, |_| false);
    assert!(keeper.all().all(|mold| mold.pid == pid && !mold.was_dismissed()));
    process.wait().expect("it was killed");
}
