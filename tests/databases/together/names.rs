//! Whose branches an adapter keeps.

use paxos_commit::cluster::LocalCluster;
use paxos_commit::cluster::servers::{ThrowawayMariadb, ThrowawayPostgres};
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::resource::mariadb::mysql_async::Opts;
use paxos_commit::resource::mariadb::{self, Mariadb};
use paxos_commit::resource::postgres::tokio_postgres::NoTls;
use paxos_commit::resource::postgres::{self, Postgres};

/// What becomes of a session of the participant `name` of the cluster `local`.
async fn connect(
    cluster: &LocalCluster,
    name: &str,
    manager: impl ResourceManager,
) -> Result<(), String> {
    let builder = Participant::builder(cluster.participant(name).unwrap());
    let connected = builder.connect(manager).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// The counter-example: two clusters share a database, and the service of the second was given the
/// first one's name. It lists what the first has prepared, asks its own replicas, which know nothing
/// of it, and rolls it back.
#[tokio::test]
async fn an_adapter_with_other_names_than_the_certificate_is_refused() {
    let cluster = LocalCluster::start(1).await.unwrap();
    let postgres = ThrowawayPostgres::start(&[("max_prepared_transactions", "20")]);
    let postgres = postgres.await.unwrap();
    let mariadb = ThrowawayMariadb::start(&[]).await.unwrap();
    // Each has a certificate of its own: one participant has one store.
    for (named, is_right) in [
        (("local", "ledger"), true),
        (("shop", "ledger"), false),
        (("local", "stock"), false),
    ] {
        let server = postgres.url("postgres").parse().unwrap();
        let options = postgres::Options::new(named.0, named.1);
        let opened = Postgres::connect(server, NoTls, options).await.unwrap();
        let connected = connect(&cluster, "ledger", opened).await;
        check(connected, "local/ledger", named, is_right);
    }
    for (named, is_right) in [
        (("local", "stock"), true),
        (("shop", "stock"), false),
        (("local", "ledger"), false),
    ] {
        let server = Opts::from_url(&mariadb.url(ThrowawayMariadb::DATABASE)).unwrap();
        let options = mariadb::Options::new(named.0, named.1);
        let opened = Mariadb::connect(server, options).await.unwrap();
        let connected = connect(&cluster, "stock", opened).await;
        check(connected, "local/stock", named, is_right);
    }
}

/// The right names connect; the error of others says both what the certificate names and what the
/// adapter was given.
fn check(connected: Result<(), String>, certificate: &str, named: (&str, &str), is_right: bool) {
    assert_eq!(connected.is_ok(), is_right, "{named:?}: {connected:?}");
    if let Err(error) = connected {
        let given = format!("{}/{}", named.0, named.1);
        assert!(error.contains(certificate), "{error}");
        assert!(error.contains(&given), "{error}");
    }
}
