//! A membership change is declined as long as those that would have to decide are not heard.

use paxos_commit::cluster::LocalCluster;
use paxos_commit::operator::OperatorError;
use paxos_commit::protocol::message::Declined;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member};

use crate::support::within;

fn unheard(ids: &[u32]) -> Result<u32, OperatorError> {
    let ids = ids.iter().copied().map(ReplicaId).collect();
    Err(OperatorError::Declined(Declined::Unheard(ids)))
}

fn configuration(members: Vec<Member>) -> Configuration {
    Configuration::new(members).unwrap()
}

/// The counter-example: it is accepted, and the cluster is only the replica that is down.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_leave_only_a_replica_that_is_down_is_declined() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let mut operator = cluster.operator().await.unwrap();
    cluster.kill(3).await;
    let third = cluster.members().split_off(2);
    let declined = operator.reconfigure(configuration(third.clone())).await;
    assert_eq!(declined, unheard(&[3]));
    // It can be repeated when the replica is there.
    cluster.start_all().await.unwrap();
    let repeated = async {
        loop {
            let done = operator.reconfigure(configuration(third.clone())).await;
            if done != unheard(&[3]) {
                return done;
            }
        }
    };
    assert_eq!(within("replica 3 is heard", repeated).await, Ok(2));
}

/// The counter-example: two addresses at which no process answers are added to a cluster of one. No
/// further entry of its log is ever chosen.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_where_no_process_answers_do_not_end_a_cluster_of_one() {
    let mut cluster = LocalCluster::start(1).await.unwrap();
    let mut operator = cluster.operator().await.unwrap();
    let mut members = cluster.members();
    for (id, port) in [(2, 9), (3, 10)] {
        members.push(Member {
            id: ReplicaId(id),
            address: format!("127.0.0.1:{port}").parse().unwrap(),
        });
    }
    let declined = operator.reconfigure(configuration(members)).await;
    assert_eq!(declined, unheard(&[2, 3]));
    // One that runs and is announced at another address is not heard either: no client would find it.
    let mut members = cluster.members();
    members.push(cluster.join(2).await.unwrap());
    let mut third = cluster.join(3).await.unwrap();
    let right = third.address;
    third.address = "127.0.0.1:9".parse().unwrap();
    members.push(third);
    let declined = operator.reconfigure(configuration(members.clone())).await;
    assert_eq!(declined, unheard(&[3]));
    members[2].address = right;
    let added = operator.reconfigure(configuration(members)).await;
    assert_eq!(added, Ok(2));
}
