//! Many transactions in one message, and the limit of that.

use crate::protocol::message::BATCH_MAX;

use super::*;

fn ids(count: usize) -> Vec<CommitId> {
    (0..count as u32).map(id).collect()
}

#[test]
fn what_is_due_at_one_tick_gets_one_ballot_in_batches() {
    let config = ReplicaConfig {
        undecided_max: usize::MAX,
        ..config(1, 3)
    };
    let mut rig = Rig::with(config, Vec::new());
    for sequence in 0..=BATCH_MAX as u32 {
        rig.hear(initiator(), begun(sequence));
    }
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 10);
    let all_ids = ids(BATCH_MAX + 1);
    let (full, rest) = all_ids.split_at(BATCH_MAX);
    let mut expected = to(all(), phase1a(ballot(1, 1), full));
    expected.extend(to(all(), phase1a(ballot(1, 1), rest)));
    assert_eq!(out, effects([Record::Round { round: 1 }], expected));
}

#[test]
fn a_batch_of_reports_makes_one_batch_of_proposals() {
    let mut rig = Rig::new(1)
        .given(initiator(), begun(1))
        .given(initiator(), begun(2));
    rig.wait();
    let reports = [report(id(1)), report(id(2))];
    rig.hear(replica(2), phase1b(ballot(1, 1), reports.clone()));
    let proposals = [decision(id(1), Abort, None), decision(id(2), Abort, None)];
    assert_eq!(
        rig.hear(replica(3), phase1b(ballot(1, 1), reports)),
        sends(to(all(), phase2a(ballot(1, 1), proposals)))
    );
}

#[test]
fn instances_come_due_each_at_its_own_time() {
    let mut rig = Rig::new(1).given(initiator(), begun(1));
    rig.wait_quietly(4);
    rig.hear(initiator(), begun(2));
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out), (6, starts(ballot(1, 1), &[id(1)])));
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out), (4, starts(ballot(2, 1), &[id(2)])));
}

#[test]
fn a_batch_has_a_limit() {
    let messages = |count: usize| {
        let reports: Vec<_> = ids(count).into_iter().map(report).collect();
        let proposals = ids(count).into_iter().map(|id| decision(id, Abort, None));
        let refused = ids(count).into_iter().map(|id| (id, ballot(9, 3)));
        [
            phase1a(ballot(1, 2), &ids(count)),
            phase2a(ballot(1, 2), proposals.collect::<Vec<_>>()),
            phase1b(ballot(1, 1), reports),
            nack(ballot(1, 1), refused.collect::<Vec<_>>()),
        ]
    };
    for message in messages(BATCH_MAX) {
        let out = Rig::new(1).hear(replica(2), message);
        assert_eq!(out.notify, []);
    }
    for message in messages(BATCH_MAX + 1) {
        assert_eq!(
            Rig::new(1).hear(replica(2), message),
            rejected(replica(2), Rejection::TooLong)
        );
    }
}
