//! What all connections of one name may take of a replica together.
//!
//! A certificate is for a name, and one name may have many connections: sessions of a participant,
//! runs of an initiator. So a limit for each connection bounds nothing. With limits for each name,
//! whoever misuses its certificate takes from its own name only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::FRAME_BYTES_MAX;

use super::identity::Role;
use super::links::lock;

/// The most connections of one name at a time.
pub(super) const PEERS_OF_A_NAME_MAX: usize = 512;

/// A frame that is longer than this waits until its name has room for it.
pub(super) const SHORT_BYTES: usize = 64 * 1024;

/// The most bytes of long frames that are being received from one name.
const LONG_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// About the most bytes that wait to be written to one name.
pub(super) const QUEUED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The shares of all names that are connected.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<Role, Arc<Share>>>);

/// The share of one name.
#[derive(Debug)]
pub(super) struct Share {
    seats: Arc<Semaphore>,
    long: Arc<Semaphore>,
    queued: AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        Share {
            seats: Arc::new(Semaphore::new(PEERS_OF_A_NAME_MAX)),
            long: Arc::new(Semaphore::new(LONG_BYTES_MAX)),
            queued: AtomicUsize::new(0),
        }
    }
}

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) share: Arc<Share>,
    _permit: OwnedSemaphorePermit,
}

impl Shares {
    /// A place for a connection of this name, if there is one.
    pub(super) fn seat(&self, name: &Role) -> Option<Seat> {
        let mut shares = lock(&self.0);
        // Names that nobody is connected under are forgotten, sometimes.
        if shares.len() >= 64 && shares.len().is_power_of_two() {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = shares.entry(name.clone()).or_default().clone();
        let permit = share.seats.clone().try_acquire_owned().ok()?;
        Some(Seat {
            share,
            _permit: permit,
        })
    }
}

impl Share {
    /// Waits until there is room for a frame of this length, if it is a long one.
    pub(super) async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SHORT_BYTES {
            return None;
        }
        // All at once: two that wait for each other's half would wait for ever.
        let permits = u32::try_from(bytes.min(LONG_BYTES_MAX)).unwrap_or(u32::MAX);
        self.long.clone().acquire_many_owned(permits).await.ok()
    }

    /// Takes room for something that waits to be written; false if there is none.
    pub(super) fn queue(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= QUEUED_BYTES_MAX;
        if !fits {
            self.unqueue(bytes);
        }
        fits
    }

    /// It was written, or is not wanted any more.
    pub(super) fn unqueue(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Role {
        Role::Initiator(text.parse().unwrap())
    }

    #[test]
    fn a_name_that_has_all_its_seats_takes_none_of_others() {
        let shares = Shares::default();
        let mut seats: Vec<Seat> = (0..PEERS_OF_A_NAME_MAX)
            .map(|_| shares.seat(&name("shop")).unwrap())
            .collect();
        assert!(shares.seat(&name("shop")).is_none());
        let other = shares.seat(&name("bank")).unwrap();
        // A part is a name of its own.
        let part = Role::Participant("shop".parse().unwrap());
        assert!(shares.seat(&part).is_some());
        seats.pop();
        assert!(shares.seat(&name("shop")).is_some());
        drop(other);
    }

    #[test]
    fn names_that_are_gone_are_forgotten() {
        let shares = Shares::default();
        let stays = shares.seat(&name("stays")).unwrap();
        for number in 0..1_000 {
            shares.seat(&name(&format!("n{number}"))).unwrap();
        }
        assert!(lock(&shares.0).len() <= 64);
        assert!(Arc::ptr_eq(
            &stays.share,
            &shares.seat(&name("stays")).unwrap().share
        ));
    }

    #[tokio::test]
    async fn long_frames_of_one_name_wait_for_each_other() {
        let share = Share::default();
        assert!(share.room_for(SHORT_BYTES).await.is_none());
        let mut held = Vec::new();
        for _ in 0..LONG_BYTES_MAX / FRAME_BYTES_MAX {
            held.push(share.room_for(FRAME_BYTES_MAX).await.unwrap());
        }
        let next = share.room_for(SHORT_BYTES + 1);
        let mut next = std::pin::pin!(next);
        let no_time = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(no_time, &mut next).await.is_err());
        held.pop();
        assert!(next.await.is_some());
    }

    #[test]
    fn what_waits_for_one_name_is_bounded() {
        let share = Share::default();
        assert!(share.queue(QUEUED_BYTES_MAX - 1) && share.queue(1));
        assert!(!share.queue(1));
        share.unqueue(1);
        assert!(share.queue(1));
    }
}
