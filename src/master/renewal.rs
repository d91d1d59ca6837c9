//! When the files of certificates are looked at, and what was seen last: the part of a renewal that needs no server.

use std::time::{Duration, Instant};

use crate::certificates::FileStamp;
use crate::config::Settings;

use super::errand::Errand;

/// Longest time for a look: what a disk needs that has to wake up.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes that a look has to say: certificates have a bound of their own.
pub const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// How often secrets of tickets are looked after where files are not.
const WITHOUT_LOOKS: Duration = Duration::from_secs(60);

/// How often the log is told of a certificate that is about to expire, or has, in seconds.
const REMINDER: u64 = 24 * 3600;

/// A look that is to be made, or is being made.
#[derive(Debug, Default)]
pub struct RenewalKeeper {
    /// The look under way.
    pub looking: Option<Errand>,
    /// When the next one is due; `None`: TLS is not spoken, or nothing has begun.
    due: Option<Instant>,
    /// Grows with each change of what workers have.
    pub edition: u64,
    /// Files that are of no use, and whether the log says so.
    refused: Option<(Vec<Option<FileStamp>>, bool)>,
    /// Whether the log says that the files cannot be looked at.
    stalled: bool,
    /// When the log was told of a certificate that expires, in seconds since 1970.
    reminded: u64,
}

impl RenewalKeeper {
    /// At the start, when the log is told of what expires anyway. `now`: seconds since 1970.
    pub fn new(now: u64) -> Self {
        Self { reminded: now, ..Self::default() }
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.looking.as_ref().map(Errand::until).or(self.due)
    }

    /// Whether it is time for a look; then the next one is after the pause that the settings say.
    pub fn is_due(&mut self, settings: &Settings, now: Instant) -> bool {
        let Some(pause) = pause(settings) else {
            self.due = None;
            return false;
        };
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due || self.due.is_none() {
            self.due = Some(now + pause);
        }
        is_due
    }

    /// The files are of no use; whether the log is to be told. Not at the first look: whoever writes several files is between two of
    /// them, perhaps.
    pub fn refuse(&mut self, stamps: Vec<Option<FileStamp>>) -> bool {
        match &mut self.refused {
            Some((known, said)) if *known == stamps => !std::mem::replace(said, true),
            refused => {
                *refused = Some((stamps, false));
                false
            }
        }
    }

    /// The files are those that are served; whether the log has said that they are not.
    pub fn accept(&mut self) -> bool {
        self.stalled = false;
        self.refused.take().is_some_and(|(_, said)| said)
    }

    /// The files cannot be looked at; whether the log is to be told.
    pub fn stall(&mut self) -> bool {
        !std::mem::replace(&mut self.stalled, true)
    }

    /// Whether the log is to be told again of certificates that expire. `now`: seconds since 1970.
    pub fn is_to_remind(&mut self, now: u64) -> bool {
        let is_due = now.checked_sub(self.reminded).is_none_or(|age| age >= REMINDER);
        if is_due {
            self.reminded = now;
        }
        is_due
    }
}

/// The pause between two looks; `None`: TLS is not spoken.
fn pause(settings: &Settings) -> Option<Duration> {
    settings.tls.as_ref()?;
    Some(if settings.tls_watch.is_zero() { WITHOUT_LOOKS } else { settings.tls_watch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_files_are_named_at_the_second_look_and_once() {
        let mut keeper = RenewalKeeper::default();
        assert!(!keeper.refuse(vec![None]));
        assert!(!keeper.refuse(vec![None, None]), "others by now");
        assert!(keeper.refuse(vec![None, None]));
        assert!(!keeper.refuse(vec![None, None]));
        assert!(keeper.accept() && !keeper.accept());
    }

    #[test]
    fn a_reminder_comes_once_a_day() {
        let mut keeper = RenewalKeeper::default();
        let day = 20_000 * REMINDER;
        assert!(keeper.is_to_remind(day) && !keeper.is_to_remind(day + REMINDER - 1) && keeper.is_to_remind(day + REMINDER));
        assert!(keeper.is_to_remind(day), "the clock was set back");
    }
}
