//! The encoding is held still, and rubbish is refused.

mod control_examples;
mod examples;
mod nouns;

use crate::protocol::message::Message;

use super::{
    Answer, FRAME_BYTES_MAX, Frame, LENGTH_BYTES, Query, WireError, decode, encode, encode_message,
};
use examples::frames;

fn bytes(frame: &Frame) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode(frame, &mut buffer).unwrap();
    buffer
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kind of a frame, and of the message in it.
fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "Hello",
        Frame::Welcome(_) => "Welcome",
        Frame::Refused(_) => "Refused",
        Frame::Lsn(_) => "Lsn",
        Frame::Query(Query::Status | Query::List { .. } | Query::Refusals) => "Query",
        Frame::Answer(Answer::Status(_) | Answer::List(_) | Answer::Refusals(_)) => "Answer",
        Frame::Message(message) => match message {
            Message::BeginCommit(_) => "BeginCommit",
            Message::Rollback { .. } => "Rollback",
            Message::Ask(_) => "Ask",
            Message::Inquire { .. } => "Inquire",
            Message::Resolve { .. } => "Resolve",
            Message::ForceAbort { .. } => "ForceAbort",
            Message::Prepare(_) => "Prepare",
            Message::LetGo { .. } => "LetGo",
            Message::Vote(_) => "Vote",
            Message::Applied { .. } => "Applied",
            Message::Phase1a { .. } => "Phase1a",
            Message::Phase1b { .. } => "Phase1b",
            Message::Phase2a { .. } => "Phase2a",
            Message::Phase2b { .. } => "Phase2b",
            Message::Nack { .. } => "Nack",
            Message::Decided(_) => "Decided",
            Message::Finish { .. } => "Finish",
            Message::Undecided(_) => "Undecided",
            Message::Status { .. } => "Status",
            Message::Resolved { .. } => "Resolved",
            Message::Busy { .. } => "Busy",
            Message::Announce(_) => "Announce",
            Message::NotOpen { .. } => "NotOpen",
            Message::Expired { .. } => "Expired",
            Message::Forgotten { .. } => "Forgotten",
            Message::Log(_) => "Log",
            Message::Freeze { .. } => "Freeze",
            Message::Frozen { .. } => "Frozen",
            Message::Collect { .. } => "Collect",
            Message::Collected { .. } => "Collected",
            Message::Fetch { .. } => "Fetch",
            Message::State { .. } => "State",
            Message::Reconfigure { .. } => "Reconfigure",
            Message::Release { .. } => "Release",
            Message::Disputed { .. } => "Disputed",
            Message::Contradicted { .. } => "Contradicted",
            Message::Unproven { .. } => "Unproven",
            Message::List { .. } => "List",
            Message::ListPage(_) => "ListPage",
            Message::Declined(_) => "Declined",
            Message::Present { .. } => "Present",
            Message::Admission { .. } => "Admission",
            Message::Enter { .. } => "Enter",
            Message::Gone { .. } => "Gone",
            Message::Restored { .. } => "Restored",
            Message::Probe { .. } => "Probe",
            Message::Probed { .. } => "Probed",
            Message::Named { .. } => "Named",
        },
    }
}

/// The variants of [`Frame`] and [`Message`], in order: their numbers on the wire.
const FRAMES: [&str; 7] = [
    "Hello", "Welcome", "Refused", "Message", "Lsn", "Query", "Answer",
];
const MESSAGES: [&str; 48] = [
    "BeginCommit",
    "Rollback",
    "Ask",
    "Inquire",
    "Resolve",
    "ForceAbort",
    "Prepare",
    "LetGo",
    "Vote",
    "Applied",
    "Phase1a",
    "Phase1b",
    "Phase2a",
    "Phase2b",
    "Nack",
    "Decided",
    "Finish",
    "Undecided",
    "Status",
    "Resolved",
    "Busy",
    "Announce",
    "NotOpen",
    "Expired",
    "Forgotten",
    "Log",
    "Freeze",
    "Frozen",
    "Collect",
    "Collected",
    "Fetch",
    "State",
    "Reconfigure",
    "Release",
    "Disputed",
    "Contradicted",
    "Unproven",
    "List",
    "ListPage",
    "Declined",
    "Present",
    "Admission",
    "Enter",
    "Gone",
    "Restored",
    "Named",
    "Probe",
    "Probed",
];

#[test]
fn the_bytes_of_every_variant_are_as_they_always_were() {
    let mut golden = include_str!("tests/golden.txt").lines();
    for (name, frame) in frames() {
        let line = format!("{name}: {}", hex(&bytes(&frame)));
        // A line that has changed is another protocol: it needs another ALPN. New ones are added.
        assert_eq!(golden.next(), Some(&line[..]));
    }
    assert_eq!(golden.next(), None);
}

#[test]
fn every_variant_has_an_example_and_keeps_its_number() {
    let mut missing: Vec<&str> = FRAMES.iter().chain(&MESSAGES).copied().collect();
    missing.retain(|kind| *kind != "Message");
    for (name, frame) in frames() {
        let kind = kind(&frame);
        missing.retain(|of| *of != kind);
        let bytes = bytes(&frame);
        let (frame_number, message_number) = (bytes[LENGTH_BYTES], bytes[LENGTH_BYTES + 1]);
        if let Frame::Message(_) = frame {
            assert_eq!(FRAMES[usize::from(frame_number)], "Message", "{name}");
            assert_eq!(MESSAGES[usize::from(message_number)], kind, "{name}");
        } else {
            assert_eq!(FRAMES[usize::from(frame_number)], kind, "{name}");
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_frame_reads_back_one_after_the_other() {
    let mut buffer = Vec::new();
    for (_, frame) in frames() {
        encode(&frame, &mut buffer).unwrap();
    }
    let mut rest = &buffer[..];
    for (name, frame) in frames() {
        let (read, taken) = decode(rest).unwrap().expect("it is whole");
        assert_eq!(read, frame, "{name}");
        rest = &rest[taken..];
    }
    assert_eq!(decode(rest), Ok(None));
}

#[test]
fn a_message_is_encoded_where_it_stands_as_in_its_frame() {
    for (name, frame) in frames() {
        if let Frame::Message(message) = &frame {
            let mut buffer = vec![7];
            encode_message(message, &mut buffer).unwrap();
            assert_eq!(buffer[1..], bytes(&frame), "{name}");
        }
    }
}

#[test]
fn a_part_of_a_frame_is_waited_for() {
    for (name, frame) in frames() {
        let bytes = bytes(&frame);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Ok(None), "{name}, {length} bytes");
        }
    }
}

#[test]
fn a_frame_that_ends_too_early_is_none() {
    for (name, frame) in frames() {
        let bytes = bytes(&frame);
        let body = &bytes[LENGTH_BYTES..];
        for length in 0..body.len() {
            let mut cut = (length as u32).to_le_bytes().to_vec();
            cut.extend_from_slice(&body[..length]);
            let error = decode(&cut).expect_err(name);
            assert!(matches!(error, WireError::Malformed { bytes, .. } if bytes == length));
        }
    }
}

#[test]
fn a_frame_with_something_behind_it_is_none() {
    for (name, frame) in frames() {
        let mut bytes = bytes(&frame);
        bytes.push(0);
        let length = (bytes.len() - LENGTH_BYTES) as u32;
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        decode(&bytes).expect_err(name);
    }
}

#[test]
fn the_longest_frame_passes_and_no_longer_one() {
    let of = |length: usize| Frame::Refused(super::Refusal::NotServing("x".repeat(length)));
    // Two numbers of variants, and four bytes that tell the text's length.
    let longest = FRAME_BYTES_MAX - 6;
    let mut buffer = vec![1, 2, 3];
    encode(&of(longest), &mut buffer).unwrap();
    assert_eq!(buffer.len(), 3 + LENGTH_BYTES + FRAME_BYTES_MAX);
    let (read, _) = decode(&buffer[3..]).unwrap().expect("it is whole");
    assert_eq!(read, of(longest));

    let mut buffer = vec![1, 2, 3];
    let error = encode(&of(longest + 1), &mut buffer).unwrap_err();
    let got = FRAME_BYTES_MAX + 1;
    assert_eq!(error, WireError::TooLong { got });
    assert_eq!(buffer, [1, 2, 3]);
    // It is refused by its length alone: nothing of it is kept.
    let announced = decode(&(got as u32).to_le_bytes());
    assert_eq!(announced, Err(WireError::TooLong { got }));
}

#[test]
fn the_longest_message_is_short_enough() {
    use crate::protocol::message::BeginCommit;
    use crate::protocol::types::{
        Branch, CommitId, InitiatorId, NAME_BYTES_MAX, REQUEST_BYTES_MAX, ROSTER_MAX, Request,
        Roster, Session, StoreId, TxnId,
    };
    let branch = |session: usize| Branch {
        participant: "x".repeat(NAME_BYTES_MAX).parse().unwrap(),
        session: Session(u64::MAX - session as u64),
        store: StoreId::from_u128(1),
    };
    let roster = Roster::new((0..ROSTER_MAX).map(branch)).unwrap();
    let txn = TxnId {
        generation: u32::MAX,
        initiator: InitiatorId::MAX,
        sequence: u32::MAX,
        nonce: u64::MAX,
    };
    let request = Request(vec![0xff; REQUEST_BYTES_MAX].into());
    let begin = Message::BeginCommit(BeginCommit {
        id: CommitId::new(txn, &roster),
        roster,
        requests: vec![Some(request); ROSTER_MAX],
        floor: u32::MAX,
        vote_timeout: std::time::Duration::MAX,
    });
    assert!(bytes(&Frame::Message(begin)).len() < FRAME_BYTES_MAX);
}

#[test]
fn random_bytes_are_refused_without_a_panic() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.u32(0..400);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend((0..length).map(|_| random.u8(..)));
        // What decodes by chance encodes again.
        if let Ok(Some((frame, taken))) = decode(&bytes) {
            assert_eq!(taken, bytes.len(), "seed {seed}");
            self::bytes(&frame);
        }
    }
}

#[test]
fn changed_bytes_are_refused_or_read_without_a_panic() {
    for (name, frame) in frames() {
        let right = bytes(&frame);
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = right.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(LENGTH_BYTES..bytes.len());
                bytes[at] = random.u8(..);
            }
            match decode(&bytes) {
                Ok(Some((read, _))) => drop(self::bytes(&read)),
                Ok(None) => panic!("{name}, seed {seed}: its length was not changed"),
                Err(WireError::Malformed { .. }) => {}
                Err(error @ WireError::TooLong { .. }) => panic!("{name}, seed {seed}: {error}"),
            }
        }
    }
}
