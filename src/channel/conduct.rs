//! The reports that a worker may send in its life, even one that was broken into: pure.
//!
//! ```text
//! Silent ──Ready──▶ Serving ──Draining──▶ Leaving        Worn, Starved, Stuck and Stranded once each, Dismissed some times, in any state
//!    └──BootFailed──▶ Failed ◀──Failed──┴─────────┘      but Failed, in which nothing follows
//! ```
//! Sources may come some times too, with their own count.
//! So a worker sends one other text at most, and no more than [`REPORTS_MAX`] reports. A worker that sends anything else does not run
//! the server's code any more, or its application uses the channel.

use std::fmt;

use super::Report;

/// Most reports of a worker in its life: those that come once, and one for each SIGTERM that it gets, of which it reports no more
/// than [`DISMISSALS_MAX`].
pub const REPORTS_MAX: u32 = 32;

/// Most SIGTERMs that a worker reports. After the first it is replaced, unless the server is still starting.
pub const DISMISSALS_MAX: u32 = 16;

/// Most lists of directories of a worker in its life ([`Report::Sources`]); it sends one when more modules are loaded.
pub const SOURCES_MAX: u32 = 64;

/// How a worker broke the rules of its channel. `Display` is a clause: `it has sent descriptors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// No worker sends such a packet; why.
    Unknown(String),
    /// The packet is longer than any report.
    TooLong,
    /// It came with descriptors.
    Descriptors,
    /// The report does not fit the ones before.
    OutOfOrder,
    /// There were more than [`REPORTS_MAX`], or of one kind more than [`SOURCES_MAX`].
    TooMany,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) => f.write_str(why),
            Self::TooLong => f.write_str("a message longer than any report"),
            Self::Descriptors => f.write_str("descriptors, which workers never send"),
            Self::OutOfOrder => f.write_str("a report that does not fit what it has said before"),
            Self::TooMany => write!(f, "more than {REPORTS_MAX} reports, or more than {SOURCES_MAX} lists of directories"),
        }
    }
}

/// How far a worker is, by its own reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum WorkerStage {
    #[default]
    Silent,
    Serving,
    Leaving,
    Failed,
}

/// The reports of a worker so far.
#[derive(Clone, Debug, Default)]
pub struct Conduct {
    stage: WorkerStage,
    reports: u32,
    worn: bool,
    starved: bool,
    stuck: bool,
    stranded: bool,
    sources: u32,
}

impl Conduct {
    /// For a worker that was ready before, when another program watched it: its other reports are not known.
    pub fn of_ready() -> Self {
        Self { stage: WorkerStage::Serving, ..Self::default() }
    }

    /// Takes in the next report.
    pub fn take(&mut self, report: &Report) -> Result<(), Breach> {
        if let Report::Sources(_) = report {
            self.sources += 1;
            return match self.stage {
                WorkerStage::Failed => Err(Breach::OutOfOrder),
                _ if self.sources > SOURCES_MAX => {
                    self.sources = SOURCES_MAX;
                    Err(Breach::TooMany)
                }
                WorkerStage::Silent | WorkerStage::Serving | WorkerStage::Leaving => Ok(()),
            };
        }
        self.reports += 1;
        if self.reports > REPORTS_MAX {
            // The count stays at its bound, however many reports follow.
            self.reports = REPORTS_MAX;
            return Err(Breach::TooMany);
        }
        let first = |said: &mut bool| !std::mem::replace(said, true);
        let (stage, fits) = match (report, self.stage) {
            (Report::Ready(_), stage) => (WorkerStage::Serving, stage == WorkerStage::Silent),
            (Report::BootFailed(_), stage) => (WorkerStage::Failed, stage == WorkerStage::Silent),
            (Report::Failed(_), stage) => (WorkerStage::Failed, stage != WorkerStage::Silent),
            (Report::Draining, stage) => (WorkerStage::Leaving, stage == WorkerStage::Serving),
            (Report::Worn, stage) => (stage, first(&mut self.worn)),
            (Report::Starved, stage) => (stage, first(&mut self.starved)),
            (Report::Stuck, stage) => (stage, first(&mut self.stuck)),
            (Report::Stranded, stage) => (stage, first(&mut self.stranded)),
            (Report::Dismissed | Report::Sources(_), stage) => (stage, true),
        };
        if !fits || self.stage == WorkerStage::Failed {
            return Err(Breach::OutOfOrder);
        }
        self.stage = stage;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::BootError;

    fn ready() -> Report {
        Report::Ready("Python 3.11.7".into())
    }

    fn failed() -> Report {
        Report::BootFailed(BootError { app: true, text: "no".into() })
    }

    fn after(said: &[Report]) -> Conduct {
        let mut conduct = Conduct::default();
        said.iter().for_each(|report| conduct.take(report).unwrap());
        conduct
    }

    #[test]
    fn a_worker_may_say_what_the_server_says() {
        after(&[Report::Dismissed, ready(), Report::Worn, Report::Dismissed, Report::Stuck, Report::Draining, Report::Stranded]);
        after(&[ready(), Report::Draining, Report::Dismissed]);
        after(&[failed()]);
    }

    #[test]
    fn a_text_comes_once_in_a_life_and_nothing_follows_a_failed_boot() {
        for (said, next) in [
            (vec![ready()], ready()),
            (vec![ready()], failed()),
            (vec![ready(), Report::Draining], ready()),
            (vec![failed()], failed()),
            (vec![failed()], ready()),
            (vec![failed()], Report::Dismissed),
            (vec![ready(), Report::Draining], Report::Draining),
            (vec![], Report::Draining),
            (vec![Report::Worn], Report::Worn),
            (vec![ready(), Report::Stuck], Report::Stuck),
            (vec![ready(), Report::Starved], Report::Starved),
            (vec![Report::Stranded], Report::Stranded),
        ] {
            assert_eq!(after(&said).take(&next), Err(Breach::OutOfOrder), "{next:?} behind {said:?}");
        }
        assert_eq!(Conduct::of_ready().take(&ready()), Err(Breach::OutOfOrder));
        assert_eq!(Conduct::of_ready().take(&Report::Draining), Ok(()));
    }

    #[test]
    fn there_is_a_last_list_of_directories_and_none_behind_a_failed_boot() {
        let list = || Report::Sources("c/srv".into());
        let mut conduct = after(&[list(), ready(), list()]);
        let taken = (0..1_000).filter(|_| conduct.take(&list()).is_ok()).count();
        assert_eq!(taken + 2, SOURCES_MAX as usize);
        assert_eq!(after(&[list(), failed()]).take(&list()), Err(Breach::OutOfOrder));
    }

    #[test]
    fn there_is_a_last_report() {
        let mut conduct = after(&[ready()]);
        let taken = (0..1_000).filter(|_| conduct.take(&Report::Dismissed).is_ok()).count();
        assert_eq!(taken + 1, REPORTS_MAX as usize);
        assert_eq!(conduct.take(&Report::Worn), Err(Breach::TooMany));
        const { assert!(DISMISSALS_MAX + 6 <= REPORTS_MAX, "an honest worker stays below it") };
    }
}
