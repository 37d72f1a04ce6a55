//! What proves a commit: the branch's own row, and nothing else.

use std::time::Duration;

use paxos_commit::participant::{BranchId, Proof, ResourceManager};
use paxos_commit::protocol::types::{CommitId, RosterDigest, Vote};
use paxos_commit::resource::mariadb::Mariadb;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Opts, OptsBuilder};

use super::support::{ADD, Server, branch, branch_of, commit, options, prepared, until_ok, vote};

const MARKERS: &str = "SELECT COUNT(*) FROM paxos_commit_branch";

async fn proof(mariadb: &Mariadb, sequence: u32) -> Proof {
    mariadb.commit(&branch(sequence)).await.unwrap()
}

async fn committed(mariadb: &Mariadb, sequence: u32) {
    commit(mariadb, &prepared(mariadb, sequence, "a").await).await;
}

/// The counter-example: a branch is prepared, and its service crashes. The commit is acknowledged. The
/// service comes back on an empty database, and two generations later the commit is below the
/// horizon. If the horizon were a proof, the branch would count as committed, and its work would be
/// lost when the right database comes back.
#[tokio::test]
async fn without_a_marker_there_is_no_proof_whatever_is_settled() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().hold_max(Duration::ZERO)).await;
    assert_eq!(proof(&mariadb, 1).await, Proof::Missing);
    mariadb.settled(branch(5).id, &[]).await.unwrap();
    for sequence in [1, 3, 5, 6] {
        assert_eq!(proof(&mariadb, sequence).await, Proof::Missing);
    }
    // A branch that an operator has ended by hand.
    let lost = prepared(&mariadb, 7, "a").await;
    let mut hand = server.plain().await;
    let found: Option<(i64, i64, i64, String)> =
        hand.query_first("XA RECOVER FORMAT='SQL'").await.unwrap();
    let xid = found.unwrap().3;
    until_ok(|| async {
        let mut hand = server.plain().await;
        hand.query_drop(format!("XA ROLLBACK {xid}")).await
    })
    .await;
    for _ in 0..2 {
        assert_eq!(mariadb.commit(&lost).await.unwrap(), Proof::Missing);
        mariadb.settled(branch(9).id, &[]).await.unwrap();
    }
    let next = server.open().await;
    assert_eq!(proof(&next, 7).await, Proof::Missing);
    assert_eq!(server.value("a").await, 0);
}

#[tokio::test]
async fn markers_of_listed_commits_stay_and_all_others_up_to_the_horizon_go() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    for sequence in 1..=5 {
        committed(&mariadb, sequence).await;
    }
    // Other sessions may be listed, too.
    let listed = [branch(2), branch(4), branch_of(9, 1)];
    for _ in 0..2 {
        mariadb.settled(branch(4).id, &listed).await.unwrap();
        assert_eq!(server.scalar(MARKERS).await, 3);
    }
    let later = server.open().await;
    for (sequence, expected) in [
        (1, Proof::Missing),
        (2, Proof::Found),
        (3, Proof::Missing),
        (4, Proof::Found),
        (5, Proof::Found),
    ] {
        assert_eq!(proof(&mariadb, sequence).await, expected, "{sequence}");
        assert_eq!(proof(&later, sequence).await, expected, "{sequence}");
    }
    // A report that is older deletes nothing more, a later one with a shorter list does.
    later.settled(branch(1).id, &[]).await.unwrap();
    assert_eq!(server.scalar(MARKERS).await, 3);
    later.settled(branch(4).id, &[branch(4)]).await.unwrap();
    assert_eq!(server.scalar(MARKERS).await, 2);
    assert_eq!(proof(&mariadb, 2).await, Proof::Missing);
}

/// Rows hold masked nonces, which sort in another way than nonces do.
#[tokio::test]
async fn the_horizon_is_exact_to_the_nonce() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let mut branches: Vec<BranchId> = Vec::new();
    for nonce in 1..=8 {
        let mut of = branch(1);
        of.id.txn.nonce = nonce;
        let mut work = mariadb.work(of.id.txn).await.unwrap();
        work.execute(ADD, ("a", 1)).await.unwrap();
        drop(work);
        assert_eq!(vote(&mariadb, &of).await, Vote::Prepared);
        commit(&mariadb, &of).await;
        branches.push(of);
    }
    let through = CommitId {
        roster: RosterDigest::MIN,
        ..branches[4].id
    };
    mariadb.settled(through, &[]).await.unwrap();
    for (at, of) in branches.iter().enumerate() {
        let expected = match at {
            0..4 => Proof::Missing,
            _ => Proof::Found,
        };
        assert_eq!(mariadb.commit(of).await.unwrap(), expected, "{at}");
    }
}

#[tokio::test]
async fn two_processes_settle_at_the_same_time() {
    let server = Server::start().await;
    let (one, two) = (server.open().await, server.open().await);
    for sequence in 1..=10 {
        committed(&one, sequence).await;
    }
    let listed = [branch(3)];
    for sequence in 2..=10 {
        let through = branch(sequence).id;
        let (here, there) =
            tokio::join!(one.settled(through, &listed), two.settled(through, &listed));
        here.unwrap();
        there.unwrap();
    }
    // What one has locked the other leaves to it.
    one.settled(branch(10).id, &listed).await.unwrap();
    assert_eq!(server.scalar(MARKERS).await, 1);
    assert_eq!(proof(&two, 3).await, Proof::Found);
}

#[tokio::test]
async fn another_store_of_the_same_name_proves_nothing() {
    let server = Server::start().await;
    let sql = "CREATE DATABASE second";
    server.plain().await.query_drop(sql).await.unwrap();
    let second: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("second"))
        .into();
    let here = server.open_with(options().hold_max(Duration::ZERO)).await;
    let there = Mariadb::connect(second, options()).await.unwrap();
    assert_ne!(here.store(), there.store());
    committed(&here, 2).await;
    prepared(&here, 1, "a").await;
    for sequence in 1..=2 {
        assert_eq!(proof(&there, sequence).await, Proof::Missing);
        there.settled(branch(9).id, &[]).await.unwrap();
        assert_eq!(proof(&there, sequence).await, Proof::Missing);
    }
    commit(&here, &branch(1)).await;
    assert_eq!(proof(&here, 2).await, Proof::Found);
    assert_eq!(server.value("a").await, 2);
}

/// Two sessions commit one branch; the one that comes second finds the marker, not "no proof".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marker_of_a_commit_that_another_session_makes_is_seen() {
    let server = Server::start().await;
    let (one, two) = (server.open().await, server.open().await);
    for sequence in 1..=20 {
        let of = prepared(&one, sequence, "a").await;
        let finishing = [one.clone(), two.clone()].map(|session| {
            let of = of.clone();
            tokio::spawn(async move { until_ok(|| session.commit(&of)).await })
        });
        for finished in finishing {
            assert_eq!(finished.await.unwrap(), Proof::Found);
        }
    }
    assert_eq!(server.value("a").await, 20);
}
