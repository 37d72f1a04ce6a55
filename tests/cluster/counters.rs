//! What the replicas of this process have counted, all tests together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps counters, by name and label.
#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Mutex<Table>>);

/// By name and labels.
type Table = BTreeMap<(String, String), Arc<AtomicU64>>;

static COUNTERS: LazyLock<Counters> = LazyLock::new(|| {
    let counters = Counters::default();
    metrics::set_global_recorder(counters.clone()).expect("nobody else sets one here");
    counters
});

impl Counters {
    /// How often `name` with the label `label` was counted since the first call of this.
    pub(crate) fn of(name: &str, label: &str) -> u64 {
        let counters = COUNTERS.0.lock().unwrap();
        let counter = counters.get(&(name.to_owned(), label.to_owned()));
        counter.map_or(0, |counter| counter.load(Ordering::SeqCst))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let label = key.labels().next().map_or("", |label| label.value());
        let name = (key.name().to_owned(), label.to_owned());
        let mut counters = self.0.lock().unwrap();
        Counter::from_arc(counters.entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
