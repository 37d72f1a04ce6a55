//! Data directories that are not what a replica left there: each is refused with a message that says
//! what was expected, what is there and what to do, or it does no harm.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use paxos_commit::cluster::ClusterFiles;

use crate::bank::{Bank, Started};
use crate::files;

/// The exit status, which tells a supervisor whether another start can be of use; and each of these
/// texts.
#[track_caller]
fn says(words: &str, texts: &[&str]) {
    let status = match words.contains("lost what it promised") {
        true => "exit status: 6",
        false => "exit status: 1",
    };
    for text in [status].iter().chain(texts) {
        assert!(words.contains(text), "expected {text:?}, got {words:?}");
    }
    assert!(!words.contains("panicked"), "{words:?}");
}

/// fjall lists the tables of a keyspace in files `v0`, `v1`, ...
fn is_old_list(data: &Path, name: &str) -> bool {
    let newer = |name: &str| {
        let (folder, number) = name.rsplit_once("/v")?;
        let next = number.parse::<u64>().ok()? + 1;
        Some(data.join(format!("{folder}/v{next}")).exists())
    };
    newer(name).unwrap_or(false)
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    files::replace(one, &aside);
    files::replace(other, one);
    files::replace(&aside, other);
}

/// Replica 3 starts, and is needed: it makes the majority together with one other.
async fn goes_on(bank: &mut Bank) {
    bank.start_well(3).await;
    bank.kill(2).await;
    bank.transfer().await;
    bank.start_well(2).await;
    bank.audit_all(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_directory_is_refused_and_the_replica_replaced() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    bank.kill(3).await;
    let (data, right) = (bank.data(3), bank.scratch("right"));
    files::replace(&data, &right);
    type Loss = fn(&Path);
    let losses: [Loss; 2] = [|_| {}, |data| fs::create_dir(data).unwrap()];
    for lose in losses {
        lose(&data);
        let words = bank.start_refused(3).await;
        says(
            &words,
            &["holds no replica", "its disk was lost", "replace it"],
        );
        bank.transfer().await;
        bank.audit().await;
    }
    // Whoever lost it for a moment only (it was not mounted) has lost nothing.
    files::replace(&right, &data);
    bank.start_well(3).await;
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;

    bank.kill(3).await;
    fs::remove_dir_all(&data).unwrap();
    bank.replace(3, 4).await;
    // It is one of two now.
    bank.kill(1).await;
    bank.transfer().await;
    bank.start_well(1).await;
    bank.audit_all(&[1, 2, 4]).await;
    bank.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_refused() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    bank.kill(3).await;
    let (data, older, right) = (bank.data(3), bank.scratch("older"), bank.scratch("right"));
    files::copy(&data, &older);
    bank.start_well(3).await;
    for _ in 0..5 {
        bank.transfer().await;
    }
    // When it starts it tells the others how far it has come, and both answer.
    bank.audit_all(&[1, 2, 3]).await;
    bank.kill(3).await;
    bank.start_well(3).await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.kill(3).await;

    files::replace(&data, &right);
    files::replace(&older, &data);
    let words = bank.start_refused(3).await;
    says(
        &words,
        &[
            "replica 3 has lost what it promised",
            "remembers its store up to",
            "cluster replace",
            "never restore it from a backup",
        ],
    );
    bank.transfer().await;
    bank.audit().await;
    files::replace(&right, &data);
    goes_on(&mut bank).await;
    bank.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_is_refused() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    // Of another cluster; and of a new one of the same name, where the others must notice.
    for (number, name) in ["other", "bank"].into_iter().enumerate() {
        bank.kill(3).await;
        let (data, right) = (bank.data(3), bank.scratch("right"));
        files::replace(&data, &right);
        let folder = bank.scratch(&format!("cluster-{number}"));
        let members = bank.cluster.files().members().to_vec();
        ClusterFiles::create(&folder, name.parse().unwrap(), members).unwrap();
        files::copy(&folder.join("replica-3/data"), &data);
        let words = bank.start_refused(3).await;
        if name == "other" {
            says(
                &words,
                &[
                    "is the data directory of replica 3 of other",
                    "the credentials are those of paxos-commit://bank/replica/3",
                    "Give each replica its own data directory",
                ],
            );
        } else {
            says(
                &words,
                &["replica 3 has lost what it promised", "it ended at 0"],
            );
        }
        bank.transfer().await;
        bank.audit().await;
        files::replace(&right, &data);
        bank.start_well(3).await;
    }
    bank.audit_all(&[1, 2, 3]).await;

    // Swapped. Both are refused, whoever starts first.
    let (two, three) = (bank.data(2), bank.data(3));
    bank.kill(2).await;
    bank.kill(3).await;
    swap(&two, &three);
    for (id, of) in [(2, 3), (3, 2)] {
        let words = bank.start_refused(id).await;
        let expected = format!("is the data directory of replica {of} of bank");
        says(
            &words,
            &[&expected, "Give each replica its own data directory"],
        );
    }
    swap(&two, &three);
    bank.cluster.start_all().unwrap();
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_one_of_its_files_it_is_refused() {
    let mut bank = Bank::open().await;
    let (data, right) = (bank.data(3), bank.scratch("right"));
    bank.transfer().await;
    bank.kill(3).await;
    let with_tables = bank.scratch("with-tables");
    files::copy(&data, &with_tables);
    files::flush(&with_tables.join("database"));
    files::replace(&with_tables, &data);
    // Behind the table the journal goes on.
    bank.start_well(3).await;
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.kill(3).await;

    let mut refused = BTreeSet::new();
    for name in files::all(&data) {
        files::copy(&data, &right);
        fs::remove_file(data.join(&name)).unwrap();
        let name = name.to_str().unwrap();
        let words = match bank.start(3).await {
            Started::Ended(words) => words,
            Started::Serves => {
                // A list of tables that was replaced by a newer one, and not removed yet.
                assert!(is_old_list(&right, name), "{name}: served without it");
                // It goes on from what it has saved since.
                bank.kill(3).await;
                fs::remove_dir_all(&right).unwrap();
                continue;
            }
        };
        bank.kill(3).await;
        let expected = match name {
            "identity" => "holds no replica: there is no identity file",
            "highwater" => "has an identity and no high-water sector",
            "database/version" => "has an identity and no whole database",
            _ if name.ends_with(".jnl") => "has an identity and no journal",
            _ if name.ends_with("/current") => "current is missing. This replica may have lost",
            _ if name.contains("/v") => "is missing. This replica may have lost",
            _ => "cannot open the database in",
        };
        says(&words, &[data.to_str().unwrap(), expected, "eplace"]);
        refused.insert(expected);
        files::replace(&right, &data);
        bank.transfer().await;
    }
    assert_eq!(refused.len(), 7, "{refused:?}");
    goes_on(&mut bank).await;
    bank.close();
}
