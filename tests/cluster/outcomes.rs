//! Every way in which a transaction can end.

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::Outcome;

use crate::support::{Service, initiator};

#[tokio::test(flavor = "multi_thread")]
async fn two_services_commit_together() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let (a, b) = (
        Service::start(&cluster, "a").await,
        Service::start(&cluster, "b").await,
    );
    let initiator = initiator(&cluster).await;
    for round in 0..20 {
        let (key, value) = (format!("k{round}"), format!("v{round}"));
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, &key, &value).await;
        b.put(&mut txn, &key, &value).await;
        let start = std::time::Instant::now();
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        println!("{:?}", start.elapsed());
        a.wait_for(&key, &value).await;
        b.wait_for(&key, &value).await;
    }
}
