//! Any bytes to the master's doors for operators: no panic, bounded memory, one verdict wherever the input is cut, and no command
//! from a public door.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::master::status::request::{Ask, DoorKind, DoorRefusal, HEAD_MAX, RequestReader};

const DOORS: [DoorKind; 3] =
    [DoorKind::Public { loopback: false }, DoorKind::Public { loopback: true }, DoorKind::Control];

/// What a reader makes of bytes that come in pieces of this size: each request, and whether the connection may go on after it. As
/// in the master, a refusal that ends the connection is the last.
fn verdicts(bytes: &[u8], door: DoorKind, piece: usize) -> Vec<(Result<Ask, DoorRefusal>, bool)> {
    let mut reader = RequestReader::default();
    let mut found = Vec::new();
    let mut rest = bytes;
    loop {
        while let Some(request) = reader.next(door) {
            found.push((request.ask, request.terms.persistent));
            if !request.terms.persistent {
                return found;
            }
        }
        if rest.is_empty() {
            return found;
        }
        assert!(reader.room() > 0 && reader.room() <= HEAD_MAX, "a full reader gives a verdict");
        let (now, later) = rest.split_at(piece.min(rest.len()).min(reader.room()));
        reader.push(now);
        rest = later;
    }
}

fuzz_target!(|bytes: &[u8]| {
    for door in DOORS {
        let whole = verdicts(bytes, door, usize::MAX);
        assert_eq!(whole, verdicts(bytes, door, 13));
        for (ask, _) in &whole {
            match ask {
                Ok(Ask::Figures(_) | Ask::Live | Ask::Ready) => {}
                Ok(_) => assert!(door == DoorKind::Control, "a command from a public door"),
                Err(refusal) => assert!((400..600).contains(&refusal.status) && !refusal.why.is_empty()),
            }
        }
    }
});
