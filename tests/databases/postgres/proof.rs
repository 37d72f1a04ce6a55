//! What proves a commit: the marker, and nothing else.

use paxos_commit::participant::{BranchId, Proof, ResourceManager};
use paxos_commit::protocol::types::{CommitId, RosterDigest, StoreId, Vote};
use paxos_commit::resource::postgres::{MARKERS_PER_DELETE, Options, Postgres};

use super::support::{Base, base32, branch, branch_of, connect, pay, prepare};

const MARKERS: &str = "SELECT count(*) FROM paxos_commit.committed";

async fn committed(postgres: &Postgres, n: u32) -> BranchId {
    pay(postgres, n, "alice", -1).await;
    assert_eq!(prepare(postgres, n).await, Vote::Prepared);
    assert_eq!(postgres.commit(&branch(n)).await.unwrap(), Proof::Found);
    branch(n)
}

async fn proof(postgres: &Postgres, n: u32) -> Proof {
    postgres.commit(&branch(n)).await.unwrap()
}

/// The counter-example: a branch is prepared, and its service crashes. The commit is acknowledged. The
/// service comes back on an empty database, and two generations later the commit is below the
/// horizon. If the horizon were a proof, the branch would count as committed, and its work would be
/// lost when the right database comes back.
#[tokio::test]
async fn without_a_marker_there_is_no_proof_whatever_is_settled() {
    let base = Base::new("no_proof").await;
    let postgres = base.open().await;
    assert_eq!(proof(&postgres, 1).await, Proof::Missing);
    postgres.settled(branch(5).id, &[]).await.unwrap();
    for n in [1, 3, 5, 6] {
        assert_eq!(proof(&postgres, n).await, Proof::Missing, "{n}");
    }
    let later = base.open().await;
    assert_eq!(proof(&later, 3).await, Proof::Missing);
    // A branch that an operator has ended by hand.
    pay(&postgres, 7, "alice", -1).await;
    assert_eq!(prepare(&postgres, 7).await, Vote::Prepared);
    let sql = format!("ROLLBACK PREPARED '{}'", base.names().await[0]);
    base.admin.batch_execute(&sql).await.unwrap();
    for _ in 0..2 {
        assert_eq!(proof(&postgres, 7).await, Proof::Missing);
        postgres.settled(branch(9).id, &[]).await.unwrap();
    }
    assert_eq!(proof(&base.open().await, 7).await, Proof::Missing);
    assert_eq!(base.balance("alice").await, 100);
}

#[tokio::test]
async fn markers_of_listed_commits_stay_and_all_others_up_to_the_horizon_go() {
    let base = Base::new("listed").await;
    let postgres = base.open().await;
    for n in 1..=5 {
        committed(&postgres, n).await;
    }
    // Other sessions and other participants may be listed, too.
    let listed = [branch(2), branch(4), branch_of(9, 1)];
    for _ in 0..2 {
        postgres.settled(branch(4).id, &listed).await.unwrap();
        assert_eq!(base.count(MARKERS).await, 3);
    }
    let later = base.open().await;
    for (n, expected) in [
        (1, Proof::Missing),
        (2, Proof::Found),
        (3, Proof::Missing),
        (4, Proof::Found),
        (5, Proof::Found),
    ] {
        assert_eq!(proof(&postgres, n).await, expected, "{n}");
        assert_eq!(proof(&later, n).await, expected, "{n}");
    }
    // A report that is older deletes nothing more, a later one with a shorter list does.
    later.settled(branch(1).id, &[]).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 3);
    later.settled(branch(4).id, &[branch(4)]).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 2);
    assert_eq!(proof(&postgres, 2).await, Proof::Missing);
}

/// Names hold masked nonces, which sort in another way than nonces do.
#[tokio::test]
async fn the_horizon_is_exact_to_the_nonce() {
    let base = Base::new("exact").await;
    let postgres = base.open().await;
    let mut branches: Vec<BranchId> = Vec::new();
    for nonce in 1..=8 {
        let mut of = branch(1);
        of.id.txn.nonce = nonce;
        let work = postgres.work(of.id.txn).await.unwrap();
        let sql = "INSERT INTO account VALUES ($1, 1)";
        let name = nonce.to_string();
        work.client().execute(sql, &[&name]).await.unwrap();
        drop(work);
        let voted = super::support::vote(&postgres, &of, None).await;
        assert_eq!(voted, Vote::Prepared);
        postgres.commit(&of).await.unwrap();
        branches.push(of);
    }
    let through = CommitId {
        roster: RosterDigest::MIN,
        ..branches[4].id
    };
    postgres.settled(through, &[]).await.unwrap();
    for (at, of) in branches.iter().enumerate() {
        let expected = match at {
            0..4 => Proof::Missing,
            _ => Proof::Found,
        };
        assert_eq!(postgres.commit(of).await.unwrap(), expected, "{at}");
    }
}

#[tokio::test]
async fn two_processes_settle_at_the_same_time() {
    let base = Base::new("settle_together").await;
    let (one, two) = (base.open().await, base.open().await);
    for n in 1..=10 {
        committed(&one, n).await;
    }
    let listed = [branch(3)];
    for n in 2..=10 {
        let through = branch(n).id;
        let (here, there) =
            tokio::join!(one.settled(through, &listed), two.settled(through, &listed));
        here.unwrap();
        there.unwrap();
    }
    assert_eq!(base.count(MARKERS).await, 1);
    assert_eq!(proof(&two, 3).await, Proof::Found);
}

#[tokio::test]
async fn another_store_of_the_same_name_proves_nothing() {
    let (base, elsewhere) = (
        Base::new("right_store").await,
        Base::new("wrong_store").await,
    );
    let here = base.open().await;
    let there = elsewhere.open_with(base.options()).await;
    assert_ne!(here.store(), there.store());
    committed(&here, 2).await;
    pay(&here, 1, "alice", -1).await;
    assert_eq!(prepare(&here, 1).await, Vote::Prepared);
    for n in 1..=2 {
        assert_eq!(proof(&there, n).await, Proof::Missing);
        there.settled(branch(9).id, &[]).await.unwrap();
        assert_eq!(proof(&there, n).await, Proof::Missing);
    }
    assert_eq!(proof(&here, 1).await, Proof::Found);
    assert_eq!(proof(&here, 2).await, Proof::Found);
    // Nor do the markers of another participant in the same database.
    let other = base.open_with(Options::new("other", "ledger")).await;
    assert_eq!(proof(&other, 2).await, Proof::Missing);
    other.settled(branch(9).id, &[]).await.unwrap();
    assert_eq!(proof(&here, 2).await, Proof::Found);
}

#[tokio::test]
async fn markers_go_in_batches_and_no_call_waits_for_a_lock() {
    let base = Base::new("markers").await;
    let postgres = base.open().await;
    for n in [1, 100_000] {
        committed(&postgres, n).await;
    }
    // As many as that, with names in between; and those of another participant and of another store.
    let sql = "SELECT min(gid) FROM paxos_commit.committed";
    let first: String = base.admin.query_one(sql, &[]).await.unwrap().get(0);
    let parts: Vec<&str> = first.split('/').collect();
    let [.., store, id, session] = parts[..] else {
        panic!("{first}")
    };
    let name_of = |n: u32| {
        let id = base32(&branch(n).id.to_be_bytes());
        format!("paxos-commit/2/markers/ledger/{store}/{id}/{session}")
    };
    let mut names: Vec<String> = (2..=5_000).map(name_of).collect();
    for (participant, store) in [("ledge", store), ("ledger2", store), ("ledger", "00000000")] {
        let name = format!("paxos-commit/2/markers/{participant}/{store}/{id}/{session}");
        names.push(name);
    }
    let sql = "INSERT INTO paxos_commit.committed SELECT unnest($1::text[])";
    base.admin.execute(sql, &[&names]).await.unwrap();
    let sql = "CREATE TABLE batch (xid xid8, rows int8);
               CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO batch SELECT pg_current_xact_id(), count(*) FROM gone;
                RETURN NULL; END';
               CREATE TRIGGER note AFTER DELETE ON paxos_commit.committed
               REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION note()";
    base.admin.batch_execute(sql).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 5_004);
    // Another session has locked one of them.
    let other = connect(&base.url).await;
    let locked = name_of(16);
    let sql =
        format!("BEGIN; SELECT FROM paxos_commit.committed WHERE gid = '{locked}' FOR UPDATE");
    other.batch_execute(&sql).await.unwrap();
    let mut through = branch(4_000);
    through.id.txn.nonce = u64::MAX;
    postgres.settled(through.id, &[]).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 1_005);
    other.batch_execute("COMMIT").await.unwrap();
    postgres.settled(through.id, &[]).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 1_004);
    // Few at a time, each time in a transaction of its own.
    let largest = base.count("SELECT max(rows) FROM batch").await;
    assert_eq!(largest, MARKERS_PER_DELETE);
    let transactions = base
        .count("SELECT count(DISTINCT xid) FROM batch WHERE rows > 0")
        .await;
    assert_eq!(transactions, 4_000 / MARKERS_PER_DELETE + 1);
    assert_eq!(proof(&postgres, 1).await, Proof::Missing);
    assert_eq!(proof(&postgres, 100_000).await, Proof::Found);
    postgres.settled(branch(u32::MAX).id, &[]).await.unwrap();
    assert_eq!(base.count(MARKERS).await, 3);
}

/// Two sessions commit one branch; the one that comes second finds the marker, not "no proof".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marker_of_a_commit_that_another_session_makes_is_seen() {
    let base = Base::new("both_commit").await;
    let (one, two) = (base.open().await, base.open().await);
    for n in 1..=30 {
        pay(&one, n, "alice", -1).await;
        assert_eq!(prepare(&one, n).await, Vote::Prepared);
        let finishing = [one.clone(), two.clone()]
            .map(|session| tokio::spawn(async move { session.commit(&branch(n)).await.unwrap() }));
        for finished in finishing {
            assert_eq!(finished.await.unwrap(), Proof::Found);
        }
    }
    assert_eq!(base.balance("alice").await, 70);
}

#[tokio::test]
async fn the_store_of_a_branch_in_doubt_is_the_one_of_the_database() {
    let base = Base::new("its_store").await;
    let postgres = base.open().await;
    assert_ne!(postgres.store(), StoreId::from_u128(1));
    let sql = "SELECT identity FROM paxos_commit.store";
    let row = base.admin.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), postgres.store().to_string());
}
