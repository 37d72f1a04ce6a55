//! Generations that are settled under load, and replicas that join and leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paxos_commit::cluster::{LocalCluster, Relay};
use paxos_commit::initiator::{CommitError, Initiator, Known, Outcome};
use paxos_commit::operator::{Operator, OperatorError};
use paxos_commit::protocol::initiator::CommitError as Refused;
use paxos_commit::protocol::message::Declined;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{CommitId, Configuration};
use paxos_commit::replica::{End, Tuning};
use tokio::task::JoinSet;

use crate::support::{Point, Service, all_quiet, eventually, initiator, within};

/// Closed generations are settled at once.
fn impatient() -> Tuning {
    let mut tuning = Tuning::default();
    tuning.grace = Duration::from_millis(100);
    tuning
}

/// Puts `key` everywhere, in one transaction; again, if its generation was closed meanwhile.
async fn put(initiator: &Initiator, services: &[Arc<Service>], key: &str) -> CommitId {
    loop {
        let mut txn = initiator.begin().await.unwrap();
        let mut refused = false;
        for service in services {
            let Ok(branch) = service.participant.branch(txn.id()).await else {
                refused = true;
                break;
            };
            let put = service.store.work(txn.id()).put(key, "v");
            refused |= put.is_err();
            txn.enlist(branch.ticket()).unwrap();
        }
        if refused {
            txn.rollback().await;
            continue;
        }
        let id = txn.plan().await.unwrap().id();
        match txn.commit().await {
            Ok(Outcome::Committed) => return id,
            Err(CommitError::Refused(Refused::GenerationClosed(_))) => {}
            // What came too late for its generation was ended with it.
            Ok(Outcome::Aborted(_)) => {}
            other => panic!("{key}: {other:?}"),
        }
    }
}

/// Transactions without end, a few at a time, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Vec<(String, CommitId)>>,
    services: Vec<Arc<Service>>,
}

impl Load {
    fn start(initiator: &Initiator, services: &[Arc<Service>]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..4 {
            let (stop, initiator, services) = (stop.clone(), initiator.clone(), services.to_vec());
            workers.spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("load-{worker}-{}", done.len());
                    let id = put(&initiator, &services, &key).await;
                    done.push((key, id));
                }
                done
            });
        }
        Load {
            stop,
            workers,
            services: services.to_vec(),
        }
    }

    /// Stops, and looks whether everything that was committed is everywhere.
    async fn stop(self) -> Vec<CommitId> {
        self.stop.store(true, Ordering::Relaxed);
        let done = within("the load ends", self.workers.join_all()).await;
        let mut ids = Vec::new();
        for (key, id) in done.into_iter().flatten() {
            for service in &self.services {
                service.wait_for(&key, "v").await;
            }
            ids.push(id);
        }
        for service in &self.services {
            service.unlocked().await;
        }
        ids
    }
}

async fn services(cluster: &LocalCluster) -> Vec<Arc<Service>> {
    vec![
        Arc::new(Service::start(cluster, "a").await),
        Arc::new(Service::start(cluster, "b").await),
    ]
}

/// The oldest generation that is not settled, as replica `id` knows it.
async fn oldest(cluster: &LocalCluster, id: u32) -> u32 {
    let replica = cluster.replica(id).expect("it runs");
    let oldest = replica.inspect(|core| core.generations().oldest());
    oldest.await.expect("it runs")
}

async fn settled_up_to(cluster: &LocalCluster, generation: u32) {
    for member in cluster.members() {
        let id = member.id.0;
        if cluster.replica(id).is_some() {
            let what = format!("replica {id} knows that generation {generation} is settled");
            eventually(&what, async || oldest(cluster, id).await > generation).await;
        }
    }
}

/// The members of these ids.
fn members(cluster: &LocalCluster, ids: &[u32]) -> Configuration {
    let all = cluster.members().into_iter();
    let members = all.filter(|member| ids.contains(&member.id.0));
    Configuration::new(members).unwrap()
}

/// Opens the next generation, on the same replicas.
async fn next_generation(operator: &mut Operator) -> u32 {
    let same = operator.generations().in_force().unwrap().clone();
    operator.reconfigure(same).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_settled_under_load_and_nothing_is_lost() {
    let mut tuning = impatient();
    tuning.generation_transactions_max = 200;
    let cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    settled_up_to(&cluster, 5).await;
    for (replica, report) in operator.status().await {
        let report = report.unwrap();
        let unsettled = report.generations.unsettled().count();
        assert!(unsettled <= 5, "{replica}: {unsettled} generations");
        // Of three generations, had they stayed in memory, it would be hundreds.
        assert!(report.remembered < 150, "{replica}: {}", report.remembered);
        assert!(report.disk_bytes < 100_000_000, "{}", report.disk_bytes);
    }
    let ids = load.stop().await;
    assert!(ids.len() > 500, "{} transactions", ids.len());
    all_quiet(&cluster).await;
    // What is settled is forgotten, and never told wrongly.
    let first = *ids.iter().min().unwrap();
    assert_eq!(initiator.outcome(first).await, Ok(Known::Forgotten));
    let last = *ids.iter().max().unwrap();
    assert_ne!(initiator.outcome(last).await, Ok(Known::Aborted));
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_pass_with_time_too() {
    let mut tuning = impatient();
    tuning.generation_period = Duration::from_millis(200);
    let cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    put(&initiator, &services, "before").await;
    settled_up_to(&cluster, 3).await;
    put(&initiator, &services, "after").await;
    for service in &services {
        service.wait_for("before", "v").await;
        service.wait_for("after", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_while_generations_passed_takes_over_what_they_came_to() {
    let mut tuning = impatient();
    tuning.generation_transactions_max = 50;
    let mut cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    put(&initiator, &services, "before").await;
    cluster.kill(3).await;
    let load = Load::start(&initiator, &services);
    settled_up_to(&cluster, 3).await;
    cluster.restart(3).await.unwrap();
    settled_up_to(&cluster, 3).await;
    load.stop().await;
    all_quiet(&cluster).await;
    // It is as good as the others.
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_was_away_while_its_generation_was_settled_still_commits() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    a.wait_for("k", "v").await;
    let disk = b.die();
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // It waits for b, and so it is not forgotten.
    assert_eq!(initiator.outcome(id).await, Ok(Known::Committed));

    let b = Service::come_back(&cluster, "b", disk).await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    assert_eq!(initiator.outcome(id).await, Ok(Known::Forgotten));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_was_away_while_its_generation_was_settled_still_aborts() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::AfterPrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    let disk = b.die();
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // The Settle has aborted it; by now nobody remembers that.
    let outcome = within("an end", committing).await.unwrap();
    let forgotten = Err(CommitError::Forgotten(id));
    assert!(
        outcome == forgotten || matches!(outcome, Ok(Outcome::Aborted(_))),
        "{outcome:?}"
    );
    a.unlocked().await;
    let b = Service::come_back(&cluster, "b", disk).await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_commit_waits_until_an_operator_lets_it_go() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    assert_eq!(operator.waiting().await.unwrap(), []);
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    let not_settled = operator.release(id).await;
    assert_eq!(not_settled, Err(Declined::NotListed(id).into()));
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;

    let waiting = operator.waiting().await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].id, id);
    let roster = &waiting[0].unapplied.roster;
    assert!(roster.index_of(b.participant.me()).is_some());
    let listed = operator.list().await.unwrap();
    assert!(listed.contains_key(&id));
    // As long as it is here, it will apply it.
    let connected = Declined::Connected("b".parse().unwrap());
    assert_eq!(operator.release(id).await, Err(connected.into()));
    drop(b.die());
    eventually(
        "b is gone everywhere, and released",
        async || match operator.release(id).await {
            Ok(()) => true,
            Err(OperatorError::Declined(Declined::Connected(_))) => false,
            Err(error) => panic!("{error}"),
        },
    )
    .await;
    assert_eq!(operator.waiting().await.unwrap(), []);
    all_quiet(&cluster).await;
    let again = operator.release(id).await;
    assert_eq!(again, Err(Declined::NotListed(id).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_is_replaced_under_load() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    // Its own generation is not settled: it is needed.
    let removed = cluster.replica(3).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), removed.ended());
    ended.await.unwrap_err();
    next_generation(&mut operator).await;
    let ended = within("replica 3 is not needed any more", removed.ended());
    assert_eq!(ended.await.unwrap(), End::Removed);
    assert!(oldest(&cluster, 1).await > 1);
    cluster.stop(3).await;
    load.stop().await;
    // The new one counts: without another of the old ones there is still a majority.
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_stays_until_the_last_transaction_that_it_decides_has_ended() {
    // Under way is what has so long to end.
    let mut tuning = Tuning::default();
    tuning.grace = Duration::from_secs(600);
    let mut cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::BeforePrepare);
    let mut txn = initiator.begin().await.unwrap();
    txn.vote_timeout(Duration::from_secs(600));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    next_generation(&mut operator).await;
    // Without one of the others it takes the removed one to decide.
    cluster.kill(1).await;
    let removed = cluster.replica(3).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), removed.ended());
    ended.await.unwrap_err();
    b.release();
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    let ended = within("replica 3 is not needed any more", removed.ended());
    assert_eq!(ended.await.unwrap(), End::Removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_and_shrinks_under_load() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    cluster.join(4).await.unwrap();
    cluster.join(5).await.unwrap();
    let five = members(&cluster, &[1, 2, 3, 4, 5]);
    operator.reconfigure(five).await.unwrap();
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // Two may be down now.
    cluster.kill(1).await;
    cluster.kill(2).await;
    put(&initiator, &services, "three of five").await;
    cluster.start_all().await.unwrap();

    let three = members(&cluster, &[3, 4, 5]);
    operator.reconfigure(three).await.unwrap();
    next_generation(&mut operator).await;
    for removed in [1, 2] {
        let replica = cluster.replica(removed).unwrap();
        let ended = within("a removed replica ends", replica.ended()).await;
        assert_eq!(ended.unwrap(), End::Removed);
        cluster.stop(removed).await;
    }
    put(&initiator, &services, "three").await;
    load.stop().await;
    for service in &services {
        service.wait_for("three of five", "v").await;
        service.wait_for("three", "v").await;
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_moves_to_another_address() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    put(&initiator, &services, "before").await;
    let target = cluster.replica(2).unwrap().address();
    let relay = Relay::start(target).await.unwrap();
    let mut moved = cluster.members();
    moved[1].address = relay.address().to_string().parse().unwrap();
    let configuration = Configuration::new(moved).unwrap();
    operator.reconfigure(configuration).await.unwrap();
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // At the old address nobody is any more, and without a third one it is needed.
    let nothing = paxos_commit::cluster::Weather {
        loss: 1.0,
        ..Default::default()
    };
    cluster.weather(2, nothing);
    cluster.kill(1).await;
    put(&initiator, &services, "after").await;
    for service in &services {
        service.wait_for("before", "v").await;
        service.wait_for("after", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_to_join_may_be_restarted_and_joins_later() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    // It comes when there is some history already.
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    cluster.join(4).await.unwrap();
    put(&initiator, &services, "k").await;
    cluster.kill(4).await;
    cluster.restart(4).await.unwrap();
    let waiting = cluster.replica(4).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(200), waiting.ended());
    ended.await.unwrap_err();
    operator
        .reconfigure(members(&cluster, &[1, 2, 4]))
        .await
        .unwrap();
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_is_declined() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let mut operator = cluster.operator().await.unwrap();
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    // An id that was removed never comes back.
    let used = operator.reconfigure(members(&cluster, &[1, 2, 3])).await;
    assert_eq!(used, Err(Declined::UsedId(ReplicaId(3)).into()));
    // Who has not seen the last change makes no other.
    let mut other = cluster.operator().await.unwrap();
    next_generation(&mut other).await;
    cluster.join(5).await.unwrap();
    let late = operator.reconfigure(members(&cluster, &[1, 2, 5])).await;
    assert_eq!(late, Err(Declined::Changed { latest: 3 }.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_down_while_it_was_removed_is_told_when_it_is_back() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    put(&initiator, &services, "k").await;
    cluster.kill(3).await;
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    cluster.restart(3).await.unwrap();
    let removed = cluster.replica(3).unwrap();
    let ended = within("it is told", removed.ended()).await;
    assert_eq!(ended.unwrap(), End::Removed);
    // And again, if somebody starts it once more.
    cluster.stop(3).await;
    cluster.restart(3).await.unwrap();
    let removed = cluster.replica(3).unwrap();
    let ended = within("it is told", removed.ended()).await;
    assert_eq!(ended.unwrap(), End::Removed);
}
