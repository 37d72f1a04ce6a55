//! What the machine takes for a commit's hops and forced writes without any protocol.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::transport::{Authority, Role, server_name};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::results::Floor;
use crate::cli::demo::start_child;
use crate::cli::signals::shutdown;

/// About as long as a vote.
const MESSAGE_BYTES: usize = 100;

/// How many round trips, and forced writes of each kind.
const ROUNDS: usize = 400;

/// How long the echo may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Message delays of a commit with a relay.
const HOPS: f64 = 4.0;

/// Sends back whatever comes (started by the benchmark).
#[derive(Debug, Args)]
pub(crate) struct EchoArguments {
    /// The folder of its certificate, into which it writes its address.
    #[arg(long)]
    folder: PathBuf,
}

pub(super) async fn measure(program: &Path, data: &Path) -> anyhow::Result<Floor> {
    let folder = tempfile::tempdir_in(data)?;
    let hop = hop(program, folder.path()).await?;
    let path = folder.path().to_owned();
    let writes = tokio::task::spawn_blocking(move || {
        let of = |count| forced(&path, count);
        anyhow::Ok((of(1)?, of(2)?, of(3)?))
    });
    let (one, two, three) = writes.await??;
    Ok(Floor {
        hop,
        fdatasync: one,
        commit: HOPS * hop + two + three,
    })
}

/// Half a round trip to another process over a stream that stays, in microseconds: the median.
async fn hop(program: &Path, folder: &Path) -> anyhow::Result<f64> {
    let authority = Authority::new("bench".parse()?)?;
    let issued = authority.issue(Role::Replica(ReplicaId(1)))?;
    issued.save(folder, "echo")?;
    let log = folder.join("echo.log");
    let flag = format!("--folder={}", folder.display());
    let child = start_child(program, &["bench-echo", &flag], &log)?;
    let address = folder.join("address");
    let began = Instant::now();
    let target: SocketAddr = loop {
        if let Ok(text) = std::fs::read_to_string(&address)
            && let Ok(target) = text.parse()
        {
            break target;
        }
        if began.elapsed() > PATIENCE {
            anyhow::bail!("the echo does not start: {}", child.last_words());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let name = server_name(&"bench".parse()?, ReplicaId(1));
    let connecting = endpoint.connect_with(client(&authority)?, target, &name)?;
    let (mut send, mut receive) = connecting.await?.open_bi().await?;
    let message = [7; MESSAGE_BYTES];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        send.write_all(&message).await?;
        receive.read_exact(&mut [0; MESSAGE_BYTES]).await?;
        times.push(began.elapsed());
        // As commits on an idle machine do: the next one finds everybody asleep.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    endpoint.close(0_u32.into(), b"done");
    child.stop().await?;
    Ok(median_us(&mut times) / 2.0)
}

/// Runs the other end.
pub(crate) async fn echo(arguments: EchoArguments) -> anyhow::Result<()> {
    let stop = shutdown(true)?;
    let endpoint =
        quinn::Endpoint::server(server(&arguments.folder)?, (Ipv4Addr::LOCALHOST, 0).into())?;
    let draft = arguments.folder.join("address.new");
    std::fs::write(&draft, endpoint.local_addr()?.to_string())?;
    std::fs::rename(&draft, arguments.folder.join("address"))?;
    let echoing = async {
        let incoming = endpoint.accept().await.context("the endpoint has ended")?;
        let (mut send, mut receive) = incoming.await?.accept_bi().await?;
        while let Some(chunk) = receive.read_chunk(64 * 1024, true).await? {
            send.write_all(&chunk.bytes).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        // The other end has had enough.
        _ = echoing => Ok(()),
        () = stop => Ok(()),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client(authority: &Authority) -> anyhow::Result<quinn::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        authority.certificate().as_bytes(),
    )?)?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = QuicClientConfig::try_from(tls)?;
    Ok(quinn::ClientConfig::new(Arc::new(tls)))
}

fn server(folder: &Path) -> anyhow::Result<quinn::ServerConfig> {
    let chain = CertificateDer::from_pem_file(folder.join("echo.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("echo.key"))?;
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    let tls = QuicServerConfig::try_from(tls)?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(tls)))
}

/// So many files are appended to and forced at the same time: until all are, in microseconds; the
/// median.
fn forced(folder: &Path, count: usize) -> anyhow::Result<f64> {
    let barrier = Arc::new(Barrier::new(count + 1));
    let (done, ended) = mpsc::channel();
    let mut writers = Vec::new();
    for index in 0..count {
        let path = folder.join(format!("floor-{count}-{index}"));
        let mut file = File::create(path)?;
        let (barrier, done) = (barrier.clone(), done.clone());
        writers.push(thread::spawn(move || -> std::io::Result<()> {
            for _ in 0..ROUNDS {
                barrier.wait();
                let written = file.write_all(&[7; MESSAGE_BYTES]);
                let _ = done.send(written.and_then(|()| file.sync_data()));
            }
            Ok(())
        }));
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        barrier.wait();
        let began = Instant::now();
        for _ in 0..count {
            ended.recv()??;
        }
        times.push(began.elapsed());
    }
    Ok(median_us(&mut times))
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
        * 1e6
}
