//! The protocol, pure.

pub mod effects;
pub mod initiator;
pub mod invariant;
pub mod learn;
pub mod message;
pub mod participant;
pub mod paxos;
pub mod replica;
pub mod types;

pub use effects::{Effects, Host, Input, TimerOp};
pub use initiator::Initiator;
pub use participant::Participant;
pub use replica::Replica;
