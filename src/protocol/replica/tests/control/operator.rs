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

fn declined(declined: Declined) -> Effects<Replica> {
    sends([(operator(), Message::Declined(declined))])
}

/// Replica 1 leads with generation 1 alone; nothing is to be settled.
fn leading_the_first(config: ReplicaConfig) -> Rig {
    let log_config = LogConfig {
        silence_ticks: 1,
        silence_ticks_max: 1,
        heartbeat_ticks: 1_000,
        stagger_ticks: 0,
    };
    let mut rig = Rig::with(
        ReplicaConfig {
            log: log_config,
            ..config
        },
        Vec::new(),
    );
    rig.tick();
    for from in [2, 3] {
        rig.hear(
            replica(from),
            log(LogMessage::Promise {
                slot: 0,
                ballot: ballot(1, 1),
                accepted: None,
            }),
        );
    }
    assert!(rig.replica.is_leading());
    rig
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

fn choose(rig: &mut Rig) -> Effects<Replica> {
    let accepted = log(LogMessage::Accepted {
        slot: 0,
        ballot: ballot(1, 1),
    });
    rig.hear(replica(2), accepted.clone());
    rig.hear(replica(3), accepted)
}

#[test]
fn a_change_of_the_membership_is_the_next_generation() {
    let mut rig = first();
    let next = open(2, &[1, 3, 4]);
    let out = rig.hear(operator(), reconfigure(1, &[1, 3, 4]));
    assert_eq!(out, sends(to(all(), accept(next.clone()))));
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
    assert!(out.send.len() >= 3, "{out:?}");
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
    rig.hear(b(), applied(id(1), branch("b", 1)));
    let out = rig.hear(operator(), release());
    assert_eq!(out.send.len(), 3, "it waits for a alone");
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
        undecided_max: 100,
        ..config(1, 3)
    };
    let mut rig = leading_the_first(config);
    rig.hear(a(), vote(1, Prepared));
    rig.wait_quietly(3);
    rig.hear(a(), vote(2, Aborted));
    let next = open(2, &[1, 2, 3]);
    assert_eq!(rig.wait(), (1, sends(to(all(), accept(next)))));
    choose(&mut rig);
    rig.wait_quietly(3);
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
