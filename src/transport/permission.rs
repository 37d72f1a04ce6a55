//! What an identity may say to a replica.
//!
//! The core checks what can be told from its own state (is this the transaction's initiator, does
//! this session stand in the roster, is this ballot the sender's). Here stands what can be told
//! from the message and the sender alone; whoever says something else loses its connection, since
//! no correct program does.

use crate::protocol::message::Message;
use crate::protocol::types::Peer;

use super::identity::are_of_one_name;

/// Whether `from` may send `message` to a replica.
pub fn may_say(from: &Peer, message: &Message) -> bool {
    match message {
        // Only the initiator that owns an id commits it or rolls it back.
        Message::BeginCommit(begin) => owns(from, begin.id.txn),
        Message::Rollback { txn, .. } => owns(from, *txn),
        // An outcome is told to those who take part: an initiator to whose name the id is bound (a
        // later run of it asks for the ids that its application kept), or a session that asks for
        // a branch of its own participant.
        Message::Ask(question) => match from {
            Peer::Operator(_) => true,
            Peer::Initiator(id) => are_of_one_name(*id, question.id.txn.initiator),
            Peer::Session(branch) => {
                let asked = question.branch.as_ref();
                asked.is_some_and(|asked| asked.participant == branch.participant)
            }
            Peer::Replica(_) => false,
        },
        // The id entitles a session that holds it to ask: it was told of the transaction.
        Message::Inquire { txn } => match from {
            Peer::Operator(_) | Peer::Session(_) => true,
            Peer::Initiator(id) => are_of_one_name(*id, txn.initiator),
            Peer::Replica(_) => false,
        },
        Message::Resolve { .. } => matches!(from, Peer::Initiator(_) | Peer::Operator(_)),
        // A rollback of a planned transaction; a later run of the initiator may ask for it too.
        Message::ForceAbort { id } => match from {
            Peer::Operator(_) => true,
            Peer::Initiator(run) => are_of_one_name(*run, id.txn.initiator),
            Peer::Session(_) | Peer::Replica(_) => false,
        },
        Message::Reconfigure { .. }
        | Message::Release { .. }
        | Message::Gone { .. }
        | Message::Restored { .. } => matches!(from, Peer::Operator(_)),
        // A session votes for its own branch only: the roster must hold it.
        Message::Vote(vote) => match from {
            Peer::Session(branch) => vote.roster.index_of(branch).is_some(),
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => false,
        },
        // A session finishes the branches of its own store.
        Message::Applied { branch, .. }
        | Message::Contradicted { branch, .. }
        | Message::Unproven { branch, .. } => match from {
            Peer::Session(own) => {
                own.participant == branch.participant && own.store == branch.store
            }
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => false,
        },
        Message::List { .. } | Message::Present { .. } => matches!(from, Peer::Session(_)),
        Message::Fetch { .. } => matches!(from, Peer::Replica(_) | Peer::Operator(_)),
        // Ballots above 0 and the control log are the replicas' own affair.
        Message::Phase1a { .. }
        | Message::Phase1b { .. }
        | Message::Phase2a { .. }
        | Message::Phase2b { .. }
        | Message::Nack { .. }
        | Message::Decided(_)
        | Message::Expired { .. }
        | Message::NotOpen { .. }
        | Message::Announce(_)
        | Message::Log(_)
        | Message::Freeze { .. }
        | Message::Frozen { .. }
        | Message::Collect { .. }
        | Message::Collected { .. }
        | Message::State { .. }
        | Message::Enter { .. }
        | Message::Probe { .. }
        | Message::Probed { .. } => matches!(from, Peer::Replica(_)),
        // Only replicas say these, and never to each other.
        Message::Prepare(_)
        | Message::LetGo { .. }
        | Message::Finish { .. }
        | Message::Undecided(_)
        | Message::Status { .. }
        | Message::Resolved { .. }
        | Message::Busy { .. }
        | Message::Forgotten { .. }
        | Message::Disputed { .. }
        | Message::ListPage(_)
        | Message::Admission { .. }
        | Message::Named { .. }
        | Message::Declined(_) => false,
    }
}

fn owns(from: &Peer, txn: crate::protocol::types::TxnId) -> bool {
    *from == Peer::Initiator(txn.initiator)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::message::{
        Admission, BeginCommit, CastVote, Decision, Declined, Prepare, Question, Undecided, Voter,
    };
    use crate::protocol::paxos::log::LogMessage;
    use crate::protocol::paxos::{Ballot, ReplicaId};
    use crate::protocol::types::{
        Branch, CommitId, Configuration, Generations, InitiatorId, Member, Outcome, ReadOnly,
        Roster, Session, StoreId, TxnId, Vote,
    };
    use crate::transport::draw_initiator;

    fn branch(name: &str, session: u64) -> Branch {
        Branch {
            participant: name.parse().unwrap(),
            session: Session(session),
            store: StoreId::from_u128(1),
        }
    }

    fn initiator(name: &str) -> InitiatorId {
        draw_initiator(&name.parse().unwrap())
    }

    /// Who says it; the letters of the table.
    fn peers(owner: InitiatorId) -> [(char, Peer); 8] {
        [
            ('R', Peer::Replica(ReplicaId(2))),
            // The branch that a message is about, another session of its participant, and one of
            // another participant.
            ('S', Peer::Session(branch("a", 1))),
            ('s', Peer::Session(branch("a", 2))),
            ('x', Peer::Session(branch("b", 1))),
            // The owner of the transaction, a later run of it, and one of another name.
            ('I', Peer::Initiator(owner)),
            ('i', Peer::Initiator(initiator("shop"))),
            ('y', Peer::Initiator(initiator("bank"))),
            ('O', Peer::Operator(1)),
        ]
    }

    /// Every message of a transaction of `initiator`, about branch `a/1`, and who may say it.
    fn table(initiator: InitiatorId) -> Vec<(&'static str, Message)> {
        let txn = TxnId {
            generation: 1,
            initiator,
            sequence: 1,
            nonce: 9,
        };
        let own = branch("a", 1);
        let roster = Roster::new([own.clone(), branch("c", 1)]).unwrap();
        let id = CommitId::new(txn, &roster);
        let vote_timeout = Duration::from_secs(1);
        let (ballot, outcome) = (Ballot::ZERO, Outcome::Abort);
        let member = Member {
            id: ReplicaId(1),
            address: "h:1".parse().unwrap(),
        };
        let configuration = Configuration::new([member]).unwrap();
        let generations = Generations::genesis(configuration.clone());
        let ask = |branch| {
            Message::Ask(Question {
                id,
                branch,
                voter: Voter::Unknown,
                vote_timeout,
            })
        };
        let participant = own.participant.clone();
        let name = participant.clone();
        vec![
            (
                "I",
                Message::BeginCommit(BeginCommit {
                    id,
                    roster: roster.clone(),
                    requests: Vec::new(),
                    floor: 0,
                    vote_timeout,
                }),
            ),
            (
                "I",
                Message::Rollback {
                    txn,
                    branches: Vec::new(),
                    floor: 0,
                },
            ),
            ("IiO", ask(None)),
            ("SsIiO", ask(Some(own.clone()))),
            ("SsxIiO", Message::Inquire { txn }),
            (
                "IiyO",
                Message::Resolve {
                    participant: participant.clone(),
                },
            ),
            ("IiO", Message::ForceAbort { id }),
            (
                "",
                Message::Prepare(Prepare {
                    id,
                    roster: roster.clone(),
                    request: None,
                    read_only: ReadOnly::Allowed,
                    floor: 0,
                    vote_timeout,
                }),
            ),
            ("", Message::LetGo { txn, floor: 0 }),
            (
                "S",
                Message::Vote(CastVote {
                    id,
                    roster,
                    vote: Vote::Prepared,
                    vote_timeout,
                }),
            ),
            (
                "Ss",
                Message::Applied {
                    id,
                    branch: own.clone(),
                },
            ),
            (
                "R",
                Message::Phase1a {
                    ballot,
                    ids: Vec::new(),
                },
            ),
            (
                "R",
                Message::Phase1b {
                    ballot,
                    reports: Vec::new(),
                },
            ),
            (
                "R",
                Message::Phase2a {
                    ballot,
                    proposals: Vec::new(),
                },
            ),
            (
                "R",
                Message::Phase2b {
                    id,
                    ballot,
                    outcome,
                },
            ),
            (
                "R",
                Message::Nack {
                    ballot,
                    refused: Vec::new(),
                },
            ),
            (
                "R",
                Message::Decided(Decision {
                    id,
                    outcome,
                    unapplied: None,
                }),
            ),
            (
                "",
                Message::Finish {
                    id,
                    branch: own,
                    outcome,
                },
            ),
            (
                "",
                Message::Undecided(Undecided {
                    id,
                    missing: Vec::new(),
                    silent: Vec::new(),
                }),
            ),
            (
                "",
                Message::Status {
                    txn,
                    instances: Vec::new(),
                },
            ),
            (
                "",
                Message::Resolved {
                    participant,
                    branches: Vec::new(),
                },
            ),
            ("", Message::Busy { id }),
            ("R", Message::Announce(generations.clone())),
            (
                "R",
                Message::NotOpen {
                    id,
                    generations: generations.clone(),
                },
            ),
            ("R", Message::Expired { id, branch: None }),
            ("", Message::Forgotten { txn }),
            ("R", Message::Log(LogMessage::Lead { slot: 0, ballot })),
            (
                "R",
                Message::Freeze {
                    generation: 1,
                    after: None,
                },
            ),
            (
                "R",
                Message::Frozen {
                    generation: 1,
                    after: None,
                    ids: Vec::new(),
                    more: false,
                },
            ),
            (
                "R",
                Message::Collect {
                    generation: 1,
                    ids: Vec::new(),
                },
            ),
            (
                "R",
                Message::Collected {
                    generation: 1,
                    records: Vec::new(),
                },
            ),
            (
                "RO",
                Message::Fetch {
                    slot: 0,
                    after: None,
                    after_name: None,
                },
            ),
            (
                "R",
                Message::State {
                    generations,
                    after: None,
                    listed: Vec::new(),
                    stores: Box::default(),
                    more: false,
                },
            ),
            (
                "O",
                Message::Reconfigure {
                    latest: 1,
                    configuration,
                },
            ),
            ("O", Message::Release { id }),
            ("", Message::Declined(Declined::UnderWay)),
            (
                "Ssx",
                Message::Present {
                    opening: None,
                    after: None,
                },
            ),
            (
                "",
                Message::Admission {
                    slot: 0,
                    admission: Admission::Entered,
                },
            ),
            (
                "",
                Message::Named {
                    participant: name.clone(),
                    entered: None,
                },
            ),
            ("R", Message::Enter { stores: Vec::new() }),
            (
                "O",
                Message::Gone {
                    participant: name.clone(),
                    store: StoreId::from_u128(1),
                },
            ),
            (
                "O",
                Message::Restored {
                    participant: name,
                    store: StoreId::from_u128(1),
                },
            ),
        ]
    }

    #[test]
    fn everybody_says_its_own_part_and_nothing_else() {
        let owner = initiator("shop");
        for (allowed, message) in table(owner) {
            for (letter, peer) in peers(owner) {
                let may = may_say(&peer, &message);
                assert_eq!(may, allowed.contains(letter), "{peer}: {message:?}");
            }
        }
    }
}
