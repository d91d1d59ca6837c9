//! Any bytes as the packets of a worker in its life, each after its length in one byte: every packet is a report or refused,
//! texts fit into a log, and the rules let no worker send more than a sound worker does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::channel::{Breach, Conduct, REPORTS_MAX, Report, SOURCES_MAX};

fuzz_target!(|bytes: &[u8]| {
    let (mut conduct, mut rest) = (Conduct::default(), bytes);
    let (mut taken, mut texts, mut lists) = (0, 0, 0);
    while let [len, behind @ ..] = rest {
        let (packet, later) = behind.split_at(behind.len().min(usize::from(*len)));
        rest = later;
        let Ok(report) = Report::decode(packet) else { continue };
        if let Report::Ready(text) = &report {
            assert!(!text.contains(char::is_control), "it stands in a line");
        }
        assert_eq!(Report::decode(&report.encode()).ok().as_ref(), Some(&report));
        match conduct.take(&report) {
            // Lists of directories have a count of their own.
            Ok(()) if matches!(report, Report::Sources(_)) => lists += 1,
            Ok(()) => {
                taken += 1;
                texts += u32::from(matches!(report, Report::Ready(_) | Report::BootFailed(_)));
            }
            Err(breach) => {
                assert!(matches!(breach, Breach::OutOfOrder | Breach::TooMany));
                // Nothing is read from such a worker any more.
                break;
            }
        }
    }
    assert!(taken <= REPORTS_MAX && texts <= 1 && lists <= SOURCES_MAX);
});
