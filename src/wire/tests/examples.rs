//! One of everything that can stand on the wire.

use crate::protocol::message::{
    BeginCommit, CastVote, Frozen, ListPage, Message, Prepare, Question, State, StoresPage,
    Undecided, Voter, Waits,
};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{Outcome, Peer, ReadOnly, Request, Vote};
use crate::wire::{Answer, Frame, Hello, Listing, Lsn, Query, Refusal, Report, Sent, Welcome};

use super::control_examples::{declined, entered, log, name, stores};
use super::nouns::{
    TIME, ballot, branch, configuration, decision, generations, id, listed, promised, roster, txn,
    undecided,
};

/// Every frame, with every variant of what is in it, by name.
pub(super) fn frames() -> Vec<(&'static str, Frame)> {
    let mut frames = vec![
        (
            "Hello",
            Frame::Hello(Hello {
                version: 1,
                cluster: "bank".into(),
                peer: Peer::Session(branch("a", 1)),
                to: ReplicaId(2),
                generation: Some((1, configuration().digest())),
                lsn: None,
            }),
        ),
        (
            "Hello of a replica",
            Frame::Hello(Hello {
                version: 1,
                cluster: "bank".into(),
                peer: Peer::Replica(ReplicaId(1)),
                to: ReplicaId(2),
                generation: None,
                lsn: Some(Lsn {
                    run: 5,
                    own: 300,
                    remembered: 7,
                }),
            }),
        ),
        (
            "Welcome",
            Frame::Welcome(Welcome {
                version: 1,
                generations: generations(),
                lsn: Some(Lsn::default()),
            }),
        ),
        ("Lsn", Frame::Lsn(300)),
        ("Query::Status", Frame::Query(Query::Status)),
        (
            "Query::List",
            Frame::Query(Query::List { after: Some(id()) }),
        ),
        ("Answer::Status", Frame::Answer(Answer::Status(report()))),
        (
            "Answer::List",
            Frame::Answer(Answer::List(Listing {
                transactions: vec![(id(), undecided())],
                more: true,
            })),
        ),
        ("Query::Refusals", Frame::Query(Query::Refusals)),
        (
            "Answer::Refusals",
            Frame::Answer(Answer::Refusals(vec![("identity".into(), 7)])),
        ),
    ];
    frames.extend(refusals().map(|(name, refusal)| (name, Frame::Refused(refusal))));
    let messages = transactions().into_iter().chain(control());
    frames.extend(messages.map(|(name, message)| (name, Frame::Message(message))));
    frames
}

fn report() -> Box<Report> {
    Box::new(Report {
        replica: ReplicaId(1),
        program: "0.1.0".into(),
        lsn: 300,
        disk_bytes: 65_536,
        generations: generations(),
        leader: Some(ReplicaId(2)),
        undecided: 1,
        oldest: Some((id(), 20)),
        unapplied: 2,
        remembered: 3,
        participants: vec![("a".parse().unwrap(), 2)],
        connected: vec![ReplicaId(2), ReplicaId(3)],
        sent: Sent {
            messages: 4,
            bytes: 500,
        },
        saves: 6,
    })
}

fn refusals() -> [(&'static str, Refusal); 10] {
    [
        (
            "Refused::Version",
            Refusal::Version {
                expected: 1,
                got: 2,
            },
        ),
        (
            "Refused::Cluster",
            Refusal::Cluster {
                expected: "bank".into(),
                got: "shop".into(),
            },
        ),
        (
            "Refused::Replica",
            Refusal::Replica {
                expected: ReplicaId(1),
                got: ReplicaId(2),
            },
        ),
        (
            "Refused::Identity",
            Refusal::Identity {
                certificate: "x".into(),
                claimed: "y".into(),
            },
        ),
        (
            "Refused::Configuration",
            Refusal::Configuration { generation: 3 },
        ),
        (
            "Refused::Amnesia",
            Refusal::Amnesia {
                replica: ReplicaId(1),
                remembered: 300,
                got: 7,
            },
        ),
        ("Refused::NotServing", Refusal::NotServing("why".into())),
        ("Refused::NoHello", Refusal::NoHello),
        ("Refused::TooMany", Refusal::TooMany { max: 4_096 }),
        (
            "Refused::TooManyOfAName",
            Refusal::TooManyOfAName { max: 512 },
        ),
    ]
}

/// What is said about transactions.
fn transactions() -> Vec<(&'static str, Message)> {
    let request = Request([7, 8, 9].into());
    vec![
        (
            "BeginCommit",
            Message::BeginCommit(BeginCommit {
                id: id(),
                roster: roster(),
                requests: vec![Some(request.clone()), None],
                floor: 300,
                vote_timeout: TIME,
            }),
        ),
        (
            "Rollback",
            Message::Rollback {
                txn: txn(),
                branches: vec![branch("a", 1)],
                floor: 300,
            },
        ),
        (
            "Ask",
            Message::Ask(Question {
                id: id(),
                branch: Some(branch("a", 1)),
                voter: Voter::Gone,
                vote_timeout: TIME,
            }),
        ),
        ("Inquire", Message::Inquire { txn: txn() }),
        (
            "Resolve",
            Message::Resolve {
                participant: "a".parse().unwrap(),
            },
        ),
        ("ForceAbort", Message::ForceAbort { id: id() }),
        (
            "Prepare",
            Message::Prepare(Prepare {
                id: id(),
                roster: roster(),
                request: Some(request),
                read_only: ReadOnly::Forbidden,
                floor: 300,
                vote_timeout: TIME,
            }),
        ),
        (
            "LetGo",
            Message::LetGo {
                txn: txn(),
                floor: 300,
            },
        ),
        ("Vote::Prepared", vote(Vote::Prepared)),
        ("Vote::ReadOnly", vote(Vote::ReadOnly)),
        ("Vote::Aborted", vote(Vote::Aborted)),
        (
            "Applied",
            Message::Applied {
                id: id(),
                branch: branch("a", 1),
            },
        ),
        (
            "Phase1a",
            Message::Phase1a {
                ballot: ballot(),
                ids: vec![id()],
            },
        ),
        (
            "Phase1b",
            Message::Phase1b {
                ballot: ballot(),
                reports: vec![promised()],
            },
        ),
        (
            "Phase2a",
            Message::Phase2a {
                ballot: ballot(),
                proposals: vec![decision(Outcome::Commit)],
            },
        ),
        (
            "Phase2b",
            Message::Phase2b {
                id: id(),
                ballot: ballot(),
                outcome: Outcome::Abort,
            },
        ),
        (
            "Nack",
            Message::Nack {
                ballot: Ballot::ZERO,
                refused: vec![(id(), ballot())],
            },
        ),
        ("Decided", Message::Decided(decision(Outcome::Abort))),
        (
            "Finish",
            Message::Finish {
                id: id(),
                branch: branch("b", 0x1234),
                outcome: Outcome::Commit,
            },
        ),
        (
            "Undecided",
            Message::Undecided(Undecided {
                id: id(),
                missing: vec![branch("a", 1)],
                silent: vec![ReplicaId(3)],
            }),
        ),
        ("Status", status()),
        (
            "Resolved",
            Message::Resolved {
                participant: "a".parse().unwrap(),
                branches: vec![branch("a", 1), branch("a", u64::MAX)],
            },
        ),
        ("Busy", Message::Busy { id: id() }),
        (
            "NotOpen",
            Message::NotOpen {
                id: id(),
                generations: generations(),
            },
        ),
        (
            "Expired",
            Message::Expired {
                id: id(),
                branch: Some(branch("a", 1)),
            },
        ),
        ("Forgotten", Message::Forgotten { txn: txn() }),
    ]
}

fn vote(vote: Vote) -> Message {
    Message::Vote(CastVote {
        id: id(),
        roster: roster(),
        vote,
        vote_timeout: TIME,
    })
}

fn status() -> Message {
    let decided = State::Decided {
        outcome: Outcome::Commit,
        unapplied: vec![branch("a", 1)],
    };
    Message::Status {
        txn: txn(),
        instances: vec![(id(), undecided()), (id(), decided)],
    }
}

/// What is said about generations.
fn control() -> Vec<(&'static str, Message)> {
    let mut messages = vec![
        ("Announce", Message::Announce(generations())),
        (
            "Freeze",
            Message::Freeze {
                generation: 3,
                after: Some(id()),
            },
        ),
        (
            "Frozen",
            Message::Frozen {
                generation: 3,
                after: None,
                ids: vec![id()],
                more: true,
            },
        ),
        (
            "Collect",
            Message::Collect {
                generation: 3,
                ids: vec![id()],
            },
        ),
        (
            "Collected",
            Message::Collected {
                generation: 3,
                records: vec![Frozen {
                    report: promised(),
                    decided: Some((Outcome::Commit, Waits::Some)),
                }],
            },
        ),
        (
            "Fetch",
            Message::Fetch {
                slot: 300,
                after: None,
                after_name: Some(name()),
            },
        ),
        (
            "State",
            Message::State {
                generations: generations(),
                after: Some(id()),
                listed: vec![listed()],
                stores: Box::new(StoresPage {
                    after: Some(name()),
                    stores: vec![(name(), entered())],
                }),
                more: false,
            },
        ),
        (
            "Reconfigure",
            Message::Reconfigure {
                latest: 3,
                configuration: configuration(),
            },
        ),
        ("Release", Message::Release { id: id() }),
        (
            "Disputed",
            Message::Disputed {
                id: id(),
                branch: branch("a", 1),
            },
        ),
        (
            "Contradicted",
            Message::Contradicted {
                id: id(),
                branch: branch("a", 1),
            },
        ),
        (
            "Unproven",
            Message::Unproven {
                id: id(),
                branch: branch("a", 1),
            },
        ),
        (
            "List",
            Message::List {
                through: id(),
                after: Some(id()),
            },
        ),
        (
            "ListPage",
            Message::ListPage(Box::new(ListPage {
                through: id(),
                after: None,
                listed: vec![(id(), branch("a", 1))],
                next: Some(id()),
            })),
        ),
    ];
    messages.extend(stores());
    messages.extend(log().map(|(name, log)| (name, Message::Log(log))));
    messages.extend(declined().map(|(name, declined)| (name, Message::Declined(declined))));
    messages
}
