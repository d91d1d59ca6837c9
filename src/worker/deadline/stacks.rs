//! The stacks of all threads for an operator who asks (`tapster stacks`): taken by a thread that is made for it, because that needs
//! the interpreter, which the owner of the loop never waits for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::thread;
use std::time::Duration;

use crate::channel::STACKS_READY;
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;
use crate::sys::time;

use super::alarm::Alarms;

/// Name of the thread (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-stacks";

/// Whether a thread takes stacks now. While C code keeps the interpreter it waits, and there need not be two of them.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Has the stacks written to the file of [`crate::channel::Message::Stacks`]. `board` is the scoreboard with this worker's slot in
/// it. A request that comes while one waits is not answered, and the operator learns that.
pub fn tell(alarms: &Alarms, board: (Arc<Scoreboard>, usize), file: File) -> std::io::Result<()> {
    if BUSY.swap(true, AcqRel) {
        return Ok(());
    }
    let alarms = alarms.clone();
    let blocked = Blocked::all()?;
    let made = thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        // The file has a fixed size, and nobody else writes to it. A master that is gone does not read it.
        let _ = write(&file, &text(&alarms, &board));
        BUSY.store(false, Release);
    });
    drop(blocked);
    if made.is_err() {
        BUSY.store(false, Release);
    }
    made.map(drop)
}

fn text(alarms: &Alarms, (board, slot): &(Arc<Scoreboard>, usize)) -> String {
    let interrupters = alarms.iter().enumerate().filter_map(|(thread, alarm)| Some((thread, alarm.interrupter()?)));
    let interrupters: Vec<_> = interrupters.collect();
    let Some((_, first)) = interrupters.first() else { return "the application has no threads that can be looked at".to_owned() };
    let about = |number| {
        let (thread, _) = interrupters.iter().find(|(_, interrupter)| interrupter.number() == number)?;
        let call = board.call(*slot, *thread).in_flight()?;
        Some(call.describe(Duration::from_nanos(time::monotonic().saturating_sub(call.since))))
    };
    first.stacks(&about).unwrap_or_else(|error| format!("the stacks cannot be read: {error}"))
}

/// Writes what has room, and its length last.
fn write(file: &File, text: &str) -> std::io::Result<()> {
    let room = file.metadata()?.len().saturating_sub(STACKS_READY);
    let text = &text.as_bytes()[..text.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
    file.write_all_at(text, STACKS_READY)?;
    file.write_all_at(&(text.len() as u64).to_le_bytes(), 0)
}
