//! What an operator does by the tool, and what befalls a replica's process: signals, and a data directory
//! that disappears under it.

use std::fs;
use std::process::{Command, Output, Stdio};

use paxos_commit::initiator::Outcome;
use paxos_commit::protocol::paxos::ReplicaId;

use crate::bank::{Bank, free_address, program, until};
use crate::membership::TUNING;

/// The words of a command that asks.
fn question<'w>(words: &[&'w str], access: &'w str) -> Vec<&'w str> {
    [words, &["--access", access]].concat()
}

fn access(bank: &Bank) -> String {
    let file = bank.dir().join("operator-admin/access.toml");
    file.to_str().unwrap().to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The counter-example: of an id with one wrong digit the answer is "abort was chosen; it is final",
/// with exit code 0, and the transaction that was meant commits.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_a_wrong_digit_aborts_nothing() {
    let mut bank = Bank::open().await;
    let access = access(&bank);
    let mut txn = bank.shop.begin().await.unwrap();
    for ledger in &bank.ledgers {
        let branch = ledger.participant.branch(txn.id()).await.unwrap();
        ledger.store.work(&branch).put("k", "v").unwrap();
        txn.enlist(branch.ticket()).unwrap();
    }
    let id = txn.plan().await.unwrap().id();
    let mut wrong = id;
    wrong.txn.nonce ^= 0x10;
    for word in [wrong.to_string(), wrong.txn.to_string(), id.to_string()] {
        let output = bank.run(&question(&["txn", "abort", &word], &access));
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        let error = stderr(&output);
        assert!(error.contains("no replica that answers knows"), "{error}");
        assert!(error.contains("nothing was done"), "{error}");
    }
    // Of a generation that is settled nobody knows anything; so this is no abort of it.
    wrong.txn.generation = 0;
    for word in [wrong.to_string(), wrong.txn.to_string()] {
        let output = bank.run(&question(&["txn", "abort", &word], &access));
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    }
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    // Whichever way it is printed, it is the same transaction.
    for word in [id.to_string(), id.txn.to_string()] {
        // Whoever waits for an outcome has it before the replicas have told each other.
        until("a replica knows the outcome", async || {
            let shown = bank.run(&question(&["txn", "show", &word], &access));
            stdout(&shown).contains("commit: ").then_some(())
        })
        .await;
        let output = bank.run(&question(&["txn", "abort", &word], &access));
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains("commit had been chosen"), "{error}");
        let output = bank.run(&question(&["txn", "release", &word], &access));
        let error = stderr(&output);
        assert!(error.contains("not among the settled commits"), "{error}");
    }
    bank.kill(1).await;
    bank.close();
}

/// The counter-example: "nothing is undecided", with exit code 0, while a majority is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_list_says_that_it_is_partial() {
    let mut bank = Bank::open().await;
    let access = access(&bank);
    let whole = bank.run(&question(&["txn", "list"], &access));
    assert!(whole.status.success(), "{}", stderr(&whole));
    assert!(stdout(&whole).contains("nothing is undecided"));
    bank.kill(3).await;
    let most = bank.run(&question(&["txn", "list"], &access));
    assert!(most.status.success(), "a majority answers");
    assert!(
        stdout(&most).contains("replica 3 did not answer"),
        "{}",
        stdout(&most)
    );
    bank.kill(2).await;
    let partial = bank.run(&question(&["txn", "list"], &access));
    assert_eq!(partial.status.code(), Some(5), "{}", stdout(&partial));
    assert!(!stdout(&partial).contains("nothing is undecided"));
    assert!(stderr(&partial).contains("partial"), "{}", stderr(&partial));
    let id = "00000001-00000000000000000000000000000007-00000005-88dce450807c0692";
    let shown = bank.run(&question(&["txn", "show", id], &access));
    assert_eq!(shown.status.code(), Some(5), "{}", stdout(&shown));
    let partial = bank.run(&question(&["txn", "list", "--json"], &access));
    assert_eq!(partial.status.code(), Some(5));
    let json: serde_json::Value = serde_json::from_slice(&partial.stdout).unwrap();
    assert_eq!(json["partial"], true);
}

/// The counter-example: `paxos-commit status | head -1` panics.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_panic() {
    let bank = Bank::open().await;
    let access = access(&bank);
    for words in [
        &["status"][..],
        &["txn", "list"],
        &["participant", "list", "--json"],
    ] {
        let mut command = Command::new(program());
        command.args(question(words, &access));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "", "{words:?}");
        assert!(output.status.success(), "{words:?}");
    }
}

/// The counter-example: replica 3 was removed while it was down, and those that it knows have all been
/// replaced since, and are gone. It waits for ever, and says no more than for whom.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_known_peers_are_all_gone_says_what_to_do() {
    let mut bank = Bank::open().await;
    let dir = bank.dir();
    for id in [1, 2, 3] {
        let file = dir.join(format!("replica-{id}/replica.toml"));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{text}\n[tuning]\n{TUNING}\n")).unwrap();
        bank.kill(id).await;
    }
    bank.launch(1);
    bank.launch(2);
    for (old, new) in [(3, 4), (1, 5), (2, 6)] {
        bank.replace(old, new).await;
    }
    // (Each line that says so once for each.)
    let log = dir.join("replica-4.log");
    until("generations are settled", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("generations settled").then_some(())
    })
    .await;
    // They end by themselves when nothing is left that they decide.
    for id in [1, 2] {
        bank.ends(id).await;
    }
    bank.launch(3);
    let log = dir.join("replica-3.log");
    until("replica 3 says what to do", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("Ask `paxos-commit cluster retire`")
            .then_some(())
    })
    .await;
    let words = ["cluster", "retire", "--dir", dir.to_str().unwrap(), "3"];
    let output = bank.run(&question(&words, &access(&bank)));
    assert!(stdout(&output).contains("may go"), "{output:?}");
    bank.transfer().await;
}

/// Each line is said once, and for people who read files: without colours.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_says_what_happens_to_it() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    let log = bank.dir().join("replica-3.log");
    bank.replace(2, 4).await;
    bank.kill(1).await;
    for words in [
        "waiting for other replicas to answer",
        "serving",
        "connected to a replica",
        "lost the connection to a replica",
        "a replica leads the control log",
        "generation opened",
        "the replicas are",
    ] {
        until(words, async || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains(words).then_some(())
        })
        .await;
    }
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(
        !text.contains("fjall::") && !text.contains("lsm_tree"),
        "{text}"
    );
    assert_eq!(text.matches("waiting for other").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_goes_away_does_not_end_a_replica() {
    let mut bank = Bank::open().await;
    for id in 1..=3 {
        let process = bank.cluster.process_id(ReplicaId(id)).expect("it runs");
        let hang_up = Command::new("kill")
            .args(["-HUP", &process.to_string()])
            .status();
        assert!(hang_up.unwrap().success());
    }
    for id in 1..=3 {
        let log = bank.dir().join(format!("replica-{id}.log"));
        until("it says so", async || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("SIGHUP").then_some(())
        })
        .await;
    }
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.close();
}

/// The counter-example: it goes on, and what it answers for is in files that no process can open again.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_disappears_ends_its_replica() {
    let mut bank = Bank::open().await;
    bank.transfer().await;
    let (data, aside) = (bank.data(3), bank.scratch("aside"));
    for another in [false, true] {
        fs::rename(&data, &aside).unwrap();
        if another {
            fs::create_dir(&data).unwrap();
        }
        let words = bank.ends(3).await;
        assert!(words.contains("exit status: 1"), "{words}");
        assert!(words.contains("has gone under this replica"), "{words}");
        assert!(words.contains(data.to_str().unwrap()), "{words}");
        bank.kill(3).await;
        bank.transfer().await;
        if another {
            fs::remove_dir_all(&data).unwrap();
        }
        fs::rename(&aside, &data).unwrap();
        bank.start_well(3).await;
    }
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.close();
}

/// The same of one that does not serve yet, since it waits for the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_disappears_ends_a_replica_that_waits() {
    let mut bank = Bank::open().await;
    for id in [1, 2, 3] {
        bank.kill(id).await;
    }
    bank.launch(3);
    let log = bank.dir().join("replica-3.log");
    until("replica 3 waits", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("waiting for other replicas").then_some(())
    })
    .await;
    fs::rename(bank.data(3), bank.scratch("aside")).unwrap();
    let words = bank.ends(3).await;
    assert!(words.contains("has gone under this replica"), "{words}");
}

/// The counter-example: the log of a replica goes into a pipe whose reader ends (`2>&1 | head`), or to a
/// terminal that goes away with a SIGHUP. The line that nobody can read panics.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_ends_no_replica() {
    let mut bank = Bank::open().await;
    bank.kill(3).await;
    let file = bank.dir().join("replica-3/replica.toml");
    let mut command = Command::new(program());
    command.args(["replica", "--config", file.to_str().unwrap()]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    bank.audit_all(&[1, 2, 3]).await;
    let hang_up = ["-HUP", &child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(hang_up)
            .status()
            .unwrap()
            .success()
    );
    // It is needed now, and has to say that it has lost one.
    bank.kill(2).await;
    bank.transfer().await;
    assert_eq!(child.try_wait().unwrap(), None, "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What `cluster new` makes for addresses of IPv6 runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_on_ipv6_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("six");
    let sockets = [(); 3].map(|()| std::net::UdpSocket::bind("[::1]:0").unwrap());
    let addresses = sockets
        .each_ref()
        .map(|of| of.local_addr().unwrap().to_string());
    drop(sockets);
    let mut new = Command::new(program());
    new.args(["cluster", "new", dir.to_str().unwrap()]);
    for address in &addresses {
        new.args(["--address", address]);
    }
    let made = new.output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let start = |id: u32| {
        let file = dir.join(format!("replica-{id}/replica.toml"));
        let mut command = Command::new(program());
        command.args(["replica", "--config", file.to_str().unwrap()]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let mut running: Vec<_> = (1..=3).map(start).collect();
    let access = dir.join("operator-admin/access.toml");
    let words = ["status", "--access", access.to_str().unwrap()];
    until("all three are up", async || {
        let status = Command::new(program()).args(words).output().unwrap();
        (stdout(&status).matches("  up").count() == 3).then_some(())
    })
    .await;
    // The last words of one that is told to stop.
    let term = running[0].id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &term])
            .status()
            .unwrap()
            .success()
    );
    assert!(running[0].wait().unwrap().success());
    for mut child in running.drain(1..) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Nothing is left of a change that another one has overtaken; and the same words go on where they were.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_the_one_that_loses_leaves_nothing_behind() {
    let mut bank = Bank::open().await;
    let dir = bank.dir();
    let access = access(&bank);
    let other = bank.scratch("other-operator");
    crate::files::copy(&dir, &other);
    let addresses = [free_address(), free_address()];
    let words = |dir: &std::path::Path, address: &str| {
        let dir = dir.to_str().unwrap();
        let words = [
            "cluster", "replace", "--wait", "0", "--dir", dir, "--access", &access, "3", address,
        ];
        words.map(str::to_owned)
    };
    let run = |words: [String; 10]| Command::new(program()).args(words).output().unwrap();
    // The other operator makes replica 4, and does not start it.
    let unheard = run(words(&other, &addresses[1]));
    assert_eq!(unheard.status.code(), Some(1));
    assert!(
        stderr(&unheard).contains("not heard: replica 4"),
        "{}",
        stderr(&unheard)
    );
    assert!(other.join("replica-4/replica.toml").exists());
    // This one makes its own, starts it, and is done.
    assert!(!run(words(&dir, &addresses[0])).status.success());
    bank.start_well(4).await;
    let done = run(words(&dir, &addresses[0]));
    assert!(done.status.success(), "{}", stderr(&done));
    let again = run(words(&dir, &addresses[0]));
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(
        stdout(&again).contains("has taken the place"),
        "{}",
        stdout(&again)
    );
    let lost = run(words(&other, &addresses[1]));
    assert_eq!(lost.status.code(), Some(1));
    let error = stderr(&lost);
    assert!(error.contains("replica 3 is none of"), "{error}");
    let left = other.join("replica-4");
    assert!(!left.exists(), "{}", stdout(&lost));
}

/// The counter-example: the operator who loses is still waiting, for a replica of his own with the same
/// id. "Nothing was changed; repeat the command", and its folder stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_waits_and_loses_leaves_nothing_behind() {
    let mut bank = Bank::open().await;
    let access = access(&bank);
    let other = bank.scratch("other-operator");
    crate::files::copy(&bank.dir(), &other);
    let mut waits = Command::new(program());
    waits.args(["cluster", "replace", "--wait", "600", "--dir"]);
    waits
        .arg(&other)
        .args(["--access", &access, "3", &free_address()]);
    waits.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waits = waits.spawn().unwrap();
    let made = other.join("replica-4/replica.toml");
    until("the other one makes a replica", async || {
        made.exists().then_some(())
    })
    .await;
    bank.replace(3, 4).await;
    let lost = tokio::task::spawn_blocking(move || waits.wait_with_output());
    let lost = lost.await.unwrap().unwrap();
    assert_eq!(lost.status.code(), Some(1), "{}", stdout(&lost));
    assert!(!other.join("replica-4").exists(), "{}", stdout(&lost));
    let error = stderr(&lost);
    assert!(error.contains("look at `paxos-commit status`"), "{error}");
}
