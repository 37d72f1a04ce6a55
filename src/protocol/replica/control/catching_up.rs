//! Catching up: what the log comes to, horizon and list together, page by page.

use crate::protocol::message::{Declined, Message, StoresPage};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::Log;
use crate::protocol::types::{
    CommitId, Configuration, Entered, Generations, LIST_MAX, Listed, ParticipantName, Peer, Stores,
};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::{Control, Rest};

/// For how many ticks a state that is being taken over may stand still before another replica's takes
/// its place.
const STALLED_TICKS: u32 = 10;

/// So many names are as long as one commit with the longest roster.
const NAMES_OF_A_COMMIT: usize = 16;

/// Up to where a state was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cursor {
    /// The last commit.
    pub(crate) after: Option<CommitId>,
    /// The last name.
    pub(crate) after_name: Option<ParticipantName>,
}

/// A page of another replica's state.
pub(crate) struct Page {
    pub(crate) generations: Generations,
    pub(crate) after: Option<CommitId>,
    pub(crate) listed: Vec<Listed>,
    pub(crate) stores: StoresPage,
    pub(crate) more: bool,
}

/// A state that is being taken over; nothing of it counts before it is complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fetching {
    from: ReplicaId,
    generations: Generations,
    listed: Vec<Listed>,
    stores: Vec<(ParticipantName, Entered)>,
    /// Ticks until another replica's state may take its place.
    patience: u32,
}

impl Control {
    /// Asks `replica` for what it has learned and this one has not.
    pub(super) fn fetch(&self, replica: ReplicaId, out: &mut Out) {
        // What is under way goes on where it is: a long list must not begin anew at each sign of
        // life of the leader.
        let under_way = self.fetching.as_ref();
        let under_way = under_way.filter(|fetching| fetching.from == replica);
        self.fetch_from(replica, under_way.map(Fetching::cursor), out);
    }

    fn fetch_from(&self, replica: ReplicaId, cursor: Option<Cursor>, out: &mut Out) {
        let Cursor { after, after_name } = cursor.unwrap_or_default();
        let fetch = Message::Fetch {
            slot: self.generations.slot(),
            after,
            after_name,
        };
        out.send(Peer::Replica(replica), fetch);
    }

    pub(crate) fn on_fetch(
        &mut self,
        from: &Peer,
        slot: u64,
        cursor: &Cursor,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        let mine = self.generations.slot();
        match from {
            Peer::Operator(_) => self.send_state(from, cursor, rest),
            _ if slot < mine => self.send_state(from, cursor, rest),
            // It is the other way round: one that is new may hear of what it has to learn by this.
            Peer::Replica(replica) if slot > mine => self.fetch(*replica, rest.out),
            Peer::Replica(_) | Peer::Session(_) | Peer::Initiator(_) => {}
        }
        Ok(())
    }

    /// Sends one page of the state.
    pub(super) fn send_state(&self, to: &Peer, cursor: &Cursor, rest: &mut Rest<'_>) {
        let listed = rest.commit.listed_after(cursor.after, &self.generations);
        let page = rest.config.list_max();
        let mut listed: Vec<Listed> = listed.take(page + 1).collect();
        let after = cursor.after_name.clone();
        let stores = self.stores.after(after.as_ref());
        let stores = stores.map(|(name, entered)| (name.clone(), entered));
        let names = page * NAMES_OF_A_COMMIT;
        let mut stores: Vec<_> = stores.take(names + 1).collect();
        let more = listed.len() > page || stores.len() > names;
        listed.truncate(page);
        stores.truncate(names);
        let state = Message::State {
            generations: self.generations.clone(),
            after: cursor.after,
            listed,
            stores: Box::new(StoresPage { after, stores }),
            more,
        };
        rest.out.send(to.clone(), state);
    }

    /// A page of another replica's state.
    pub(crate) fn on_state(
        &mut self,
        from: ReplicaId,
        page: Page,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if page.listed.len() > LIST_MAX || page.stores.stores.len() > LIST_MAX * NAMES_OF_A_COMMIT {
            return Err(Rejection::TooLong);
        }
        if page.generations.in_force().is_none() {
            return Err(Rejection::DoesNotFollow);
        }
        if !self.generations.is_older_than(&page.generations) {
            return Ok(());
        }
        let mut fetching = match self.fetching.take() {
            Some(fetching) if fetching.continues(from, &page) => fetching,
            // The first page. All replicas send theirs to one that is behind: one at a time counts,
            // or a list of many pages would never come to its end.
            old if page.is_first() && old.as_ref().is_none_or(|old| old.gives_way(from, &page)) => {
                Fetching {
                    from,
                    generations: page.generations,
                    listed: Vec::new(),
                    stores: Vec::new(),
                    patience: STALLED_TICKS,
                }
            }
            // The other one went on in between: from its first page again.
            Some(old) if old.from == from && old.generations.is_older_than(&page.generations) => {
                self.fetch_from(from, None, rest.out);
                return Ok(());
            }
            // A page that came late, or of another replica.
            other => {
                self.fetching = other;
                return Ok(());
            }
        };
        fetching.listed.extend(page.listed);
        fetching.stores.extend(page.stores.stores);
        fetching.patience = STALLED_TICKS;
        if !page.more {
            self.install(fetching, rest);
            return Ok(());
        }
        let cursor = fetching.cursor();
        self.fetching = Some(fetching);
        self.fetch_from(from, Some(cursor), rest.out);
        Ok(())
    }

    /// Time passes for the state that is being taken over.
    pub(super) fn tick_fetching(&mut self) {
        if let Some(fetching) = &mut self.fetching {
            fetching.patience = fetching.patience.saturating_sub(1);
        }
    }

    /// Takes the whole state over, in one record.
    fn install(&mut self, fetched: Fetching, rest: &mut Rest<'_>) {
        let Fetching {
            generations,
            listed,
            stores,
            ..
        } = fetched;
        let stores: Stores = stores.into_iter().collect();
        rest.out.save.push(Record::State {
            generations: generations.clone(),
            listed: listed.clone(),
            stores: stores.clone(),
        });
        self.stores = stores;
        let before = std::mem::replace(&mut self.generations, generations);
        self.forget_settled(None, &listed, rest);
        let slot = self.generations.slot();
        let acceptors = self.generations.in_force().map(Configuration::acceptors);
        match (&mut self.log, acceptors) {
            (_, None) => {}
            (Some(log), Some(acceptors)) => log.install(slot, acceptors.clone()),
            (None, Some(acceptors)) => {
                let (me, config) = (rest.config.id, rest.config.log);
                self.log = Some(Log::new(me, config, slot, acceptors.clone()));
            }
        }
        if before.latest() != self.generations.latest() {
            self.opened(rest);
        }
        if before.closed() != self.generations.closed() {
            self.closed_age = 0;
        }
        self.forgetting = None;
        if let Some(asked) = self.operator.take() {
            rest.out
                .send(asked.peer, Message::Declined(Declined::LostSight));
        }
        self.announce_generations(rest);
        self.tell_all_admissions(rest);
        self.look_whether_removed(&before, rest);
    }

    /// One that no longer, or not yet, takes part in the log hears of no leader: it asks. So does one
    /// that waits to be added: the replicas that it knows may all be replaced in that time.
    pub(super) fn look_for_news(&mut self, rest: &mut Rest<'_>) {
        let me = rest.config.id;
        let Some(log) = &self.log else {
            return;
        };
        if log.acceptors().contains(me) || self.is_removed(me) {
            return;
        }
        self.news_patience = self.news_patience.saturating_sub(1);
        if self.news_patience == 0 {
            self.news_patience = rest.config.log.silence_ticks.max(1);
            for replica in log.acceptors().clone().iter() {
                self.fetch(replica, rest.out);
            }
        }
    }
}

impl Fetching {
    /// What its pages list, so far.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> + '_ {
        self.listed.iter()
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            after: self.listed.last().map(|listed| listed.id),
            after_name: self.stores.last().map(|(name, _)| name.clone()),
        }
    }

    fn continues(&self, from: ReplicaId, page: &Page) -> bool {
        self.from == from && self.generations == page.generations && self.cursor() == page.cursor()
    }

    /// Whether the first page of another state takes its place.
    fn gives_way(&self, from: ReplicaId, page: &Page) -> bool {
        let is_newer = self.generations.is_older_than(&page.generations);
        let is_whole = !page.more;
        is_whole || self.patience == 0 || self.from == from && is_newer
    }
}

impl Page {
    fn cursor(&self) -> Cursor {
        Cursor {
            after: self.after,
            after_name: self.stores.after.clone(),
        }
    }

    fn is_first(&self) -> bool {
        self.cursor() == Cursor::default()
    }
}
