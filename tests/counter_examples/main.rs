//! Counter-examples that a review of the protocol and of its judges found. Each asserts what holds
//! now; each failed before the fix.

mod forgetting;
#[path = "../invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
mod log;

use std::time::Duration;

use crate::invariant::Facts;
use paxos_commit::protocol::message::{CastVote, Message, Prepare, Question, Report, Voter};
use paxos_commit::protocol::participant::{
    ParticipantCommand, ParticipantConfig, ParticipantNotice, ParticipantTimer,
};
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::{Record, ReplicaConfig, ReplicaTimer};
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, InitiatorId, Outcome, Peer, ReadOnly, Roster, Session, StoreId,
    TxnId, Vote,
};
use paxos_commit::protocol::{Effects, Host, Input, Participant, Replica};

fn acceptors() -> Acceptors {
    Acceptors::new((1..=3).map(ReplicaId)).expect("2F+1")
}
fn branch(name: &str) -> Branch {
    Branch {
        participant: name.parse().expect("a name"),
        session: Session(1),
        store: StoreId::from_u128(1),
    }
}
fn roster(names: &[&str]) -> Roster {
    Roster::new(names.iter().map(|n| branch(n))).expect("a roster")
}
fn txn(sequence: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    }
}
fn step<H: Host>(host: &mut H, input: Input<H>) -> Effects<H> {
    let mut out = Effects::default();
    host.step(input, &mut out);
    out
}
fn hear<H: Host>(host: &mut H, from: Peer, message: Message) -> Effects<H> {
    step(host, Input::Message { from, message })
}
fn session() -> Participant {
    let config = ParticipantConfig::new(branch("a"), acceptors());
    Participant::entered(config)
}
fn prepare(sequence: u32, floor: u32) -> Prepare {
    let roster = roster(&["a", "b"]);
    Prepare {
        id: CommitId::new(txn(sequence), &roster),
        roster,
        request: None,
        read_only: ReadOnly::Allowed,
        floor,
        vote_timeout: Duration::from_secs(600),
    }
}
fn replica(max: usize, saved: Vec<Record>) -> Replica {
    let mut config = ReplicaConfig::new(ReplicaId(2), acceptors());
    config.undecided_max = max;
    Replica::recover(config, saved, &mut Effects::default())
}
fn vote(replica: &mut Replica, name: &str, sequence: u32, vote: Vote) -> Effects<Replica> {
    let roster = roster(&["a", "b"]);
    let id = CommitId::new(txn(sequence), &roster);
    let vote_timeout = Duration::from_secs(600);
    let cast = CastVote {
        id,
        roster,
        vote,
        vote_timeout,
    };
    hear(replica, Peer::Session(branch(name)), Message::Vote(cast))
}
/// Ticks until the first Phase1a, at most so many.
fn ticks_to_ballot(replica: &mut Replica, max: u32) -> Option<u32> {
    (1..=max).find(|_| {
        let out = step(replica, Input::Timeout(ReplicaTimer::Tick));
        out.send
            .iter()
            .any(|(_, m)| matches!(m, Message::Phase1a { .. }))
    })
}

#[test]
fn work_that_is_rolled_back_leaves_no_memory() {
    let mut session = session();
    for sequence in 0..10_000 {
        step(
            &mut session,
            Input::Command(ParticipantCommand::Begin(txn(sequence))),
        );
        hear(
            &mut session,
            Peer::Replica(ReplicaId(1)),
            Message::LetGo {
                txn: txn(sequence),
                floor: sequence + 1,
            },
        );
    }
    assert!(
        session.remembered() < 100,
        "{} remembered",
        session.remembered()
    );
}

#[test]
fn a_read_only_vote_that_met_busy_replicas_is_said_again() {
    let mut session = session();
    let p = prepare(1, 0);
    let id = p.id;
    step(
        &mut session,
        Input::Command(ParticipantCommand::Begin(txn(1))),
    );
    step(&mut session, Input::Command(ParticipantCommand::Prepare(p)));
    let prepared = ParticipantCommand::Prepared {
        id,
        vote: Vote::ReadOnly,
    };
    let out = step(&mut session, Input::Command(prepared));
    assert_eq!(out.send.len(), 3);
    for replica in acceptors().iter() {
        hear(&mut session, Peer::Replica(replica), Message::Busy { id });
    }
    let again = (0..10_000)
        .map(|_| {
            step(&mut session, Input::Timeout(ParticipantTimer::Tick))
                .send
                .len()
        })
        .sum::<usize>();
    assert!(again > 0, "never said again");
}

#[test]
fn work_that_begins_while_preparing_is_refused() {
    let mut session = session();
    step(
        &mut session,
        Input::Command(ParticipantCommand::Begin(txn(1))),
    );
    step(
        &mut session,
        Input::Command(ParticipantCommand::Prepare(prepare(1, 0))),
    );
    let out = step(
        &mut session,
        Input::Command(ParticipantCommand::Begin(txn(1))),
    );
    assert!(!out.notify.is_empty(), "admitted in silence");
}

#[test]
fn read_only_transactions_do_not_make_replicas_busy() {
    let mut replica = replica(2, vec![]);
    for sequence in 0..2 {
        vote(&mut replica, "a", sequence, Vote::ReadOnly);
        vote(&mut replica, "b", sequence, Vote::ReadOnly);
    }
    // At the next tick it asks the others, and one of them has accepted the same.
    let asked = step(&mut replica, Input::Timeout(ReplicaTimer::Tick)).send;
    for (to, message) in asked {
        if to == Peer::Replica(ReplicaId(1)) {
            hear(&mut replica, to, message);
        }
    }
    let out = vote(&mut replica, "a", 2, Vote::Prepared);
    let busy = out
        .send
        .iter()
        .any(|(_, m)| matches!(m, Message::Busy { .. }));
    assert!(!busy, "{} undecided", replica.undecided().count());
}

#[test]
fn a_restart_of_one_replica_does_not_cut_vote_timeouts_short() {
    let mut first = replica(100, vec![]);
    let saved = vote(&mut first, "a", 1, Vote::Prepared).save;
    assert_eq!(ticks_to_ballot(&mut first, 1_000), None, "it waits 600 s");
    let mut restarted = replica(100, saved);
    vote(&mut restarted, "a", 1, Vote::Prepared);
    assert_eq!(ticks_to_ballot(&mut restarted, 1_000), None);
}

#[test]
fn a_question_does_not_cut_vote_timeouts_short() {
    let mut replica = replica(100, vec![]);
    let question = Question {
        id: prepare(1, 0).id,
        branch: Some(branch("a")),
        voter: Voter::Unknown,
        vote_timeout: Duration::ZERO,
    };
    let other = Branch {
        session: Session(2),
        ..branch("a")
    };
    hear(&mut replica, Peer::Session(other), Message::Ask(question));
    vote(&mut replica, "a", 1, Vote::Prepared);
    assert_eq!(ticks_to_ballot(&mut replica, 1_000), None);
}

// The judge.

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(1),
    }
}
fn vote_record(index: u8, vote: Vote) -> Record {
    let p = prepare(1, 0);
    Record::Vote {
        id: p.id,
        index,
        vote,
        roster: Some(p.roster),
    }
}
fn phase1b(accepted: Option<(Ballot, Outcome)>) -> Message {
    let p = prepare(1, 0);
    let held = BranchSet::default();
    let report = Report {
        id: p.id,
        accepted,
        held,
        read_only: held,
        roster: None,
    };
    Message::Phase1b {
        ballot: ballot(1),
        reports: vec![report],
    }
}
fn facts(records: &[Record]) -> Facts {
    let mut facts = Facts::new(acceptors());
    for record in records {
        facts.durable(ReplicaId(1), record).expect("sound");
    }
    facts
}
fn promise() -> Record {
    Record::Promise {
        id: prepare(1, 0).id,
        ballot: ballot(1),
    }
}

#[test]
fn judge_sees_a_promise_that_hides_what_was_accepted() {
    let votes = [
        vote_record(0, Vote::Prepared),
        vote_record(1, Vote::Prepared),
        promise(),
    ];
    let me = Peer::Replica(ReplicaId(1));
    assert!(facts(&votes).sent(&me, &phase1b(None)).is_err());
}

#[test]
fn judge_sees_a_report_of_commit_from_half_the_votes() {
    let votes = [vote_record(0, Vote::Prepared), promise()];
    let me = Peer::Replica(ReplicaId(1));
    let message = phase1b(Some((Ballot::ZERO, Outcome::Commit)));
    assert!(facts(&votes).sent(&me, &message).is_err());
}

#[test]
fn judge_sees_a_report_of_the_other_value() {
    let id = prepare(1, 0).id;
    let accept = Record::Accept {
        id,
        ballot: ballot(1),
        outcome: Outcome::Abort,
        unapplied: None,
    };
    let message = Message::Phase2b {
        id,
        ballot: ballot(1),
        outcome: Outcome::Commit,
    };
    let me = Peer::Replica(ReplicaId(1));
    assert!(facts(&[accept]).sent(&me, &message).is_err());
}

#[test]
fn judge_sees_a_finish_of_what_was_not_chosen() {
    let id = prepare(1, 0).id;
    let mut facts = facts(&[]);
    let record = Record::Finished {
        id,
        outcome: Outcome::Abort,
    };
    assert!(facts.durable(ReplicaId(1), &record).is_err());
}

#[test]
fn judge_sees_a_request_run_in_two_instances() {
    let mut facts = facts(&[]);
    let (one, two) = (roster(&["a", "b"]), roster(&["a", "c"]));
    facts
        .request_ran(CommitId::new(txn(1), &one), &branch("a"))
        .unwrap();
    assert!(
        facts
            .request_ran(CommitId::new(txn(1), &two), &branch("a"))
            .is_err()
    );
}

#[test]
fn judge_sees_a_branch_vote_in_two_instances() {
    let mut facts = facts(&[]);
    let me = Peer::Session(branch("a"));
    let cast = |roster: Roster| {
        let id = CommitId::new(txn(1), &roster);
        let vote_timeout = Duration::ZERO;
        Message::Vote(CastVote {
            id,
            roster,
            vote: Vote::Prepared,
            vote_timeout,
        })
    };
    facts.sent(&me, &cast(roster(&["a", "b"]))).unwrap();
    assert!(facts.sent(&me, &cast(roster(&["a", "c"]))).is_err());
}

#[test]
fn judge_sees_two_votes_of_one_branch_on_one_disk() {
    let mut facts = facts(&[vote_record(0, Vote::Prepared)]);
    let record = vote_record(0, Vote::Aborted);
    assert!(facts.durable(ReplicaId(1), &record).is_err());
}

/// DESIGN 2.6 called Expired an abort for a branch that is still prepared. Whether it still is, its
/// own session cannot know: another one may have committed it, and said so, while it was cut off.
#[test]
fn a_session_that_was_cut_off_does_not_take_expired_for_abort() {
    let mut session = session();
    let p = prepare(1, 0);
    let (id, branch) = (p.id, branch("a"));
    let mut tell = |command| step(&mut session, Input::Command(command));
    tell(ParticipantCommand::Begin(txn(1)));
    tell(ParticipantCommand::Prepare(p));
    let vote = Vote::Prepared;
    tell(ParticipantCommand::Prepared { id, vote });
    let expired = Message::Expired {
        id,
        branch: Some(branch.clone()),
    };
    let out = hear(&mut session, Peer::Replica(ReplicaId(1)), expired);
    let asked = ParticipantNotice::Expired {
        id,
        branch: branch.clone(),
    };
    assert_eq!(out.notify, [asked], "only the resource manager knows");
    let answer = ParticipantCommand::NotPrepared { id, branch };
    let out = step(&mut session, Input::Command(answer));
    assert_eq!(out.notify, [ParticipantNotice::Forgotten { id }]);
    assert!(session.is_idle());
}

/// A new configuration whose only replica had missed the entry that made it one: nobody leads the
/// log any more, so nobody told it. Those that are no longer in force ask it for news; by that it
/// learns that it is the one who lacks them.
#[test]
fn a_replica_that_is_asked_for_what_it_lacks_asks_back() {
    let config = ReplicaConfig::joining(ReplicaId(4));
    let mut joiner = Replica::recover(config, [], &mut Effects::default());
    let other = Peer::Replica(ReplicaId(1));
    let fetch = |slot| Message::Fetch {
        slot,
        after: None,
        after_name: None,
    };
    let out = hear(&mut joiner, other.clone(), fetch(3));
    assert_eq!(out.send, [(other, fetch(0))]);
}
