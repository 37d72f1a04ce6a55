//! What is done to the cluster in the course of a run.

use std::time::Duration;

use anyhow::Context;
use paxos_commit::cluster::Weather;
use paxos_commit::protocol::paxos::ReplicaId;
use tokio::time::{Instant, sleep_until};

use super::counting::Counting;
use super::plan::Fault;
use super::results::Mark;
use super::scene::Scene;

/// For how long a replica is stopped.
const PAUSE: Duration = Duration::from_secs(2);

/// Of two replicas that are killed and started again at once, the second one goes so long after the
/// first. That is less than the 3 s after which a silent peer is taken for gone.
const FAST: Duration = Duration::from_secs(1);

/// The share of datagrams that is lost.
const LOSS: f64 = 0.01;

/// When whole runs have a fault in their middle: from one third of the time to two.
const FROM: f64 = 1.0 / 3.0;
const TO: f64 = 2.0 / 3.0;

/// A run under way.
pub(super) struct Harm<'a> {
    pub(super) scene: &'a mut Scene,
    pub(super) counting: &'a mut Counting,
    pub(super) start: Instant,
    pub(super) duration: Duration,
    pub(super) marks: Vec<Mark>,
}

impl Harm<'_> {
    /// Does what the fault demands. Afterwards everything is up again.
    pub(super) async fn run(mut self, fault: Fault) -> anyhow::Result<Vec<Mark>> {
        let (from, to) = (self.at(FROM), self.at(TO));
        match fault {
            Fault::None | Fault::Wan => {}
            Fault::Kill => {
                sleep_until(from).await;
                let relay = self.relay().await?;
                let ids = self.scene.replicas.own()?.replicas();
                let other = ids.into_iter().find(|id| *id != relay).unwrap_or(relay);
                self.kill(other, to).await?;
            }
            Fault::KillRelay => {
                sleep_until(from).await;
                let relay = self.relay().await?;
                self.kill(relay, to).await?;
            }
            Fault::Rolling => self.rolling().await?,
            Fault::RollingFast => {
                sleep_until(from).await;
                self.rolling_fast().await?;
            }
            Fault::Pause => {
                sleep_until(from).await;
                let relay = self.relay().await?;
                self.scene.replicas.own()?.pause(relay)?;
                self.mark(format!("stop {relay}"));
                sleep_until(from + PAUSE).await;
                self.scene.replicas.own()?.resume(relay)?;
                self.mark(format!("continue {relay}"));
            }
            Fault::Partition => {
                sleep_until(from).await;
                let relay = self.relay().await?;
                self.scene.replicas.own()?.partition(relay);
                self.mark(format!("cut off {relay}"));
                sleep_until(to).await;
                self.scene.replicas.own()?.heal(relay);
                self.mark(format!("heal {relay}"));
            }
            Fault::Loss => {
                sleep_until(from).await;
                let weather = Weather {
                    loss: LOSS,
                    ..Weather::default()
                };
                self.scene.set_weather(&weather)?;
                self.mark("loss".into());
                sleep_until(to).await;
                self.scene.set_weather(&Weather::default())?;
                self.mark("no loss".into());
            }
        }
        Ok(self.marks)
    }

    fn at(&self, share: f64) -> Instant {
        self.start + self.duration.mul_f64(share)
    }

    fn mark(&mut self, what: String) {
        let at = self.start.elapsed();
        self.marks.push(Mark { at, what });
    }

    /// The replica that is asked first at this moment: it moves on when another one answers late.
    async fn relay(&self) -> anyhow::Result<ReplicaId> {
        let relay = self.scene.initiator.relay().await;
        relay.context("the initiator knows no replica")
    }

    /// Kills a replica now, and starts it again at that time.
    async fn kill(&mut self, id: ReplicaId, to: Instant) -> anyhow::Result<()> {
        // What it has counted goes with it.
        self.counting.add(self.scene).await?;
        self.mark(format!("kill {id}"));
        self.scene.replicas.own()?.kill(id).await?;
        sleep_until(to).await;
        self.scene.replicas.own()?.start(id)?;
        self.mark(format!("start {id}"));
        Ok(())
    }

    /// Each in turn is away for half of its share of the time.
    async fn rolling(&mut self) -> anyhow::Result<()> {
        let ids = self.scene.replicas.own()?.replicas();
        let share = 1.0 / (ids.len() as f64 + 0.5);
        for (index, id) in ids.into_iter().enumerate() {
            let begin = (index as f64 + 0.25) * share;
            let (from, to) = (self.at(begin), self.at(begin + share / 2.0));
            sleep_until(from).await;
            self.kill(id, to).await?;
            // The next one does not go before this one is back.
            self.scene.wait_until_back(id).await?;
        }
        Ok(())
    }

    /// Each in turn is killed and started again at once, whether its peers have noticed or not.
    async fn rolling_fast(&mut self) -> anyhow::Result<()> {
        // What they count from now on is lost with them: to ask takes longer than there is time.
        self.counting.add(self.scene).await?;
        let ids = self.scene.replicas.own()?.replicas();
        for id in &ids {
            let next = Instant::now() + FAST;
            self.mark(format!("restart {id}"));
            self.scene.replicas.own()?.kill(*id).await?;
            self.scene.replicas.own()?.start(*id)?;
            sleep_until(next).await;
        }
        for id in ids {
            self.scene.wait_until_back(id).await?;
        }
        Ok(())
    }
}
