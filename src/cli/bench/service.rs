//! The participants of a run, as this process sees them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use paxos_commit::cluster::ChildProcess;
use paxos_commit::protocol::types::Branch;
use paxos_commit::wire::Sent;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::channel::{FromParticipant, ToParticipant, encode, read};
use super::plan::Kind;
use crate::cli::demo::start_child;

/// How long a participant may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that is written to a participant at once.
const ORDERS_MAX: usize = 512;

/// A participant, in a process of its own.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) branch: Branch,
    /// From where it dials the replicas.
    pub(super) address: SocketAddr,
    process: ChildProcess,
    orders: Orders,
}

/// What is said to one participant.
#[derive(Clone)]
pub(super) struct Orders(mpsc::UnboundedSender<Order>);

enum Order {
    Tell(ToParticipant),
    Count(oneshot::Sender<(Sent, u64)>),
}

/// Participants that were started, and where they report.
pub(super) struct Starting {
    listener: TcpListener,
    waiting: Vec<(String, ChildProcess)>,
}

impl Starting {
    pub(super) async fn new() -> anyhow::Result<Self> {
        Ok(Starting {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            waiting: Vec::new(),
        })
    }

    /// Starts one, with its log and its data in `folder`.
    pub(super) fn start(
        &mut self,
        program: &Path,
        name: String,
        kind: Kind,
        access: &Path,
        folder: &Path,
    ) -> anyhow::Result<()> {
        let kind = kind.to_possible_value().context("a kind has a name")?;
        let arguments = [
            "--log=info".to_owned(),
            "bench-participant".to_owned(),
            format!("--access={}", access.display()),
            format!("--data={}", folder.join(&name).display()),
            format!("--kind={}", kind.get_name()),
            format!("--load={}", self.listener.local_addr()?),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = folder.join(format!("{name}.log"));
        let child = start_child(program, &arguments, &log)?;
        self.waiting.push((name, child));
        Ok(())
    }

    /// Waits until each has connected to the cluster, and says so here.
    pub(super) async fn finish(mut self) -> anyhow::Result<Vec<Service>> {
        let order: Vec<String> = self.waiting.iter().map(|(name, _)| name.clone()).collect();
        let mut services = Vec::new();
        while !self.waiting.is_empty() {
            match timeout(PATIENCE, self.next()).await {
                Ok(service) => services.push(service?),
                Err(_) => bail!("participants do not connect: {}", self.last_words()),
            }
        }
        services.sort_by_key(|service| order.iter().position(|name| *name == service.name));
        Ok(services)
    }

    async fn next(&mut self) -> anyhow::Result<Service> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let (mut reading, writing) = stream.into_split();
        let Some(FromParticipant::Here { branch, port }) = read(&mut reading).await? else {
            bail!("a participant does not say who it is");
        };
        let name = branch.participant.as_str();
        let found = self.waiting.iter().position(|(waiting, _)| waiting == name);
        let found = found.with_context(|| format!("{name} was not expected"))?;
        let (name, process) = self.waiting.swap_remove(found);
        let (orders, given) = mpsc::unbounded_channel();
        tokio::spawn(command(reading, writing, given));
        Ok(Service {
            name,
            branch,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            process,
            orders: Orders(orders),
        })
    }

    fn last_words(&self) -> String {
        let of = self.waiting.iter();
        let words = of.map(|(name, child)| format!("{name}: {}", child.last_words()));
        words.collect::<Vec<String>>().join("; ")
    }
}

/// Tells a participant what to do, as much as there is in one go.
async fn command(
    mut reading: OwnedReadHalf,
    mut writing: OwnedWriteHalf,
    mut given: mpsc::UnboundedReceiver<Order>,
) -> anyhow::Result<()> {
    let (mut orders, mut buffer) = (Vec::new(), Vec::new());
    while given.recv_many(&mut orders, ORDERS_MAX).await > 0 {
        let mut asking = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Tell(frame) => encode(&frame, &mut buffer)?,
                Order::Count(answer) => {
                    encode(&ToParticipant::Count, &mut buffer)?;
                    asking.push(answer);
                }
            }
        }
        writing.write_all(&buffer).await?;
        buffer.clear();
        for answer in asking {
            if let Some(FromParticipant::Counted { sent, forced }) = read(&mut reading).await? {
                let _ = answer.send((sent, forced));
            }
        }
    }
    Ok(())
}

impl Orders {
    pub(super) fn tell(&self, what: ToParticipant) {
        // If it has fallen, the next count says so.
        let _ = self.0.send(Order::Tell(what));
    }
}

impl Service {
    pub(super) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// What it has sent, and its forced writes.
    pub(super) async fn counted(&self) -> anyhow::Result<(Sent, u64)> {
        let (answer, counted) = oneshot::channel();
        let _ = self.orders.0.send(Order::Count(answer));
        let counted = timeout(PATIENCE, counted).await.ok();
        counted
            .and_then(Result::ok)
            .with_context(|| format!("{} has fallen: {}", self.name, self.process.last_words()))
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let name = self.name;
        let stopped = self.process.stop().await;
        stopped.with_context(|| format!("{name} did not stop in order"))
    }
}
