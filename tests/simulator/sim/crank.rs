//! The crank that every host is turned by: input -> step -> save -> (durable) -> send, notify.

use paxos_commit::protocol::initiator::InitiatorNotice;
use paxos_commit::protocol::participant::ParticipantNotice;
use paxos_commit::protocol::replica::{Record, ReplicaNotice};
use paxos_commit::protocol::{Effects, Host, Initiator, Input, Participant, Replica, TimerOp};

use super::node::Node;
use super::plan::{MILLISECOND, Micros, chance};
use super::plant::Plant;
use super::stats::Fault;
use super::world::{At, Event, World};

/// How long records may wait for a save that somebody waits for.
const LINGER: Micros = 5 * MILLISECOND;

/// What the crank must know of each kind of host.
pub trait Kind: Host {
    fn at(index: usize) -> At;
    fn node(world: &mut World, index: usize) -> &mut Node<Self>;
    fn timer(index: usize, token: u64, timer: Self::Timer) -> Event;
    fn notice(world: &mut World, index: usize, notice: Self::Notice);
    fn durable(world: &mut World, index: usize, record: &Self::Record);
    /// A planted bug bends what a step comes to.
    fn bend(_world: &mut World, _index: usize, _effects: &mut Effects<Self>) {}
    /// What the disk gives back at restart, bent if a bug is planted there.
    fn load(_world: &World, _index: usize, records: Vec<Self::Record>) -> Vec<Self::Record> {
        records
    }
    /// It has recovered.
    fn started(_world: &mut World, _index: usize) {}
    /// It is about to take this input.
    fn before(_world: &mut World, _index: usize, _input: &Input<Self>) {}
    /// A save of all that waits begins.
    fn save_begins(_world: &mut World, _index: usize) {}
    /// That save is durable.
    fn save_is_durable(_world: &mut World, _index: usize) {}
    /// The saves of all steps up to here are durable.
    fn all_is_durable(_world: &mut World, _index: usize) {}
}

impl Kind for Replica {
    fn at(index: usize) -> At {
        At::Replica(index)
    }
    fn node(world: &mut World, index: usize) -> &mut Node<Self> {
        &mut world.replicas[index]
    }
    fn timer(index: usize, token: u64, timer: Self::Timer) -> Event {
        Event::ReplicaTimer(index, token, timer)
    }
    fn notice(world: &mut World, index: usize, notice: ReplicaNotice) {
        world.trace(|| format!("replica {} notices {notice:?}", index + 1));
        if notice == ReplicaNotice::Removed {
            world.removed(index);
        }
    }
    fn durable(world: &mut World, index: usize, record: &Record) {
        world.observe_durable(index, record);
        world.disks[index].apply(record.clone());
        if let Record::Finished { id, .. } = record
            && world.plan.is_fair()
        {
            world.forget_finished(*id);
        }
    }
    fn bend(world: &mut World, index: usize, effects: &mut Effects<Self>) {
        if let Some(plant) = world.options.plant {
            plant.bend(world, index, effects);
        }
    }
    fn load(world: &World, index: usize, records: Vec<Record>) -> Vec<Record> {
        world.load(index, records)
    }
    fn started(world: &mut World, index: usize) {
        world.tell_stored(index);
    }
    fn before(world: &mut World, index: usize, input: &Input<Self>) {
        if let Input::Message { message, .. } = input {
            world.recall(index, message);
            world.plant_before_replica(index, message);
        }
    }
    fn save_begins(world: &mut World, index: usize) {
        world.note_leaving(index);
    }
    fn save_is_durable(world: &mut World, index: usize) {
        world.evict_noted(index);
    }
    fn all_is_durable(world: &mut World, index: usize) {
        world.evict_finished(index);
    }
}

impl Kind for Participant {
    fn at(index: usize) -> At {
        At::Session(index)
    }
    fn node(world: &mut World, index: usize) -> &mut Node<Self> {
        &mut world.sessions[index]
    }
    fn timer(index: usize, token: u64, timer: Self::Timer) -> Event {
        Event::SessionTimer(index, token, timer)
    }
    fn before(world: &mut World, index: usize, input: &Input<Self>) {
        world.plant_before_session(index, input);
    }
    fn notice(world: &mut World, index: usize, notice: ParticipantNotice) {
        world.ask_resource(index, notice);
    }
    fn durable(_: &mut World, _: usize, record: &Self::Record) {
        match *record {}
    }
}

impl Kind for Initiator {
    fn at(index: usize) -> At {
        At::Initiator(index)
    }
    fn node(world: &mut World, index: usize) -> &mut Node<Self> {
        &mut world.initiators[index]
    }
    fn timer(index: usize, token: u64, timer: Self::Timer) -> Event {
        Event::InitiatorTimer(index, token, timer)
    }
    fn notice(world: &mut World, index: usize, notice: InitiatorNotice) {
        world.tell_app(index, notice);
    }
    fn durable(_: &mut World, _: usize, record: &Self::Record) {
        match *record {}
    }
}

/// Starts the process from what its disk holds.
pub fn boot<H: Kind>(world: &mut World, index: usize) {
    let node = H::node(world, index);
    let (config, records) = (node.config.clone(), node.durable.clone());
    let records = H::load(world, index, records);
    let mut effects = Effects::default();
    let host = H::recover(config, records, &mut effects);
    H::node(world, index).host = Some(host);
    H::started(world, index);
    take::<H>(world, index, effects);
}

/// One step of one host.
pub fn step<H: Kind>(world: &mut World, index: usize, input: Input<H>) {
    H::before(world, index, &input);
    let node = H::node(world, index);
    let Some(host) = &mut node.host else {
        return;
    };
    let mut effects = node.spare.pop().unwrap_or_default();
    host.step(input, &mut effects);
    if world.plan.crash_in_step > 0.0 && chance(&mut world.rng, world.plan.crash_in_step) {
        // It dies between the step and the save.
        world.crash(H::at(index));
        return;
    }
    take::<H>(world, index, effects);
}

/// Sets timers at once; saves; releases when everything up to here is durable.
fn take<H: Kind>(world: &mut World, index: usize, mut effects: Effects<H>) {
    for op in effects.timers.drain(..) {
        set_timer::<H>(world, index, op);
    }
    if world.options.plant == Some(Plant::SendBeforeSave) {
        let mut early = Effects::default();
        std::mem::swap(&mut early.send, &mut effects.send);
        release::<H>(world, index, early);
    }
    H::bend(world, index, &mut effects);
    if world.options.plant == Some(Plant::EvictsBeforeSaved) {
        H::all_is_durable(world, index);
    }
    let settled = H::node(world, index).is_settled();
    let jumps_the_queue = world.options.plant == Some(Plant::ReleaseNotFifo);
    if effects.save.is_empty() && (settled || jumps_the_queue) {
        release::<H>(world, index, effects);
        if settled {
            H::all_is_durable(world, index);
        }
        return;
    }
    let somebody_waits = is_urgent(&effects);
    let node = H::node(world, index);
    node.waiting.push(effects);
    if !node.saving.is_empty() {
        return;
    }
    if somebody_waits {
        begin_save::<H>(world, index);
    } else {
        linger::<H>(world, index);
    }
}

/// Whether somebody waits for this step's save.
fn is_urgent<H: Host>(effects: &Effects<H>) -> bool {
    !effects.send.is_empty() || !effects.notify.is_empty()
}

/// Nobody waits for what is to be saved, so it can share the next save. (The first votes of a
/// transaction share the forced write of the last, which is the one that is answered.)
fn linger<H: Kind>(world: &mut World, index: usize) {
    let node = H::node(world, index);
    if !node.lingering {
        node.lingering = true;
        let (at, life) = (H::at(index), node.life);
        world.schedule(LINGER, Event::Linger { at, life });
    }
}

/// Saves what has lingered long enough.
pub fn end_linger<H: Kind>(world: &mut World, index: usize, life: u32) {
    let node = H::node(world, index);
    if node.life != life {
        return;
    }
    node.lingering = false;
    if node.saving.is_empty() && !node.waiting.is_empty() {
        begin_save::<H>(world, index);
    }
}

fn set_timer<H: Kind>(world: &mut World, index: usize, op: TimerOp<H::Timer>) {
    match op {
        TimerOp::Set { timer, after } => {
            let node = H::node(world, index);
            let after = after.as_micros() as u64 * 100 / node.clock;
            let token = node.timers.get(&timer).copied().unwrap_or(0) + 1;
            // Tokens go on over restarts, so that no timer of an earlier life fires.
            let token = token + (u64::from(node.life) << 32);
            node.timers.insert(timer.clone(), token);
            world.schedule(after, H::timer(index, token, timer));
        }
        TimerOp::Cancel(timer) => drop(H::node(world, index).timers.remove(&timer)),
    }
}

/// All that waits goes into one batch.
fn begin_save<H: Kind>(world: &mut World, index: usize) {
    let node = H::node(world, index);
    std::mem::swap(&mut node.saving, &mut node.waiting);
    let life = node.life;
    H::save_begins(world, index);
    world.stats.saves += 1;
    let mut after = world.between(world.plan.save_min, world.plan.save_max);
    if chance(&mut world.rng, world.plan.stall) {
        world.stats.fault(Fault::DiskStall);
        after += world.between(0, world.plan.stall_max);
    }
    let at = H::at(index);
    world.schedule(after, Event::Saved { at, life });
}

/// The save under way is durable: release what waited for it, in order.
pub fn finish_save<H: Kind>(world: &mut World, index: usize, life: u32) {
    let node = H::node(world, index);
    if node.life != life {
        return;
    }
    if world.plan.failed_sync > 0.0 && chance(&mut world.rng, world.plan.failed_sync) {
        // The process dies; the batch may or may not be on disk.
        world.stats.fault(Fault::FailedSync);
        world.crash(H::at(index));
        return;
    }
    world.stats.saves_done += 1;
    let node = H::node(world, index);
    let mut saved = std::mem::take(&mut node.saving);
    for mut effects in saved.drain(..) {
        for record in effects.save.drain(..) {
            H::durable(world, index, &record);
            // A disk that is never read again need not be kept.
            if !world.plan.is_fair() {
                H::node(world, index).durable.push(record);
            }
        }
        release::<H>(world, index, effects);
    }
    let node = H::node(world, index);
    if node.life != life {
        return;
    }
    if node.saving.is_empty() {
        node.saving = saved;
    }
    H::save_is_durable(world, index);
    let node = H::node(world, index);
    if node.waiting.is_empty() {
        return;
    }
    if node.waiting.iter().any(is_urgent) {
        begin_save::<H>(world, index);
    } else {
        linger::<H>(world, index);
    }
}

fn release<H: Kind>(world: &mut World, index: usize, mut effects: Effects<H>) {
    let at = H::at(index);
    for (to, message) in effects.send.drain(..) {
        let me = H::node(world, index).me.clone();
        let result = world.judge_sent(&me, &message);
        world.check(result);
        world.send(at, me, to, message);
    }
    for notice in effects.notify.drain(..) {
        H::notice(world, index, notice);
    }
    H::node(world, index).spare.push(effects);
}

impl World {
    pub fn linger(&mut self, at: At, life: u32) {
        match at {
            At::Replica(index) => end_linger::<Replica>(self, index, life),
            At::Session(index) => end_linger::<Participant>(self, index, life),
            At::Initiator(index) => end_linger::<Initiator>(self, index, life),
        }
    }

    pub fn saved(&mut self, at: At, life: u32) {
        match at {
            At::Replica(index) => finish_save::<Replica>(self, index, life),
            At::Session(index) => finish_save::<Participant>(self, index, life),
            At::Initiator(index) => finish_save::<Initiator>(self, index, life),
        }
    }
}
