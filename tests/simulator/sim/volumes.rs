//! The volume that is not mounted: a session starts on an empty directory, with another store, and
//! comes back on its own later. Nothing may come of it: the control log names the first store.

use paxos_commit::protocol::types::{ParticipantName, StoreId};

use super::plan::chance;
use super::resource::Resource;
use super::stats::Fault;
use super::world::{At, World};

/// The identity of every participant's own store.
pub fn own_store() -> StoreId {
    StoreId::from_u128(1)
}

impl World {
    /// Draws the store on which a session starts. Until the log names its own store, that is it.
    pub fn draw_volume(&mut self, session: usize) {
        let name = &self.sessions[session].config.me.participant;
        let mounted = self.healing.is_some() || !self.is_named(name);
        let is_empty = !mounted && chance(&mut self.rng, self.plan.empty_volume);
        let number = self.sessions[session].life;
        self.empty_volumes.remove(&session);
        self.sessions[session].config.me.store = if is_empty {
            self.stats.fault(Fault::EmptyVolume);
            self.empty_volumes.insert(session, Resource::default());
            StoreId::from_u128(2 + u128::from(number))
        } else {
            own_store()
        };
    }

    fn is_named(&self, name: &ParticipantName) -> bool {
        let stores = self.facts.stores();
        stores.get(name).is_some_and(|it| it.store == own_store())
    }

    /// The faults stop: all volumes are mounted again.
    pub fn mount_volumes(&mut self) {
        let sessions: Vec<usize> = self.empty_volumes.keys().copied().collect();
        for session in sessions {
            if self.is_up(At::Session(session)) {
                self.crash(At::Session(session));
            }
        }
    }

    /// A store that the log does not name has nothing to do with any transaction.
    pub fn judge_volumes(&mut self, session: usize) {
        let Some(volume) = self.empty_volumes.get(&session) else {
            return;
        };
        if !volume.prepared.is_empty() || !volume.committed.is_empty() {
            let me = &self.sessions[session].me;
            let what = format!("{me} took part, and its name stands for another store");
            self.check(Err::<(), _>(what));
        }
    }
}
