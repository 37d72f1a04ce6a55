//! What an operator sees.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use metrics::atomics::AtomicU64;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use paxos_commit::participant::{BranchId, ResourceManager};
use paxos_commit::protocol::types::ReadOnly;

use super::support::{Base, branch, txn};

/// The gauges of one participant.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Gauges {
    fn value(&self, name: &str) -> f64 {
        let gauges = self.0.lock().unwrap();
        f64::from_bits(gauges[name].load(Ordering::SeqCst))
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        // Other tests run at the same time.
        if !key.labels().any(|label| label.value() == "metered") {
            return Gauge::noop();
        }
        let mut gauges = self.0.lock().unwrap();
        let gauge = gauges.entry(key.name().to_owned()).or_default();
        Gauge::from_arc(gauge.clone())
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn how_many_branches_stand_prepared_and_how_old_the_oldest_is_can_be_seen() {
    let gauges = Gauges::default();
    metrics::set_global_recorder(gauges.clone()).ok().unwrap();
    let base = Base::new("metered").await;
    let options = paxos_commit::resource::postgres::Options::new("metered", "metered");
    let postgres = base.open_with(options).await;
    let of = |n| {
        let BranchId { id, mut branch } = branch(n);
        branch.participant = "metered".parse().unwrap();
        BranchId { id, branch }
    };
    postgres.in_doubt().await.unwrap();
    assert_eq!(gauges.value("paxos_commit_postgres_prepared"), 0.0);
    let oldest = "paxos_commit_postgres_prepared_oldest_seconds";
    assert_eq!(gauges.value(oldest), 0.0);
    for n in 1..=3 {
        drop(postgres.work(txn(n)).await.unwrap());
        let of = of(n);
        let prepared = postgres.prepare(&of, None, ReadOnly::Forbidden);
        prepared.await.unwrap();
    }
    postgres.in_doubt().await.unwrap();
    assert_eq!(gauges.value("paxos_commit_postgres_prepared"), 3.0);
    let age = gauges.value(oldest);
    assert!(age > 0.0, "{age}");
    // The first one is the oldest, and grows older.
    for n in 2..=3 {
        postgres.commit(&of(n)).await.unwrap();
    }
    postgres.in_doubt().await.unwrap();
    assert_eq!(gauges.value("paxos_commit_postgres_prepared"), 1.0);
    assert!(gauges.value(oldest) > age);
    postgres.rollback(&of(1)).await.unwrap();
    postgres.in_doubt().await.unwrap();
    assert_eq!(gauges.value("paxos_commit_postgres_prepared"), 0.0);
    assert_eq!(gauges.value(oldest), 0.0);
}
