//! The binary's listener for `/metrics`, `/livez` and `/readyz`; and that there is none without the
//! feature.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use paxos_commit::cluster::{ChildProcess, ClusterFiles};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Member;

const PROGRAM: &str = env!("CARGO_BIN_EXE_paxos-commit");

/// The files of a cluster, each replica with an address for HTTP.
fn files(folder: &Path, replicas: u32) -> (ClusterFiles, Vec<SocketAddr>) {
    // All at once, so that no two are the same.
    let anywhere = (Ipv4Addr::LOCALHOST, 0);
    let sockets: Vec<_> = (0..replicas)
        .map(|_| {
            (
                UdpSocket::bind(anywhere).unwrap(),
                TcpListener::bind(anywhere).unwrap(),
            )
        })
        .collect();
    let members = (1..).zip(&sockets).map(|(id, (udp, _))| Member {
        id: ReplicaId(id),
        address: udp.local_addr().unwrap().to_string().parse().unwrap(),
    });
    let files = ClusterFiles::create(folder, "test".parse().unwrap(), members.collect()).unwrap();
    let addresses: Vec<SocketAddr> = sockets
        .iter()
        .map(|(_, tcp)| tcp.local_addr().unwrap())
        .collect();
    for (id, http) in (1..).zip(&addresses) {
        let path = files.replica_file(ReplicaId(id));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("http = \"{http}\"\n{text}")).unwrap();
    }
    (files, addresses)
}

fn start(files: &ClusterFiles, folder: &Path, id: u32) -> ChildProcess {
    let settings = files.replica_file(ReplicaId(id));
    let arguments = [
        "replica",
        "--with-parent",
        "--config",
        settings.to_str().unwrap(),
    ];
    let log = folder.join(format!("{id}.log"));
    ChildProcess::start(Path::new(PROGRAM), &arguments, &log).unwrap()
}

#[cfg(feature = "http")]
mod with_the_feature {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use paxos_commit::config::load_access;
    use paxos_commit::initiator::{Initiator, Outcome};
    use paxos_commit::participant::Participant;
    use paxos_commit::resource::embedded::{Embedded, Options};
    use paxos_commit::transport::Role;

    use super::*;

    /// How long anything may take before the test gives up on it.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Status and body; None while nobody listens.
    fn fetch(address: SocketAddr, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Fetches until the answer is as it should be.
    async fn fetch_until(
        address: SocketAddr,
        path: &str,
        is_right: impl Fn(u16, &str) -> bool,
    ) -> String {
        let begun = Instant::now();
        loop {
            let answer = fetch(address, path);
            if let Some((status, body)) = &answer
                && is_right(*status, body)
            {
                return body.clone();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{path}: the last answer was {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_replica_is_ready_while_it_reaches_a_majority() {
        let folder = tempfile::tempdir().unwrap();
        let (files, http) = files(&folder.path().join("cluster"), 3);
        let one = start(&files, folder.path(), 1);
        let body = fetch_until(http[0], "/livez", |status, _| status == 200).await;
        assert_eq!(body, "alive\n");
        let (status, body) = fetch(http[0], "/readyz").unwrap();
        assert_eq!(status, 503);
        assert!(body.contains("starting"), "{body}");

        let two = start(&files, folder.path(), 2);
        let body = fetch_until(http[0], "/readyz", |status, _| status == 200).await;
        assert_eq!(body, "ready\n");

        two.kill().await.unwrap();
        let body = fetch_until(http[0], "/readyz", |status, _| status == 503).await;
        assert!(
            body.contains("it reaches 1 of the 3 replicas of generation 1"),
            "{body}"
        );
        assert_eq!(fetch(http[0], "/livez").unwrap().0, 200);
        assert_eq!(fetch(http[0], "/").unwrap().0, 404);
        one.stop().await.unwrap();
        assert_eq!(fetch(http[0], "/livez"), None);
    }

    #[tokio::test]
    async fn what_a_replica_counts_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let (files, http) = files(&folder.path().join("cluster"), 1);
        let replica = start(&files, folder.path(), 1);
        let access = |role| load_access(&files.issue(role).unwrap()).unwrap();
        let options = Options::new().requests(|work, _| Ok(work.put("key", "value")?));
        let store = Embedded::open(folder.path().join("store"), options).unwrap();
        let participant = access(Role::Participant("ledger".parse().unwrap()));
        let participant = Participant::builder(participant)
            .connect(store)
            .await
            .unwrap();
        let initiator = access(Role::Initiator("shop".parse().unwrap()));
        let initiator = Initiator::builder(initiator).connect().await.unwrap();
        let mut txn = initiator.begin().await.unwrap();
        txn.request("ledger", "").await.unwrap();
        assert_eq!(txn.commit().await.unwrap(), Outcome::Committed);

        let has = |line: &'static str| move |_, body: &str| body.lines().any(|other| other == line);
        fetch_until(http[0], "/metrics", has("paxos_commit_commits_total 1")).await;
        fetch_until(http[0], "/metrics", has("paxos_commit_undecided 0")).await;
        let body = fetch_until(http[0], "/metrics", has("paxos_commit_connections 2")).await;
        for part in [
            "# HELP paxos_commit_save_seconds How long one save took",
            "# TYPE paxos_commit_save_seconds histogram",
            "paxos_commit_save_seconds_bucket{le=\"10\"} ",
            "paxos_commit_save_jobs_bucket{le=\"1\"} ",
            "paxos_commit_generation 1",
            "paxos_commit_disk_bytes ",
        ] {
            assert!(body.contains(part), "no {part} in {body}");
        }
        participant.shutdown(PATIENCE).await;
        replica.stop().await.unwrap();
    }
}

#[cfg(not(feature = "http"))]
#[tokio::test]
async fn without_the_feature_it_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let (files, http) = files(&folder.path().join("cluster"), 1);
    let error = start(&files, folder.path(), 1).stop().await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains(&format!("`http = \"{}\"`", http[0])),
        "{error}"
    );
    assert!(error.contains("--features http"), "{error}");
}
