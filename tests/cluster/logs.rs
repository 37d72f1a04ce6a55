//! What processes say in their logs.

use std::sync::{Arc, Mutex};

use paxos_commit::cluster::LocalCluster;

use crate::support::{Service, eventually, initiator};

/// What the log of a service and of an application says of their connections, each time once. The test
/// has one thread, so that it sees the lines of this process' clients and no others.
#[tokio::test]
async fn clients_say_when_they_reach_a_majority_and_when_they_lose_it() {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let (connected, lost) = ("connected to a majority", "lost the majority");
    for is_service in [true, false] {
        let mut cluster = LocalCluster::start(3).await.unwrap();
        said.forget();
        let client: Box<dyn std::any::Any> = if is_service {
            Box::new(Service::start(&cluster, "a").await)
        } else {
            Box::new(initiator(&cluster).await)
        };
        said.says(connected, 1).await;
        cluster.kill(1).await;
        cluster.kill(2).await;
        said.says(lost, 1).await;
        cluster.restart(1).await.unwrap();
        said.says(connected, 2).await;
        assert_eq!(said.count(lost), 1, "said once");
        drop(client);
    }
}

/// The lines of a log.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    fn count(&self, words: &str) -> usize {
        let text = self.0.lock().unwrap();
        String::from_utf8_lossy(&text).matches(words).count()
    }

    async fn says(&self, words: &str, times: usize) {
        eventually(words, async || self.count(words) == times).await;
    }
}

impl std::io::Write for Said {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
