//! Who is killed, and when: everyone in turn, and the next one only when money moves again.

use std::time::Duration;

use anyhow::Result;
use paxos_commit::cluster::ProcessCluster;

use super::databases::{Databases, Kind};
use super::service::ServiceProcess;
use super::teller::Teller;

/// How many transfers are committed before the next one is killed.
const COMMITS_BETWEEN: u64 = 100;

/// How long whoever was killed stays away.
const AWAY: Duration = Duration::from_millis(700);

pub(crate) struct Havoc<'h> {
    pub(crate) teller: &'h Teller,
    pub(crate) cluster: &'h mut ProcessCluster,
    pub(crate) services: &'h mut [ServiceProcess],
    pub(crate) databases: &'h mut Databases,
    /// How many were killed.
    pub(crate) kills: u32,
}

impl Havoc<'_> {
    pub(crate) async fn wreak(&mut self, rounds: u32) -> Result<()> {
        self.teller.wait_for_commits(COMMITS_BETWEEN).await?;
        for _ in 0..rounds {
            for id in self.cluster.replicas() {
                self.say(&format!("coordinator replica {id}"));
                self.cluster.kill(id).await?;
                tokio::time::sleep(AWAY).await;
                self.cluster.start(id)?;
                self.teller.wait_for_commits(COMMITS_BETWEEN).await?;
            }
            for index in 0..self.services.len() {
                let kind = self.services[index].kind;
                self.say(&format!("the service before {}", kind.title()));
                self.services[index].kill().await?;
                tokio::time::sleep(AWAY).await;
                self.services[index].restart()?;
                self.teller.wait_for_commits(COMMITS_BETWEEN).await?;
            }
            for kind in Kind::BOTH {
                if !self.databases.kill(kind) {
                    continue;
                }
                self.say(&format!("the server of {}", kind.title()));
                tokio::time::sleep(AWAY).await;
                self.databases.restart(kind).await?;
                self.teller.wait_for_commits(COMMITS_BETWEEN).await?;
            }
        }
        Ok(())
    }

    fn say(&mut self, who: &str) {
        self.kills += 1;
        println!("kill -9: {who}");
    }
}
