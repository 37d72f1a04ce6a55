//! Branches in doubt, proofs of commits, and who may touch what.

use std::sync::Arc;

use paxos_commit::participant::{Expiry, ResourceManager};
use paxos_commit::protocol::types::{CommitId, ReadOnly, Session, Vote};
use paxos_commit::resource::postgres::{BranchError, Options};

use super::support::{Base, branch, branch_of, connect, ids_in_doubt, pay, prepare, store_in, txn};

#[tokio::test]
async fn in_doubt_are_the_branches_of_this_participant_in_this_database_and_no_others() {
    let base = Base::new("in_doubt_here").await;
    let elsewhere = Base::new("in_doubt_elsewhere").await;
    let postgres = base.open().await;
    assert_eq!(postgres.prepared().await.unwrap().count, 0);
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    // Another session of the same participant.
    let second = base.open().await;
    let of_second = branch_of(2, 2);
    pay(&second, 2, "bob", -1).await;
    let voted = second.prepare(&of_second, None, ReadOnly::Forbidden).await;
    assert_eq!(voted.unwrap(), Vote::Prepared);
    // The same participant in another database of the same server.
    let other = elsewhere.open_with(base.options()).await;
    pay(&other, 3, "alice", -1).await;
    assert_eq!(prepare(&other, 3).await, Vote::Prepared);
    // Whoever else prepares here.
    let ours = base.names().await[0].clone();
    let foreign = [
        "somebody".to_owned(),
        ours.replace("/ledger/", "/ledgers/"),
        ours.replace("/in_doubt_here/", "/in_doubt/"),
        ours[..ours.len() - 1].to_owned(),
        ours.replace(&format!("/{}/", store_in(&ours)), "/00000000/"),
        format!("{ours}x"),
        format!("x{ours}"),
    ];
    for (n, name) in foreign.iter().enumerate() {
        let sql = format!("BEGIN; CREATE TABLE t{n} (); PREPARE TRANSACTION '{name}'");
        connect(&base.url).await.batch_execute(&sql).await.unwrap();
    }

    let found = postgres.in_doubt().await.unwrap();
    let mut found: Vec<_> = found
        .iter()
        .map(|found| (found.id, found.session))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [(branch(1).id, Session(1)), (of_second.id, Session(2))]
    );
    let standing = postgres.prepared().await.unwrap();
    assert!(standing.count == 2 && standing.oldest.is_some());

    // Any session finishes what another has prepared.
    postgres.commit(&of_second).await.unwrap();
    second.rollback(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 100);
    assert_eq!(base.balance("bob").await, 99);
    let mut left = base.names().await;
    left.sort();
    let mut expected = foreign.to_vec();
    expected.sort();
    assert_eq!(left, expected);
    for name in foreign {
        let sql = format!("ROLLBACK PREPARED '{name}'");
        base.admin.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(ids_in_doubt(&other).await, [branch(3).id]);
    other.rollback(&branch(3)).await.unwrap();
}

#[tokio::test]
async fn the_branch_of_another_participant_is_refused() {
    let base = Base::new("another_participant").await;
    let postgres = base.open_with(Options::new("test", "stock")).await;
    let asked = [
        postgres
            .prepare(&branch(1), None, ReadOnly::Forbidden)
            .await
            .map(drop),
        postgres.commit(&branch(1)).await.map(drop),
        postgres.rollback(&branch(1)).await,
        postgres.expire(&branch(1)).await.map(drop),
    ];
    for answer in asked {
        assert!(
            matches!(answer, Err(BranchError::NotOurs { .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn work_that_is_settled_is_let_go() {
    let base = Base::new("settled_work").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    pay(&postgres, 2, "bob", -1).await;
    // All ids that the first one can have; none of the second.
    let through = *CommitId::all_of(txn(1)).end();
    postgres.settled(through, &[]).await.unwrap();
    base.admin
        .batch_execute("UPDATE account SET balance = 7 WHERE name = 'alice'")
        .await
        .unwrap();
    assert!(postgres.work(txn(1)).await.is_err());
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
}

#[tokio::test]
async fn what_is_forgotten_is_rolled_back_if_it_stands_prepared() {
    let base = Base::new("expired").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let expired = postgres.expire(&branch(1)).await.unwrap();
    assert_eq!(expired, Expiry::RolledBack);
    for n in [1, 2] {
        let expired = postgres.expire(&branch(n)).await.unwrap();
        assert_eq!(expired, Expiry::NotPrepared);
    }
    assert_eq!(base.balance("alice").await, 100);
}

#[tokio::test]
async fn a_rollback_for_another_session_reaches_its_branch_though_this_one_works_there_too() {
    let base = Base::new("same_transaction").await;
    let (first, second) = (base.open().await, base.open().await);
    for (n, name) in [(1, "alice"), (2, "bob")] {
        pay(&first, n, name, -1).await;
        assert_eq!(prepare(&first, n).await, Vote::Prepared);
        second.work(txn(n)).await.unwrap();
    }
    second.rollback(&branch(1)).await.unwrap();
    assert_eq!(ids_in_doubt(&second).await, [branch(2).id]);
    let expired = second.expire(&branch(2)).await.unwrap();
    assert_eq!(expired, Expiry::RolledBack);
    assert!(base.names().await.is_empty());
}

#[tokio::test]
async fn many_sessions_finish_one_branch_at_the_same_time() {
    let base = Base::new("many_finishers").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Arc::new(base.open().await));
    }
    for n in 1..=20 {
        pay(&sessions[0], n, "alice", -1).await;
        assert_eq!(prepare(&sessions[0], n).await, Vote::Prepared);
        let commits = n % 2 == 0;
        let finishing = sessions.iter().map(|session| {
            let session = session.clone();
            tokio::spawn(async move {
                match commits {
                    true => session.commit(&branch(n)).await.map(drop),
                    false => session.rollback(&branch(n)).await,
                }
            })
        });
        for finished in finishing.collect::<Vec<_>>() {
            finished.await.unwrap().unwrap();
        }
    }
    assert_eq!(base.balance("alice").await, 90);
    assert!(base.names().await.is_empty());
}

#[tokio::test]
async fn a_closed_adapter_does_nothing_more_and_what_is_prepared_stays() {
    let base = Base::new("closed").await;
    let postgres = base.open_with(base.options()).await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    pay(&postgres, 2, "bob", -1).await;
    postgres.close();
    assert!(postgres.work(txn(3)).await.is_err());
    assert!(postgres.commit(&branch(1)).await.is_err());
    // The lock of the other one is free.
    let sql = "UPDATE account SET balance = 7 WHERE name = 'bob'";
    base.admin.batch_execute(sql).await.unwrap();
    let next = base.open().await;
    assert_eq!(ids_in_doubt(&next).await, [branch(1).id]);
    next.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}
