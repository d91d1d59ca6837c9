//! The signals of the master, in one table: it feeds the master, `--help`, the man page and their tests.

/// What an operator asks for, by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorRequest {
    /// Answer everything that was accepted or waits to be, then leave.
    Stop,
    /// Finish the requests that run, then leave; asked again: leave at once.
    QuickStop,
    /// Load configuration and application again.
    Reload,
    /// Open the log files again.
    ReopenLogs,
    /// Become the program that is on the disk now.
    Upgrade,
    /// One worker more.
    MoreWorkers,
    /// One worker less.
    FewerWorkers,
    /// Stop the workers, keep the master.
    StopWorkers,
}

/// What a signal means to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalMeaning {
    /// A child has ended. No operator sends it.
    Reap,
    /// An operator asks.
    Ask(OperatorRequest),
}

/// One signal.
#[derive(Clone, Copy, Debug)]
pub struct SignalRow {
    /// Name without SIG: `TERM`.
    pub name: &'static str,
    /// What it means.
    pub meaning: SignalMeaning,
    /// The meaning in words: a clause for `--help`, without a full stop.
    pub text: &'static str,
    /// What an operator should know besides: whole sentences, for the man page.
    pub detail: &'static str,
}

const fn ask(name: &'static str, request: OperatorRequest, text: &'static str, detail: &'static str) -> SignalRow {
    SignalRow { name, meaning: SignalMeaning::Ask(request), text, detail }
}

const QUICK: &str = "quick stop; a second one stops at once";
const QUICK_DETAIL: &str = "A request that runs is finished, with its answer; other requests that have come, also in part, are answered 503. After four \
     seconds answers that last are cut, after five the workers are killed. A second signal of these ends all workers at once.";

/// Every signal that the master handles. None of them ends it by omission.
pub const TABLE: [SignalRow; 10] = [
    ask(
        "TERM",
        OperatorRequest::Stop,
        "graceful stop: requests are finished first",
        "Every connection that waits in the accept queue is answered too. Then the workers leave, at the latest after \
         --graceful-timeout, and the exit code is 0.",
    ),
    ask("INT", OperatorRequest::QuickStop, QUICK, QUICK_DETAIL),
    ask("QUIT", OperatorRequest::QuickStop, QUICK, QUICK_DETAIL),
    ask(
        "HUP",
        OperatorRequest::Reload,
        "reload configuration and application, without a gap",
        "One worker of the new generation boots first. When it is ready, the others are replaced, --reload-surge at a time: the \
         new one is ready before the old one drains. When it cannot boot, or the configuration is wrong, the old generation keeps \
         serving. A HUP during a reload is carried out after it. Options that need a restart are named in the log.",
    ),
    ask("USR1", OperatorRequest::ReopenLogs, "open the logs anew, after they were moved away", "No line is lost or torn."),
    ask(
        "USR2",
        OperatorRequest::Upgrade,
        "upgrade the binary, without a gap",
        "The master becomes the program that is found now under the path it was started by, with the same arguments, environment \
         and directory, and with the same process id: neither a service manager nor a pid file notices. The sockets stay open. The \
         program is tried first: when it does not run, does not know the state of this version, or finds the configuration wrong, \
         nothing changes. Then workers of the new program replace the old ones as at a reload; when they cannot boot, the old ones \
         keep serving. The log says which. A USR2 during a reload is carried out after it.",
    ),
    ask("TTIN", OperatorRequest::MoreWorkers, "one worker more", "After WINCH it brings the stopped workers back instead."),
    ask("TTOU", OperatorRequest::FewerWorkers, "one worker less", "The last one stays."),
    ask(
        "WINCH",
        OperatorRequest::StopWorkers,
        "stop the workers, keep the master and the sockets",
        "The workers drain as at a reload. New connections wait in the accept queue until TTIN brings the workers back, or HUP \
         brings back those of a new generation. That the window of a terminal has got another size changes nothing.",
    ),
    SignalRow { name: "CHLD", meaning: SignalMeaning::Reap, text: "a worker has ended", detail: "" },
];

/// The signals that an operator sends, grouped by meaning, in the order of the table.
pub fn groups() -> Vec<Vec<&'static SignalRow>> {
    let mut groups: Vec<Vec<&'static SignalRow>> = Vec::new();
    for row in TABLE.iter().filter(|row| row.meaning != SignalMeaning::Reap) {
        match groups.last_mut() {
            Some(group) if group[0].meaning == row.meaning => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_signal_has_one_row() {
        let names: HashSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn signals_of_one_meaning_stand_together_and_say_the_same() {
        let groups = groups();
        let meanings: Vec<_> = groups.iter().map(|group| group[0].meaning).collect();
        for (index, group) in groups.iter().enumerate() {
            assert!(!meanings[..index].contains(&group[0].meaning), "{} stands apart", group[0].name);
            assert!(group.iter().all(|row| (row.text, row.detail) == (group[0].text, group[0].detail)));
        }
    }
}
