//! What a fuzzer begins with: real encodings, each of which is a value.

use crate::protocol::types::{CommitId, Roster};
use crate::transport::{Authority, Role};

/// The frames of the wire's golden test.
const FRAMES: &str = include_str!("../wire/tests/golden.txt");

/// For the target of this name.
pub(super) fn of(target: &str) -> Vec<Vec<u8>> {
    let [records, identity, highwater] = crate::store::fuzzing::seeds();
    match target {
        "frames" => frames(),
        "message" => {
            let messages = frames().into_iter().filter(|frame| frame[4] == 3);
            messages.map(|frame| frame[5..].to_vec()).collect()
        }
        "records" => records,
        "identity" => identity,
        "highwater" => highwater,
        "footprint" => crate::resource::embedded::fuzz_seeds(),
        "config" => texts(&[
            "data = \"data\"\nlisten = \"0.0.0.0:7401\"\nhttp = \"127.0.0.1:9401\"\nauthority = \
             \"ca.pem\"\ncertificate = \"replica.pem\"\nkey = \"replica.key\"\n[[replica]]\nid = \
             1\naddress = \"one.example:7401\"\n[tuning]\ngeneration_period_s = 600\n\
             generation_transactions_max = 1000000\ngeneration_min_s = 60\ngrace_s = 60\nundecided_max = 100000\n\
             vote_timeout_max_s = 600\n",
            "authority = \"ca.pem\"\ncertificate = \"ledger.pem\"\nkey = \"ledger.key\"\n\
             [[replica]]\nid = 1\naddress = \"one.example:7401\"\n[[replica]]\nid = 2\naddress = \
             \"[::1]:7402\"\n",
            "name = \"bank\"\n[[replica]]\nid = 1\naddress = \"h:1\"\n",
        ]),
        "ids" => {
            let ticket = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@\
                          ledger/00000000deadbeef/00112233445566778899aabbccddeeff";
            let ticket: crate::participant::Ticket = ticket.parse().expect("a ticket");
            let roster = Roster::new([ticket.branch.clone()]).expect("a roster");
            let id = CommitId::new(ticket.txn, &roster);
            let plan = crate::participant::Plan::example(id, roster);
            texts(&[
                &ticket.to_string(),
                &ticket.txn.to_string(),
                &id.to_string(),
                &ticket.branch.to_string(),
                &plan.to_string(),
                "one.example:7401",
                "paxos-commit://bank/replica/1",
                "paxos-commit://bank/participant/ledger",
                "paxos-commit://bank/initiator/shop.eu",
                "paxos-commit://bank/operator/anna",
            ])
        }
        "certificate" => certificates(),
        other => panic!("{other} has no seeds"),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let bytes = |line: &str| {
        let (_, hex) = line.rsplit_once(": ").expect("a name and bytes");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    FRAMES.lines().map(bytes).collect()
}

fn certificates() -> Vec<Vec<u8>> {
    let authority = Authority::new("bank".parse().expect("a name")).expect("an authority");
    let role = Role::Participant("ledger".parse().expect("a name"));
    let pem = authority.issue(role).expect("a certificate").certificate;
    let der = crate::transport::fuzz_der(&pem);
    vec![pem.into_bytes(), der]
}
