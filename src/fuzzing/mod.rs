//! Everything that reads bytes or text from elsewhere, as targets for a fuzzer: peers, disks,
//! operators, services.
//!
//! Each target takes any bytes, must not panic, and must not take more memory than
//! [`memory_max`] allows: a length that stands in the bytes is not believed. Where a value comes
//! out, it is encoded and decoded again, and must be the same. In this crate's tests all of them run
//! over `tests/corpus`; `tests/fuzz/main.rs` looks for more.
//!
//! In no program: the module is compiled for tests and fuzzers only.

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::participant::{Plan, Ticket};
use crate::protocol::message::Message;
use crate::protocol::types::{Address, Branch, CommitId, ParticipantName, TxnId};
use crate::transport::Identity;
use crate::wire::{self, Frame};

/// A decoder, ready to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Decodes, and says whether a value came out.
    ///
    /// # Panics
    /// When the decoder, or what is asked of it, is wrong.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    of("frames", frames),
    of("message", message),
    of("records", crate::store::fuzzing::records),
    of("identity", crate::store::fuzzing::identity),
    of("highwater", crate::store::fuzzing::highwater),
    of("footprint", crate::resource::embedded::fuzz),
    of("config", config),
    of("ids", ids),
    of("certificate", crate::transport::fuzz_certificate),
];

const fn of(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
    Target { name, run }
}

/// The most bytes that decoding an input of this length may hold at any one time.
///
/// serde reserves up to 1 MiB for a list whose length it was told, and lists stand within lists; the
/// densest items are some sixty times as large in memory as they are on the wire.
pub fn memory_max(input: usize) -> u64 {
    8 * 1024 * 1024 + 64 * input as u64
}

/// The frames of a connection, one after the other, as they come.
fn frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut came = false;
    // Err: the connection is given up.
    while let Ok(Some((frame, taken))) = wire::decode(rest) {
        assert!(taken > 4, "every frame takes some bytes");
        check_frame(&frame);
        rest = &rest[taken..];
        came = true;
    }
    came
}

/// One message: the fuzzer need not find its length.
fn message(bytes: &[u8]) -> bool {
    /// The number of [`Frame::Message`].
    const MESSAGE: u8 = 3;
    let length = u32::try_from(bytes.len() + 1).unwrap_or(u32::MAX);
    let framed = [&length.to_le_bytes()[..], &[MESSAGE], bytes].concat();
    match wire::decode(&framed) {
        Ok(Some((frame, taken))) => {
            assert_eq!(taken, framed.len());
            assert!(matches!(frame, Frame::Message(_)));
            check_frame(&frame);
            true
        }
        // The length above is right.
        Ok(None) => panic!("a frame that is whole is not waited for"),
        Err(_) => false,
    }
}

fn check_frame(frame: &Frame) {
    let mut bytes = Vec::new();
    // One that was decoded from overlong numbers is shorter, never longer.
    wire::encode(frame, &mut bytes).expect("it was short enough when it came");
    let again = wire::decode(&bytes).expect("what was encoded can be decoded");
    let (again, taken) = again.expect("it is whole");
    assert_eq!(taken, bytes.len());
    assert_eq!(&again, frame);
    if let Frame::Message(message) = &again {
        check_message(message);
    }
}

/// What leans on what a message holds, without looking.
fn check_message(message: &Message) {
    if let Message::Vote(vote) = message {
        let all = vote.roster.all();
        assert_eq!(all.len(), vote.roster.len());
        assert_eq!(vote.roster.select(all).count(), vote.roster.len());
    }
}

/// Settings in files, all three kinds.
fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let settings = crate::config::fuzz(text);
    let cluster = crate::cluster::fuzz(text);
    settings || cluster
}

/// What stands in headers, command lines and certificates.
fn ids(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let read = [
        one_text::<TxnId>(text),
        one_text::<CommitId>(text),
        one_text::<Branch>(text),
        one_text::<Ticket>(text),
        one_text::<ParticipantName>(text),
        one_text::<Address>(text),
        one_text::<Identity>(text),
        plan(text),
    ];
    if let Ok(txn) = text.parse::<CommitId>() {
        assert_eq!(CommitId::from_be_bytes(txn.to_be_bytes()), txn);
    }
    read.contains(&true)
}

/// A value has one text form, or it would have two names.
fn one_text<T: FromStr + Display + PartialEq + Debug>(text: &str) -> bool {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string(), text);
            true
        }
        Err(_) => false,
    }
}

/// A plan is bytes in hexadecimal: its text may be written in capitals or with long numbers.
fn plan(text: &str) -> bool {
    match text.parse::<Plan>() {
        Ok(plan) => {
            assert_eq!(plan.to_string().parse(), Ok(plan));
            true
        }
        Err(_) => false,
    }
}
