//! Any bytes as a packet of the hand-off queue: a message or refused, never more than a packet holds, and a message is written as
//! it was read. The input in a message is parsed by the parser of the other targets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::handoff::{HandoffMessage, INPUT_MAX, SESSION_MAX, VERSION};
use tapster::http::head::{Head, Limits};

/// As small as a reload may make them: the head was read under others.
const LIMITS: Limits = Limits { request_line: 40, fields: 6, field_size: 40 };

fn check(bytes: &[u8]) {
    let Ok(message) = HandoffMessage::decode(bytes) else { return };
    assert!(message.input.len() <= INPUT_MAX && message.session.0.len() <= SESSION_MAX);
    let again = [&message.header()[..], &message.session.0, &message.input].concat();
    assert_eq!(again.len(), bytes.len());
    assert_eq!(HandoffMessage::decode(&again).as_ref(), Ok(&message));
    let mut head = Head::default();
    // A head that is too long for these limits is an answer to its client.
    let _ = head.parse(&message.input, &LIMITS);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[&[VERSION], bytes].concat());
});
