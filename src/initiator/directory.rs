//! To which sessions of a participant work goes: what replicas have told, and when they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::protocol::types::{Branch, ParticipantName};

use super::lately::{Known, LATELY_MAX, Lately};
use super::suspects::Suspects;

/// The most questions about sessions that wait for an answer.
const RESOLVING_MAX: usize = 65_536;

/// After so long without an answer the same question is asked again.
const RESOLVE_AGAIN: Duration = Duration::from_millis(10);

/// Who waits to hear which sessions of a participant are connected.
struct Resolving {
    /// When the replicas were asked last; None if one has answered since then that none is.
    asked: Option<Instant>,
    answers: Vec<oneshot::Sender<Vec<Branch>>>,
}

/// The sessions of participants, as far as an initiator has heard of them.
#[derive(Default)]
pub(super) struct Directory {
    resolving: BTreeMap<ParticipantName, Resolving>,
    /// Participants to ask for when a commit has had its outcome: on its way the question, and the
    /// answers of all replicas, would only be in between.
    refreshing: BTreeSet<ParticipantName>,
    lately: Lately,
    suspects: Suspects,
}

impl Directory {
    /// Answers with the sessions of a participant: now, or when a replica has told. True if the
    /// replicas are to be asked.
    pub(super) fn find(
        &mut self,
        participant: &ParticipantName,
        answer: oneshot::Sender<Vec<Branch>>,
        now: Instant,
    ) -> bool {
        let sessions = match self.lately.known(participant, now) {
            Known::Fresh(sessions) => sessions,
            Known::Old(sessions) => {
                if self.refreshing.len() < LATELY_MAX {
                    self.refreshing.insert(participant.clone());
                }
                sessions
            }
            Known::No => return self.asks(participant, Some(answer), now),
        };
        let _ = answer.send(self.suspects.pass_over(sessions));
        false
    }

    /// A replica has told that these are connected to it.
    pub(super) fn told(
        &mut self,
        participant: &ParticipantName,
        sessions: Vec<Branch>,
        now: Instant,
    ) {
        if sessions.is_empty() {
            self.lately.forget(participant);
            // A replica to which none is connected may know less than the others. But nobody waits
            // for what those say, if they say nothing.
            if let Some(resolving) = self.resolving.get_mut(participant) {
                resolving.asked = None;
            }
            return;
        }
        let told = sessions.clone();
        self.lately.told(participant.clone(), told, now);
        let sessions = self.suspects.pass_over(sessions);
        let resolving = self.resolving.remove(participant);
        for answer in resolving.into_iter().flat_map(|of| of.answers) {
            let _ = answer.send(sessions.clone());
        }
    }

    /// All of these have voted to commit.
    pub(super) fn committed(&mut self, branches: &[Branch]) {
        self.suspects.clear(branches);
    }

    /// The transaction of these was aborted.
    pub(super) fn aborted(&mut self, branches: &[Branch]) {
        for branch in branches {
            self.lately.forget(&branch.participant);
        }
    }

    /// One of these did not vote in time.
    pub(super) fn suspect(&mut self, branches: &[Branch]) {
        self.suspects.suspect(branches);
    }

    /// After an outcome: the participants for whose sessions the replicas are to be asked, because
    /// what was used was old, and nobody has told it since.
    pub(super) fn stale(&mut self, now: Instant) -> Vec<ParticipantName> {
        let mut used = std::mem::take(&mut self.refreshing);
        used.retain(|participant| {
            let is_fresh = matches!(self.lately.known(participant, now), Known::Fresh(_));
            !is_fresh && self.asks(participant, None, now)
        });
        used.into_iter().collect()
    }

    /// Whether the replicas are to be asked now, which sessions of a participant are connected.
    fn asks(
        &mut self,
        participant: &ParticipantName,
        waits: Option<oneshot::Sender<Vec<Branch>>>,
        now: Instant,
    ) -> bool {
        // One answer is for all who wait. (One that was lost is asked for again.)
        if let Some(resolving) = self.resolving.get_mut(participant) {
            resolving.answers.retain(|waiting| !waiting.is_closed());
            resolving.answers.extend(waits);
            let is_lost = |asked: Instant| now - asked >= RESOLVE_AGAIN;
            let asks = resolving.asked.is_none_or(is_lost);
            if asks {
                resolving.asked = Some(now);
            }
            return asks;
        }
        let has_room = self.resolving.len() < RESOLVING_MAX;
        if has_room {
            let resolving = Resolving {
                asked: Some(now),
                answers: waits.into_iter().collect(),
            };
            self.resolving.insert(participant.clone(), resolving);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::super::lately::FRESH;
    use super::*;
    use crate::protocol::types::{Session, StoreId};

    fn ledger() -> ParticipantName {
        "ledger".parse().unwrap()
    }

    fn branch(session: u64) -> Branch {
        Branch {
            participant: ledger(),
            session: Session(session),
            store: StoreId::from_u128(1),
        }
    }

    /// What a question comes to at once, and whether the replicas are to be asked.
    fn find(directory: &mut Directory, now: Instant) -> (Option<Vec<Branch>>, bool) {
        let (answer, mut answered) = oneshot::channel();
        let asks = directory.find(&ledger(), answer, now);
        (answered.try_recv().ok(), asks)
    }

    fn one() -> Vec<Branch> {
        vec![branch(1)]
    }

    #[test]
    fn what_is_not_known_is_asked_for_once_and_told_to_all_who_wait() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        let (first, mut heard_first) = oneshot::channel();
        assert!(directory.find(&ledger(), first, now));
        let (second, mut heard_second) = oneshot::channel();
        assert!(!directory.find(&ledger(), second, now));
        // One to which none is connected: others may know more, and the next who asks, asks all.
        directory.told(&ledger(), Vec::new(), now);
        let (third, mut heard_third) = oneshot::channel();
        assert!(directory.find(&ledger(), third, now));
        assert!(heard_first.try_recv().is_err());
        directory.told(&ledger(), one(), now);
        for heard in [&mut heard_first, &mut heard_second, &mut heard_third] {
            assert_eq!(heard.try_recv(), Ok(one()));
        }
    }

    #[test]
    fn a_question_without_an_answer_is_asked_again() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        assert_eq!(find(&mut directory, now), (None, true));
        let almost = now + RESOLVE_AGAIN - Duration::from_nanos(1);
        assert_eq!(find(&mut directory, almost), (None, false));
        assert_eq!(find(&mut directory, now + RESOLVE_AGAIN), (None, true));
    }

    #[test]
    fn what_is_old_is_used_and_asked_for_after_the_outcome() {
        let (mut directory, told) = (Directory::default(), Instant::now());
        directory.told(&ledger(), one(), told);
        assert_eq!(find(&mut directory, told), (Some(one()), false));
        assert_eq!(directory.stale(told + FRESH), []);

        let old = told + FRESH;
        assert_eq!(find(&mut directory, old), (Some(one()), false));
        assert_eq!(directory.stale(old), [ledger()]);
        // Once.
        assert_eq!(directory.stale(old), []);
        // And whoever asks meanwhile, when it is too old to be used, waits for that answer.
        let (answer, mut answered) = oneshot::channel();
        let later = old + RESOLVE_AGAIN - Duration::from_nanos(1);
        directory.aborted(&[branch(1)]);
        assert!(!directory.find(&ledger(), answer, later));
        directory.told(&ledger(), one(), later);
        assert_eq!(answered.try_recv(), Ok(one()));
    }

    #[test]
    fn what_was_told_meanwhile_is_not_asked_for() {
        let (mut directory, told) = (Directory::default(), Instant::now());
        directory.told(&ledger(), one(), told);
        let old = told + FRESH;
        assert_eq!(find(&mut directory, old), (Some(one()), false));
        directory.told(&ledger(), one(), old);
        assert_eq!(directory.stale(old), []);
    }

    #[test]
    fn after_an_abort_the_replicas_are_asked() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.told(&ledger(), one(), now);
        directory.aborted(&[branch(1)]);
        assert_eq!(find(&mut directory, now), (None, true));
        // Whoever did not vote is passed over while there is another.
        directory.suspect(&[branch(1)]);
        directory.told(&ledger(), vec![branch(1), branch(2)], now);
        let other = vec![branch(2)];
        assert_eq!(find(&mut directory, now), (Some(other), false));
        directory.committed(&[branch(1)]);
        let both = vec![branch(1), branch(2)];
        assert_eq!(find(&mut directory, now), (Some(both), false));
    }

    #[test]
    fn what_waits_for_an_outcome_has_a_limit() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        for number in 0..3_000 {
            let name: ParticipantName = format!("p{number}").parse().unwrap();
            directory.told(&name, one(), now);
            let (answer, mut answered) = oneshot::channel();
            assert!(!directory.find(&name, answer, now + FRESH));
            assert_eq!(answered.try_recv(), Ok(one()));
        }
        assert_eq!(directory.stale(now + FRESH).len(), LATELY_MAX);
    }
}
