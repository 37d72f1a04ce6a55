//! The operator's tools.

use std::process::Output;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::arena::{Arena, LOOK_EVERY, PATIENCE, text};
use super::process::PROGRAM;

impl Arena {
    /// The words of one of `paxos-commit cluster`'s commands.
    pub(crate) fn change(&self, command: &str, arguments: &[&str]) -> Vec<String> {
        let folder = self.cluster();
        let place = ["cluster", command, "--dir", text(&folder)];
        words(&[&place[..], arguments].concat())
    }

    /// The words of a command that asks, and prints JSON.
    pub(crate) fn question(&self, command: &[&str]) -> Vec<String> {
        let access = ["--json", "--access", text(&self.operator)];
        words(&[command, &access[..]].concat())
    }

    async fn json(&self, command: &[&str]) -> Result<serde_json::Value, String> {
        json(&tool(self.question(command)).await)
    }

    /// What `paxos-commit status --json` says.
    pub(crate) async fn status(&self) -> Result<serde_json::Value, String> {
        self.json(&["status"]).await
    }

    /// Waits until nothing is undecided or unapplied as all replicas see it; what is left.
    pub(crate) async fn settle(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = Vec::new();
            match self.json(&["txn", "list"]).await {
                Ok(list) => {
                    let list = list["transactions"].as_array().expect("a list");
                    left.extend(list.iter().map(serde_json::Value::to_string));
                }
                Err(error) => left.push(format!("txn list: {error}")),
            }
            match self.status().await {
                Ok(status) => left.extend(not_at_rest(&status)),
                Err(error) => left.push(format!("status: {error}")),
            }
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Runs the program as an operator would.
pub(crate) async fn tool(words: Vec<String>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(words).kill_on_drop(true);
    let run = timeout(PATIENCE, command.output());
    run.await.expect("a tool ends").unwrap()
}

/// What it printed, or why not.
pub(crate) fn json(output: &Output) -> Result<serde_json::Value, String> {
    serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What of a status is not that of a cluster at rest with everybody up.
fn not_at_rest(status: &serde_json::Value) -> Vec<String> {
    let replicas = status["replicas"].as_array().expect("replicas");
    let restless = replicas.iter().filter(|replica| {
        replica["up"] != true || replica["undecided"] != 0 || replica["unapplied"] != 0
    });
    restless.map(serde_json::Value::to_string).collect()
}
