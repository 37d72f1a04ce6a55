//! A standby that is synchronous: what was voted and committed is there when it is promoted.

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::{BranchError, Options, Postgres};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::support::{
    Base, LONG, balance, branch, connect, ids_in_doubt, pay, prepare, txn, until, until_done,
};

/// Sessions of the server that wait for the standby.
const WAITING: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// A server, and its standby for which every commit waits.
struct Pair {
    primary: ThrowawayPostgres,
    standby: ThrowawayPostgres,
    base: Base,
    name: &'static str,
}

impl Pair {
    async fn start(name: &'static str) -> Pair {
        let settings = [("max_prepared_transactions", "20")];
        let primary = ThrowawayPostgres::start(&settings).await.unwrap();
        let base = Base::on(&primary, name).await;
        let standby = primary.start_standby("standby", &[]).await.unwrap();
        for sql in [
            "ALTER SYSTEM SET synchronous_standby_names = 'standby'",
            "SELECT pg_reload_conf()",
            "SET synchronous_commit = local",
        ] {
            base.admin.batch_execute(sql).await.unwrap();
        }
        let pair = Pair {
            primary,
            standby,
            base,
            name,
        };
        pair.until_followed().await;
        pair
    }

    /// No session waits for the standby, if it does nothing about that.
    async fn weaken(&self) {
        let sql = format!("ALTER DATABASE {} SET synchronous_commit = off", self.name);
        self.base.admin.batch_execute(&sql).await.unwrap();
    }

    async fn until_followed(&self) {
        let is_followed = "SELECT count(*) = 1 FROM pg_stat_replication \
                           WHERE state = 'streaming' AND sync_state = 'sync'";
        self.base.until(is_followed).await;
    }

    /// Nothing reaches the standby any more.
    fn cut(&mut self) {
        self.standby.stop();
    }

    async fn reconnect(&mut self) {
        self.standby.restart().await.unwrap();
        self.until_followed().await;
    }

    /// Whether a call waits for the standby. It does, or it ends.
    async fn is_awaited_by<T>(&self, call: &JoinHandle<T>) -> bool {
        loop {
            let waiting = self.base.admin.query_one(WAITING, &[]).await.unwrap();
            if waiting.get(0) {
                return true;
            }
            if call.is_finished() {
                return false;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Ends every wait for the standby that was seen before, by this function of the server.
    async fn interrupt(&self, function: &str) {
        let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let sql = format!("SELECT count({function}(pid)), now()::text {waiting}");
        let row = self.base.admin.query_one(&sql, &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) > 0);
        let then: &str = row.get(1);
        let sql = format!("SELECT count(*) = 0 {waiting} AND query_start <= '{then}'");
        self.base.until(&sql).await;
    }

    /// The primary is lost, and the standby takes its place.
    async fn promote(mut self) -> Promoted {
        self.primary.kill();
        if self.standby.process_id().is_none() {
            self.standby.restart().await.unwrap();
        }
        let client = connect(&self.standby.url(self.name)).await;
        let promoted = client.query_one("SELECT pg_promote()", &[]).await.unwrap();
        assert!(promoted.get::<_, bool>(0));
        until(&client, "SELECT NOT pg_is_in_recovery()").await;
        let config = self.standby.url(self.name).parse().unwrap();
        let service = Postgres::connect(config, NoTls, self.base.options());
        Promoted {
            service: service.await.unwrap(),
            client,
            _server: self.standby,
        }
    }

    fn options(&self) -> Options {
        self.base.options()
    }
}

/// What came of a standby.
struct Promoted {
    /// The adapter, opened on it.
    service: Postgres,
    client: Client,
    _server: ThrowawayPostgres,
}

impl Promoted {
    /// Branch 1, which takes one from alice, stands prepared here and comes to its end.
    async fn stands_prepared(&self) {
        assert_eq!(ids_in_doubt(&self.service).await, [branch(1).id]);
        assert_eq!(balance(&self.client, "alice").await, 100);
        let proof = self.service.commit(&branch(1)).await.unwrap();
        assert_eq!(proof, Proof::Found);
        assert_eq!(balance(&self.client, "alice").await, 99);
    }

    async fn is_committed(&self) {
        assert_eq!(ids_in_doubt(&self.service).await, []);
        assert_eq!(balance(&self.client, "alice").await, 99);
        let proof = self.service.commit(&branch(1)).await.unwrap();
        assert_eq!(proof, Proof::Found);
    }

    async fn is_not_there(&self) {
        assert_eq!(ids_in_doubt(&self.service).await, []);
        assert_eq!(balance(&self.client, "alice").await, 100);
    }
}

fn preparing(postgres: &Postgres, n: u32) -> JoinHandle<Result<Vote, BranchError>> {
    let postgres = postgres.clone();
    tokio::spawn(async move {
        let of = branch(n);
        postgres.prepare(&of, None, ReadOnly::Forbidden).await
    })
}

fn committing(postgres: &Postgres, n: u32) -> JoinHandle<Result<Proof, BranchError>> {
    let postgres = postgres.clone();
    tokio::spawn(async move { postgres.commit(&branch(n)).await })
}

/// As a participant does: until there is an answer.
fn committing_until_done(postgres: &Postgres) -> JoinHandle<Proof> {
    let postgres = postgres.clone();
    let of = branch(1);
    tokio::spawn(async move { until_done(|| postgres.commit(&of)).await })
}

/// With branch 1 at work.
async fn working(name: &'static str) -> (Pair, Postgres) {
    let pair = Pair::start(name).await;
    begun(pair).await
}

async fn begun(pair: Pair) -> (Pair, Postgres) {
    let postgres = pair.base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    (pair, postgres)
}

/// With branch 1 prepared, and on the standby.
async fn voted(name: &'static str) -> (Pair, Postgres) {
    let (pair, postgres) = working(name).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    (pair, postgres)
}

/// The same, where the database sets what lets nothing wait.
async fn voted_weakened(name: &'static str) -> (Pair, Postgres) {
    let pair = Pair::start(name).await;
    pair.weaken().await;
    let (pair, postgres) = begun(pair).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    (pair, postgres)
}

/// Branch 1 is committed on the primary only, and a wait for the standby was interrupted.
async fn interrupted(name: &'static str, function: &str) -> (Pair, Postgres, JoinHandle<Proof>) {
    let (mut pair, postgres) = voted(name).await;
    pair.cut();
    let commit = committing_until_done(&postgres);
    assert!(
        pair.is_awaited_by(&commit).await,
        "committed, and no standby has it"
    );
    pair.interrupt(function).await;
    let is_visible = "SELECT balance = 99 FROM account WHERE name = 'alice'";
    pair.base.until(is_visible).await;
    (pair, postgres, commit)
}

#[tokio::test]
async fn work_is_lost_with_its_server() {
    let (pair, _postgres) = working("standby_work").await;
    pair.promote().await.is_not_there().await;
}

#[tokio::test]
async fn a_vote_is_on_the_standby() {
    let (pair, _postgres) = voted_weakened("standby_vote").await;
    pair.promote().await.stands_prepared().await;
}

#[tokio::test]
async fn a_prepare_that_the_standby_does_not_have_is_no_vote() {
    let pair = Pair::start("standby_no_vote").await;
    pair.weaken().await;
    let (mut pair, postgres) = begun(pair).await;
    pair.cut();
    let prepare = preparing(&postgres, 1);
    assert!(
        pair.is_awaited_by(&prepare).await,
        "voted, and no standby has it"
    );
    pair.interrupt("pg_terminate_backend").await;
    let voted = prepare.await.unwrap();
    assert!(voted.is_err(), "{voted:?}");
    pair.promote().await.is_not_there().await;
}

/// The server answers an interrupted wait with a warning, and no error.
#[tokio::test]
async fn a_prepare_whose_wait_was_interrupted_is_confirmed_before_the_vote() {
    let (mut pair, postgres) = working("standby_cancelled_vote").await;
    // What would hide the warning.
    let work = postgres.work(txn(1)).await.unwrap();
    let sql = "SET client_min_messages = error";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    pair.cut();
    let prepare = preparing(&postgres, 1);
    assert!(
        pair.is_awaited_by(&prepare).await,
        "voted, and no standby has it"
    );
    pair.interrupt("pg_cancel_backend").await;
    assert!(
        pair.is_awaited_by(&prepare).await,
        "voted, and no standby has it"
    );
    pair.reconnect().await;
    assert_eq!(prepare.await.unwrap().unwrap(), Vote::Prepared);
    pair.promote().await.stands_prepared().await;
}

#[tokio::test]
async fn a_commit_that_waits_for_the_standby_is_prepared_there() {
    let (mut pair, postgres) = voted_weakened("standby_commit").await;
    pair.cut();
    let commit = committing(&postgres, 1);
    assert!(
        pair.is_awaited_by(&commit).await,
        "committed, and no standby has it"
    );
    assert!(!commit.is_finished());
    pair.promote().await.stands_prepared().await;
}

#[tokio::test]
async fn a_commit_is_on_the_standby() {
    let (pair, postgres) = voted_weakened("standby_committed").await;
    assert_eq!(postgres.commit(&branch(1)).await.unwrap(), Proof::Found);
    pair.promote().await.is_committed().await;
}

#[tokio::test]
async fn a_commit_whose_session_was_ended_is_not_found_before_the_standby_has_it() {
    let (pair, _postgres, commit) = interrupted("standby_ended", "pg_terminate_backend").await;
    assert!(
        pair.is_awaited_by(&commit).await,
        "found, and no standby has it"
    );
    // Another process of the participant finds it, too.
    let other = pair.base.open_with(pair.options()).await;
    let found = committing_until_done(&other);
    pair.base
        .until("SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        .await;
    assert!(!commit.is_finished() && !found.is_finished());
    pair.promote().await.stands_prepared().await;
}

#[tokio::test]
async fn a_commit_whose_wait_was_interrupted_is_not_found_before_the_standby_has_it() {
    let (mut pair, _postgres, commit) = interrupted("standby_cancelled", "pg_cancel_backend").await;
    assert!(
        pair.is_awaited_by(&commit).await,
        "found, and no standby has it"
    );
    // So is the write that confirms it.
    pair.interrupt("pg_cancel_backend").await;
    assert!(
        pair.is_awaited_by(&commit).await,
        "found, and no standby has it"
    );
    pair.reconnect().await;
    assert_eq!(commit.await.unwrap(), Proof::Found);
    pair.promote().await.is_committed().await;
}

/// The first thing that a promoted standby must have.
#[tokio::test]
async fn the_identity_of_the_store_is_on_the_standby_before_the_adapter_opens() {
    let mut pair = Pair::start("standby_identity").await;
    pair.weaken().await;
    pair.cut();
    let (url, options) = (pair.base.url.clone(), pair.options());
    let opening = tokio::spawn(async move {
        let opened = Postgres::connect(url.parse().unwrap(), NoTls, options).await;
        opened.unwrap().store()
    });
    assert!(
        pair.is_awaited_by(&opening).await,
        "opened, and no standby has it"
    );
    pair.reconnect().await;
    let store = tokio::time::timeout(LONG, opening).await.unwrap().unwrap();
    assert_eq!(pair.promote().await.service.store(), store);
}

#[tokio::test]
async fn what_the_work_sets_does_not_weaken_its_vote() {
    let mut pair = Pair::start("standby_work_sets").await;
    let sql = "CREATE TABLE late (n int);
               CREATE FUNCTION weaken() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN SET LOCAL synchronous_commit = off; RETURN NULL; END';
               CREATE CONSTRAINT TRIGGER weaken AFTER INSERT ON late
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION weaken()";
    pair.base.admin.batch_execute(sql).await.unwrap();
    let postgres = pair.base.open().await;
    let mut weakened = Vec::new();
    for (n, sql) in [
        (1, "SET LOCAL synchronous_commit = off"),
        (2, "SET synchronous_commit = local"),
        // At the prepare itself, when everything else is done.
        (3, "INSERT INTO late VALUES (1)"),
    ] {
        pay(&postgres, n, "alice", -1).await;
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(sql).await.unwrap();
        drop(work);
        pair.cut();
        let prepare = preparing(&postgres, n);
        if !pair.is_awaited_by(&prepare).await {
            weakened.push(sql);
        }
        pair.reconnect().await;
        assert_eq!(prepare.await.unwrap().unwrap(), Vote::Prepared);
        postgres.rollback(&branch(n)).await.unwrap();
    }
    assert!(
        weakened.is_empty(),
        "voted, and no standby has it: {weakened:#?}"
    );
}

/// Returns when a standby applies nothing more.
async fn pause(standby: &Client) {
    let sql = "SELECT pg_wal_replay_pause()";
    standby.batch_execute(sql).await.unwrap();
    until(standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
}

/// (`PREPARE TRANSACTION` waits until the standby has it, and never until it is applied there.)
#[tokio::test]
async fn a_commit_waits_for_more_where_more_is_set() {
    let pair = Pair::start("standby_apply").await;
    let sql = "ALTER DATABASE standby_apply SET synchronous_commit = remote_apply";
    pair.base.admin.batch_execute(sql).await.unwrap();
    let (pair, postgres) = begun(pair).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let standby = connect(&pair.standby.url("postgres")).await;
    // It has what is committed, and does not apply it.
    pause(&standby).await;
    let commit = committing(&postgres, 1);
    let has_it = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    until(&standby, has_it).await;
    assert!(
        pair.is_awaited_by(&commit).await,
        "committed, and not applied"
    );
    let sql = "SELECT pg_wal_replay_resume()";
    standby.batch_execute(sql).await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap(), Proof::Found);
}

/// The setting in sessions that end branches, as a trigger writes it down; and in sessions for work,
/// after the statement that comes before each prepare.
#[tokio::test]
async fn a_weaker_setting_is_raised_and_a_stronger_one_stays() {
    let base = Base::new("durable").await;
    drop(base.open().await);
    let sql = "CREATE TABLE seen (setting text);
               CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit''));
               RETURN NULL; END';
               CREATE TRIGGER look AFTER DELETE ON paxos_commit.committed
               FOR EACH STATEMENT EXECUTE FUNCTION look()";
    base.admin.batch_execute(sql).await.unwrap();
    // Set for the database, then for the role.
    let settings = ["off", "local", "remote_write", "on", "remote_apply"];
    let levels = ["DATABASE durable", "ROLE CURRENT_USER IN DATABASE durable"];
    let all = levels
        .iter()
        .flat_map(|level| settings.map(|setting| (level, setting)));
    for (n, (level, setting)) in (1..).zip(all) {
        let sql = format!("TRUNCATE seen; ALTER {level} SET synchronous_commit = {setting}");
        base.admin.batch_execute(&sql).await.unwrap();
        let expected = match setting {
            "remote_apply" => "remote_apply",
            _ => "on",
        };
        let postgres = base.open().await;
        pay(&postgres, n, "alice", -1).await;
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
        postgres.commit(&branch(n)).await.unwrap();
        postgres.settled(branch(n).id, &[]).await.unwrap();
        let seen = base.admin.query_one("SELECT setting FROM seen", &[]).await;
        assert_eq!(seen.unwrap().get::<_, &str>(0), expected, "{setting}");
        let work = postgres.work(txn(100 + n)).await.unwrap();
        let sql = format!("SET LOCAL synchronous_commit = {setting}; EXECUTE paxos_commit_durable");
        work.client().batch_execute(&sql).await.unwrap();
        let shown = work
            .client()
            .query_one("SHOW synchronous_commit", &[])
            .await;
        assert_eq!(shown.unwrap().get::<_, &str>(0), expected, "{setting}");
    }
}
