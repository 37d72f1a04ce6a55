//! What operators ask of the log, and when generations turn by themselves.

use super::*;
use crate::protocol::message::Declined;
use crate::protocol::types::UNSETTLED_MAX;

fn reconfigure(latest: u32, ids: &[u32]) -> Message {
    Message::Reconfigure {
        latest,
        configuration: configuration(ids),
    }
}

fn probe(slot: u64) -> Message {
    Message::Probe { slot }
}

/// These answer that they know the log up to this slot.
fn probed(rig: &mut Rig, from: &[u32], slot: u64) -> Effects<Replica> {
    let mut out = nothing();
    for id in from {
        out = rig.hear(replica(*id), Message::Probed { slot });
    }
    out
}

fn dials(ids: &[u32]) -> ReplicaNotice {
    let all = configuration(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let members = all.members();
    ReplicaNotice::Dial(members.filter(|it| ids.contains(&it.id.0)).collect())
}

fn declined(declined: Declined) -> Effects<Replica> {
    sends([(operator(), Message::Declined(declined))])
}

fn first() -> Rig {
    leading_the_first(config(1, 3))
}

fn accept(entry: Entry) -> Message {
    log(LogMessage::Accept {
        slot: 0,
        ballot: ballot(1, 1),
        entry,
    })
}

#[test]
fn a_change_of_the_membership_is_the_next_generation() {
    let mut rig = first();
    let next = open(2, &[1, 3, 4]);
    let out = rig.hear(operator(), reconfigure(1, &[1, 3, 4]));
    let asked = sends(to([replica(3), replica(4)], probe(0)));
    assert_eq!(out.send, asked.send);
    assert_eq!(out.notify, [dials(&[4])], "it is none of the cluster's yet");
    let out = probed(&mut rig, &[4], 0);
    assert_eq!(out.send, sends(to(all(), accept(next.clone()))).send);
    assert_eq!(out.notify, [dials(&[])]);
    let out = choose(&mut rig);
    let round = Record::Log(LogRecord::Round { round: 2 });
    assert_eq!(out.save, [round, chosen(0, next.clone())]);
    let told = Message::Announce(generations(std::slice::from_ref(&next)));
    assert!(out.send.contains(&(operator(), told)));
    // Those who are in force now have promised nothing; phase 1 again. Those who were hear of it.
    for id in [1, 2, 3, 4] {
        let ballot = ballot(2, 1);
        let prepare = log(LogMessage::Prepare { slot: 1, ballot });
        assert!(out.send.contains(&(replica(id), learn(0, next.clone()))));
        assert!(out.send.contains(&(replica(id), prepare)));
    }
    assert!(!rig.replica.is_leading());
}

#[test]
fn an_address_moves_with_the_next_generation() {
    let mut rig = first();
    let address: crate::protocol::types::Address = "b.example:7000".parse().unwrap();
    let mut members: Vec<Member> = configuration(&[1, 2, 3]).members().collect();
    members[1].address = address;
    let configuration = Configuration::new(members).unwrap();
    let latest = 1;
    rig.hear(
        operator(),
        Message::Reconfigure {
            latest,
            configuration: configuration.clone(),
        },
    );
    // It is heard where it still is.
    probed(&mut rig, &[2], 0);
    choose(&mut rig);
    assert_eq!(rig.replica.generations().in_force(), Some(&configuration));
    assert!(rig.replica.is_leading(), "the acceptors are the same");
}

#[test]
fn what_is_declined() {
    let mut rig = first();
    let changed = declined(Declined::Changed { latest: 1 });
    assert_eq!(rig.hear(operator(), reconfigure(0, &[1, 2, 3])), changed);
    assert_eq!(rig.hear(operator(), reconfigure(2, &[1, 2, 3])), changed);
    let used = declined(Declined::UsedId(ReplicaId(0)));
    assert_eq!(rig.hear(operator(), reconfigure(1, &[0, 1, 2])), used);
    let not_listed = declined(Declined::NotListed(id(1)));
    let release = || Message::Release { id: id(1) };
    assert_eq!(rig.hear(operator(), release()), not_listed);
    let other = Peer::Operator(2);
    rig.hear(operator(), reconfigure(1, &[1, 2, 3]));
    let busy = Message::Declined(Declined::UnderWay);
    let out = rig.hear(other.clone(), reconfigure(1, &[1, 2, 3]));
    assert_eq!(out, sends([(other, busy)]));
    let mut rig = Rig::new(2);
    let leader = None;
    let elsewhere = declined(Declined::NotLeader { leader });
    assert_eq!(rig.hear(operator(), reconfigure(1, &[1, 2, 3])), elsewhere);
    let ballot = ballot(1, 3);
    rig.hear(replica(3), log(LogMessage::Lead { slot: 0, ballot }));
    let leader = Some(ReplicaId(3));
    let elsewhere = declined(Declined::NotLeader { leader });
    assert_eq!(rig.hear(operator(), reconfigure(1, &[1, 2, 3])), elsewhere);
    let refused = rejected(initiator(), Rejection::NotFromSuchAPeer);
    assert_eq!(rig.hear(initiator(), reconfigure(1, &[1, 2, 3])), refused);
}

#[test]
fn a_name_that_was_ever_used_is_used() {
    let entries = [open(2, &[1, 2, 9]), open(3, &[1, 2, 3])];
    let mut rig = Rig::with(leading([]).config, chosen_all(&entries));
    rig.tick();
    for from in [2, 3] {
        rig.hear(replica(from), promise(None));
    }
    assert!(rig.replica.is_leading());
    let used = declined(Declined::UsedId(ReplicaId(9)));
    assert_eq!(rig.hear(operator(), reconfigure(3, &[1, 2, 9])), used);
    let used = declined(Declined::UsedId(ReplicaId(4)));
    assert_eq!(rig.hear(operator(), reconfigure(3, &[1, 2, 4])), used);
    let out = rig.hear(operator(), reconfigure(3, &[1, 2, 10]));
    assert_eq!(
        out.send,
        sends(to([replica(2), replica(10)], probe(2))).send
    );
}

#[test]
fn too_many_unsettled_generations_are_no_place_for_another() {
    let last = UNSETTLED_MAX as u32;
    let entries: Vec<Entry> = (2..=last).map(|g| open(g, &[1, 2, 3])).collect();
    let mut rig = Rig::with(leading([]).config, chosen_all(&entries));
    rig.tick();
    let ballot = ballot(1, 1);
    for from in [2, 3] {
        rig.hear(
            replica(from),
            log(LogMessage::Promise {
                slot: entries.len() as u64,
                ballot,
                accepted: None,
            }),
        );
    }
    let too_many = declined(Declined::TooManyUnsettled(UNSETTLED_MAX));
    assert_eq!(
        rig.hear(operator(), reconfigure(last, &[1, 2, 3])),
        too_many
    );
}

#[test]
fn an_entry_that_lost_its_slot_is_not_proposed_again() {
    let mut rig = first();
    rig.hear(operator(), reconfigure(1, &[1, 2, 3]));
    probed(&mut rig, &[2], 0);
    let other = open(2, &[1, 2, 4]);
    let out = rig.hear(replica(2), learn(0, other.clone()));
    let told = (
        operator(),
        Message::Declined(Declined::Changed { latest: 2 }),
    );
    assert_eq!(out, effects([chosen(0, other)], [told]));
    rig.hear(replica(2), fetch(9));
}

/// A leader that wanted a new generation, and leads no more.
fn deposed() -> Rig {
    let mut rig = first();
    rig.hear(operator(), reconfigure(1, &[1, 2, 3]));
    probed(&mut rig, &[2], 0);
    let ballot = ballot(4, 2);
    rig.hear(replica(2), log(LogMessage::Lead { slot: 0, ballot }));
    let to_operator = |out: Effects<Replica>| out.send.iter().any(|(to, _)| *to == operator());
    assert!(
        !to_operator(rig.tick()),
        "the next leader may find the entry"
    );
    rig
}

#[test]
fn who_leads_no_more_answers_when_the_slot_is_decided() {
    let mut rig = deposed();
    let out = rig.hear(replica(2), learn(0, open(2, &[1, 2, 3])));
    let done = Message::Announce(generations(&[open(2, &[1, 2, 3])]));
    assert_eq!(out.send, [(operator(), done)]);
    let mut rig = deposed();
    let out = rig.hear(replica(2), learn(0, open(2, &[1, 2, 4])));
    let changed = Message::Declined(Declined::Changed { latest: 2 });
    assert_eq!(out.send, [(operator(), changed)]);
    let mut rig = deposed();
    let out = rig.hear(replica(2), state(&third(), []));
    let lost = Message::Declined(Declined::LostSight);
    assert_eq!(out.send, [(operator(), lost)]);
}

#[test]
fn what_a_connected_participant_will_apply_is_not_released() {
    let [second, third] = third();
    let entries = [second, third, settle(&[1])];
    let mut rig = Rig::with(leading([]).config, chosen_all(&entries));
    rig.tick();
    for from in [2, 3] {
        let promise = log(LogMessage::Promise {
            slot: 3,
            ballot: ballot(1, 1),
            accepted: None,
        });
        rig.hear(replica(from), promise);
    }
    rig.connect(session("b", 9));
    let release = || Message::Release { id: id(1) };
    let connected = Declined::Connected("b".parse().unwrap());
    assert_eq!(rig.hear(operator(), release()), declined(connected));
    // Another store of that name is not the one that the commit waits for.
    rig.disconnect(session("b", 9));
    let other = Branch {
        store: StoreId::from_u128(2),
        ..branch("b", 9)
    };
    rig.connect(Peer::Session(other));
    rig.connect(session("a", 9));
    let connected = Declined::Connected("a".parse().unwrap());
    assert_eq!(rig.hear(operator(), release()), declined(connected));
    let unproven = Message::Unproven {
        id: id(1),
        branch: branch("a", 1),
    };
    assert_eq!(rig.hear(session("a", 9), unproven), nothing());
    let out = rig.hear(operator(), release());
    assert_eq!(
        out.send.len(),
        3,
        "a has no proof, and the store of b is away"
    );
}

#[test]
fn a_released_commit_is_gone_everywhere() {
    let [second, third] = third();
    let entries = [second, third, settle(&[1])];
    let mut rig = Rig::with(leading([]).config, chosen_all(&entries));
    rig.tick();
    let ballot = ballot(1, 1);
    for from in [2, 3] {
        let accepted = None;
        rig.hear(
            replica(from),
            log(LogMessage::Promise {
                slot: 3,
                ballot,
                accepted,
            }),
        );
    }
    let release = Entry::Release { id: id(1) };
    let accept = log(LogMessage::Accept {
        slot: 3,
        ballot,
        entry: release.clone(),
    });
    let out = rig.hear(operator(), Message::Release { id: id(1) });
    assert_eq!(out, sends(to(all(), accept)));
    let accepted = log(LogMessage::Accepted { slot: 3, ballot });
    rig.hear(replica(2), accepted.clone());
    let out = rig.hear(replica(3), accepted);
    assert_eq!(out.save, [chosen(3, release.clone())]);
    assert!(out.send.contains(&(operator(), expired(1, None))));
    assert_eq!(rig.restart().replica.remembered(), 0);
    // A follower tells whoever waits there.
    let mut rig = knowing(2, &entries, []);
    assert_eq!(rig.replica.remembered(), 1);
    let out = rig.hear(replica(1), learn(3, release.clone()));
    assert_eq!(out, saves([chosen(3, release)]));
    let told = sends([(a(), expired(1, Some(branch("a", 1))))]);
    assert_eq!(rig.hear(a(), vote(1, Prepared)), told);
}

#[test]
fn generations_turn_with_time() {
    let config = ReplicaConfig {
        generation_ticks: 5,
        ..config(1, 3)
    };
    let mut rig = leading_the_first(config);
    let next = open(2, &[1, 2, 3]);
    // One tick has passed before it led.
    assert_eq!(rig.wait(), (4, sends(to(all(), accept(next)))));
    choose(&mut rig);
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out.send.len()), (5, 3), "the age counts from there");
}

#[test]
fn generations_turn_with_their_transactions() {
    let config = ReplicaConfig {
        generation_transactions_max: 2,
        generation_ticks_min: 0,
        undecided_max: 100,
        ..config(1, 3)
    };
    let mut rig = leading_the_first(config);
    let next = (replica(2), accept(open(2, &[1, 2, 3])));
    let opens = |rig: &mut Rig| (0..3).any(|_| rig.tick().send.contains(&next));
    rig.hear(a(), vote(1, Prepared));
    rig.hear(b(), vote(1, Prepared));
    assert!(!opens(&mut rig), "one");
    // A branch that votes in transactions of its own counts for nothing.
    for sequence in 10..20 {
        rig.hear(a(), vote(sequence, Aborted));
        let id = CommitId::new(txn(sequence), &only_a());
        rig.hear(a(), cast(id, only_a(), Prepared));
    }
    assert!(!opens(&mut rig), "still one");
    rig.hear(initiator(), Message::BeginCommit(begin(id(2), ab())));
    assert!(opens(&mut rig), "two");
    choose(&mut rig);
    assert_eq!(rig.replica.generations().latest(), 2);
}

#[test]
fn no_generation_turns_by_itself_while_old_ones_wait_to_be_settled() {
    let entries: Vec<Entry> = (2..=4).map(|g| open(g, &[1, 2, 3])).collect();
    let config = ReplicaConfig {
        generation_ticks: 1,
        ..leading([]).config
    };
    let mut rig = Rig::with(config, chosen_all(&entries));
    rig.tick();
    let ballot = ballot(1, 1);
    for from in [2, 3] {
        let accepted = None;
        rig.hear(
            replica(from),
            log(LogMessage::Promise {
                slot: 3,
                ballot,
                accepted,
            }),
        );
    }
    let opens = |out: &Effects<Replica>| {
        let is_open = |message: &Message| {
            matches!(
                message,
                Message::Log(LogMessage::Accept {
                    entry: Entry::Open(_),
                    ..
                })
            )
        };
        out.send.iter().any(|(_, message)| is_open(message))
    };
    assert!((0..20).all(|_| !opens(&rig.tick())));
}
