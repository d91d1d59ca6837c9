//! Reloads and upgrades: how many came to which end, how the last one ended, and why.

use crate::status::{Change, ChangeKind, ReloadCounts};

use super::event::{Hang, Note, ReloadFailure, UpgradeFailure};

/// Most bytes of a reason that are kept: the end of a traceback says what went wrong.
const REASON_MAX: usize = 8 * 1024;

/// The changes of a server.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    counts: ReloadCounts,
    last: Option<Change>,
    /// Whether the next generation to come is the second half of an upgrade.
    upgrade: bool,
    /// Why a worker could not boot, since the change began.
    trouble: Option<String>,
}

impl Changes {
    /// The changes of a server that has just become another program.
    pub fn after_upgrade(counts: ReloadCounts) -> Self {
        Self { counts, upgrade: true, ..Self::default() }
    }

    /// So many came to their end.
    pub fn counts(&self) -> ReloadCounts {
        self.counts
    }

    /// The last one that did.
    pub fn last(&self) -> Option<&Change> {
        self.last.as_ref()
    }

    /// Takes in what the log says as `text` at a time in seconds since the epoch; returns a change that has come to its end.
    pub fn note(&mut self, note: &Note, text: &str, at_s: f64) -> Option<&Change> {
        let (kind, generation, error) = match note {
            Note::Reloading(_) => {
                self.trouble = None;
                return None;
            }
            Note::BootFailed { .. }
            | Note::ForkFailed { .. }
            | Note::Died { booting: true, .. }
            | Note::Hung { hang: Hang::Boot(_), .. } => {
                self.trouble = Some(end_of(text));
                return None;
            }
            Note::Reloaded(generation) => {
                let kind = if std::mem::take(&mut self.upgrade) { ChangeKind::Upgrade } else { ChangeKind::Reload };
                (kind, generation.0, None)
            }
            Note::ReloadFailed { failed, why, .. } => (ChangeKind::Reload, failed.0, Some(self.reason(text, why))),
            Note::UpgradeFailed { why: UpgradeFailure::Program(_), .. } => (ChangeKind::Upgrade, 0, Some(end_of(text))),
            Note::UpgradeFailed { why: UpgradeFailure::Load(failed, why), .. } => {
                self.upgrade = false;
                (ChangeKind::Upgrade, failed.0, Some(self.reason(text, why)))
            }
            Note::Died { booting: false, .. }
            | Note::Hung { hang: Hang::Call(_) | Hang::Silent(_) | Hang::Stranded, .. }
            | Note::Broken { .. }
            | Note::Failed { .. }
            | Note::Left(_)
            | Note::Pause { .. }
            | Note::Recycling { .. }
            | Note::Killing(_)
            | Note::Lost(_)
            | Note::Stopping(_)
            | Note::AlreadyStopping
            | Note::DrainTimeout(_)
            | Note::UpgradeQueued
            | Note::ReloadQueued
            | Note::Adopted(_)
            | Note::Workers(_)
            | Note::WorkersLimit(_)
            | Note::WorkersStopping
            | Note::WorkersStopped
            | Note::Degraded { .. }
            | Note::Recovered(_) => return None,
        };
        let ok = error.is_none();
        let count = if ok { &mut self.counts.ok } else { &mut self.counts.failed };
        *count += 1;
        self.last = Some(Change { kind, generation, at_s, ok, error });
        self.last.as_ref()
    }

    fn reason(&self, text: &str, why: &ReloadFailure) -> String {
        match (why, &self.trouble) {
            (ReloadFailure::Worker, Some(trouble)) => format!("{text}\n{trouble}"),
            (ReloadFailure::Worker | ReloadFailure::Configuration(_) | ReloadFailure::NoPlace, _) => end_of(text),
        }
    }
}

/// The end of a long text, from the beginning of a line.
fn end_of(text: &str) -> String {
    let Some(from) = text.len().checked_sub(REASON_MAX) else { return text.to_owned() };
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let from = text[from..].find('\n').map_or(from, |line| from + line + 1);
    format!("...\n{}", &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::BootError;
    use crate::master::event::{Generation, SlotIndex};

    fn boot_failed() -> Note {
        let why = BootError { app: true, text: "cannot load app".into() };
        Note::BootFailed { slot: SlotIndex(1), why, fatal: false }
    }

    fn reload_failed(why: ReloadFailure) -> Note {
        Note::ReloadFailed { failed: Generation(2), why, serves: Generation(1) }
    }

    #[test]
    fn a_failed_reload_has_the_reason_of_its_worker() {
        let mut changes = Changes::default();
        changes.note(&boot_failed(), "of another time", 1.0);
        changes.note(&Note::Reloading(Generation(2)), "", 1.0);
        changes.note(&boot_failed(), "worker 1 cannot boot: NameError: x", 2.0);
        let change = changes.note(&reload_failed(ReloadFailure::Worker), "reload failed", 3.0).unwrap();
        assert_eq!(change.error.as_deref(), Some("reload failed\nworker 1 cannot boot: NameError: x"));
        assert_eq!((change.generation, change.ok), (2, false));
        changes.note(&Note::Reloading(Generation(3)), "", 4.0);
        let configuration = reload_failed(ReloadFailure::Configuration("x".into()));
        assert_eq!(changes.note(&configuration, "bad: x", 5.0).unwrap().error.as_deref(), Some("bad: x"));
        changes.note(&Note::Reloaded(Generation(4)), "", 6.0);
        assert_eq!(changes.counts(), ReloadCounts { ok: 1, failed: 2 });
    }

    #[test]
    fn the_first_reload_after_exec_is_the_upgrade() {
        let mut changes = Changes::after_upgrade(ReloadCounts { ok: 3, failed: 1 });
        assert_eq!(changes.note(&Note::Reloaded(Generation(7)), "", 1.0).unwrap().kind, ChangeKind::Upgrade);
        assert_eq!(changes.note(&Note::Reloaded(Generation(8)), "", 2.0).unwrap().kind, ChangeKind::Reload);
        assert_eq!(changes.counts(), ReloadCounts { ok: 5, failed: 1 });
    }

    #[test]
    fn of_a_long_reason_the_end_is_kept() {
        let text = format!("{}\nValueError: é", "é".repeat(REASON_MAX));
        let kept = end_of(&text);
        assert!(kept.len() < REASON_MAX && kept.ends_with("ValueError: é") && kept.starts_with("...\n"), "{kept}");
    }
}
