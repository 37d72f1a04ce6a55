//! Whose branches an adapter keeps.

use paxos_commit::cluster::LocalCluster;
use paxos_commit::cluster::servers::{ThrowawayMariadb, ThrowawayPostgres};
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::resource::mariadb::mysql_async::Opts;
use paxos_commit::resource::mariadb::{self, Mariadb};
use paxos_commit::resource::postgres::tokio_postgres::NoTls;
use paxos_commit::resource::postgres::{self, Postgres};

/// What becomes of a session of the participant `ledger` of the cluster `local`.
async fn connect(cluster: &LocalCluster, manager: impl ResourceManager) -> Result<(), String> {
    let builder = Participant::builder(cluster.participant("ledger").unwrap());
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
    for (named, is_right) in [
        (("local", "ledger"), true),
        (("shop", "ledger"), false),
        (("local", "stock"), false),
    ] {
        let server = postgres.url("postgres").parse().unwrap();
        let options = postgres::Options::new(named.0, named.1);
        let opened = Postgres::connect(server, NoTls, options).await.unwrap();
        let in_postgres = connect(&cluster, opened).await;
        let server = Opts::from_url(&mariadb.url(ThrowawayMariadb::DATABASE)).unwrap();
        let options = mariadb::Options::new(named.0, named.1);
        let opened = Mariadb::connect(server, options).await.unwrap();
        let in_mariadb = connect(&cluster, opened).await;
        for connected in [in_postgres, in_mariadb] {
            assert_eq!(connected.is_ok(), is_right, "{named:?}: {connected:?}");
            let Err(error) = connected else { continue };
            assert!(error.contains("local/ledger"), "{error}");
            assert!(
                error.contains(&format!("{}/{}", named.0, named.1)),
                "{error}"
            );
        }
    }
}
