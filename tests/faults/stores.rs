//! What an operator sees of participants' stores, and does about one that is lost.

use std::process::Output;

use paxos_commit::config::load_access;
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::Role;

use crate::bank::{Bank, until};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_for_which_store_a_branch_waits_and_gives_it_up() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    let file = bank.dir().join("operator-admin/access.toml");
    let access = file.to_str().unwrap().to_owned();
    let ask = |bank: &Bank, words: &[&str]| bank.run(&[words, &["--access", &access]].concat());
    let store = bank.ledgers[1].store.store().to_string();
    let listed = stdout(&ask(&bank, &["participant", "list"]));
    assert!(
        listed.contains(&format!("ledger-b  store {store}")),
        "{listed}"
    );

    // Nobody gives up a store that is there, nor one that never was.
    let refused = ask(&bank, &["participant", "gone", "ledger-b", &store]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(
        stderr(&refused).contains("connected"),
        "{}",
        stderr(&refused)
    );
    let none = "00000000000000000000000000000009";
    let refused = ask(&bank, &["participant", "gone", "ledger-b", none]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(stderr(&refused).contains(&store), "{}", stderr(&refused));

    // It is lost with a branch that has not voted.
    let mut txn = bank.shop.begin().await.unwrap();
    txn.vote_timeout(std::time::Duration::from_secs(600));
    for ledger in &bank.ledgers {
        let branch = ledger.participant.branch(txn.id()).await.unwrap();
        ledger.store.work(&branch).put("k", "v").unwrap();
        txn.enlist(branch.ticket()).unwrap();
    }
    let id = txn.id().to_string();
    drop(bank.ledgers.pop());
    let committing = tokio::spawn(txn.commit());
    until("the branch waits for a store", async || {
        let shown = stdout(&ask(&bank, &["txn", "show", &id]));
        let is_named = shown.contains("no vote of ledger-b/") && shown.contains(&store);
        is_named.then_some(())
    })
    .await;
    let aborted = ask(&bank, &["txn", "abort", &id]);
    assert!(aborted.status.success(), "{}", stderr(&aborted));
    committing.await.unwrap().unwrap();

    until("the store is given up", async || {
        let gone = ask(&bank, &["participant", "gone", "ledger-b", &store]);
        gone.status.success().then_some(())
    })
    .await;
    let role = Role::Participant("ledger-b".parse().unwrap());
    let issued = bank.cluster.files().issued(&role).unwrap();
    let fresh = Embedded::open(bank.scratch("another"), Options::new()).unwrap();
    let connecting = Participant::builder(load_access(&issued).unwrap()).connect(fresh.clone());
    let _another = connecting.await.unwrap();
    let now = fresh.store().to_string();
    let listed = stdout(&ask(&bank, &["participant", "list"]));
    assert!(
        listed.contains(&format!("ledger-b  store {now}")),
        "{listed}"
    );
    // From now on whichever copy of it starts is let in.
    let restored = ask(&bank, &["participant", "restored", "ledger-b", &now]);
    assert_eq!(restored.status.code(), Some(1), "it is connected");
}
