//! The settings of a session.

use std::time::Duration;

use crate::protocol::types::{Branch, Configuration, Generations, Opening};

/// What a session is told at start. Ticks are multiples of `tick`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParticipantConfig {
    /// The participant's name, and the session drawn at random at start.
    pub me: Branch,
    /// The generations, as a replica announced them when the connection came up.
    pub generations: Generations,
    /// The openings of its store that the store remembers, this one last; none if it counts none.
    pub openings: Vec<Opening>,
    /// The time between two ticks.
    pub tick: Duration,
    /// Ticks until a vote or a question that was not answered is sent again; doubled each time.
    pub retry_ticks: u32,
    /// The most ticks between two of them.
    pub retry_ticks_max: u32,
    /// Ticks after which a branch that was never asked to prepare ends. This is how long the work of a
    /// transaction may take.
    pub work_ticks_max: u32,
    /// The most transactions of one initiator's name that the session remembers, of runs that a relay
    /// has vouched for: an initiator that never raises its floor would otherwise take any amount of
    /// memory. An honest one comes near only if one of its transactions stays open while a million
    /// others end.
    pub remembered_max: usize,
    /// The most transactions that the session remembers of all other runs together.
    pub strangers_max: usize,
}

impl ParticipantConfig {
    /// The usual settings, with a new cluster.
    pub fn new(me: Branch, genesis: impl Into<Configuration>) -> Self {
        ParticipantConfig::joining(me, Generations::genesis(genesis.into()))
    }

    /// The usual settings, with a cluster that has these generations.
    pub fn joining(me: Branch, generations: Generations) -> Self {
        ParticipantConfig {
            me,
            generations,
            openings: Vec::new(),
            tick: Duration::from_millis(50),
            retry_ticks: 4,
            retry_ticks_max: 40,
            work_ticks_max: 1_200,
            remembered_max: 1 << 20,
            strangers_max: 1 << 22,
        }
    }
}
