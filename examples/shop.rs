//! Two HTTP services and a shop: a sale takes a lamp from the stock and money from the customer, or
//! neither.
//!
//! ```text
//! cargo run --example shop
//!
//! shop ── POST /take/carol/60   x-transaction: ID ──▶ payments   (200, x-ticket: A)
//!      ── POST /take/lamp/1     x-transaction: ID ──▶ stock      (200, x-ticket: B)
//!      ── enlist A and B, commit ──▶ replicas
//! ```
//!
//! A service does its work as soon as it is called, under the transaction's id that came with the
//! call; what it changed is locked, and nobody sees it. With its answer it hands back a *ticket*,
//! which says: this session works under this transaction. The shop enlists the tickets and asks for
//! commit; from then on replicas and services see to it that all of it happens, or nothing.
//!
//! The two headers are all that the services' HTTP needs to know of Paxos Commit.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::{self, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, routing::post};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Outcome, Transaction};
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::TxnId;
use paxos_commit::resource::embedded::{Embedded, Options, Work, WorkError};
use tokio::net::TcpListener;
use tokio::time::sleep;

const TRANSACTION: &str = "x-transaction";
const TICKET: &str = "x-ticket";

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = LocalCluster::start(3).await?;
    let dir = tempfile::tempdir()?;
    let payments = Service::start(&cluster, dir.path(), "payments").await?;
    let stock = Service::start(&cluster, dir.path(), "stock").await?;
    let builder = Initiator::builder(cluster.initiator("shop")?);
    let shop = Shop {
        initiator: builder.connect().await?,
        http: Client::builder(TokioExecutor::new()).build_http(),
        payments: payments.address,
        stock: stock.address,
    };

    println!("There is one lamp, for 60; Carol and Dave have 100 each, and both want it.");
    payments.set("carol", 100).await?;
    payments.set("dave", 100).await?;
    stock.set("lamp", 1).await?;
    println!("Carol orders: {}.", shop.order("lamp", 60, "carol").await);
    println!("Dave orders: {}.", shop.order("lamp", 60, "dave").await);

    // In order, so that what was decided is also applied.
    let grace = Duration::from_secs(5);
    shop.initiator.shutdown(grace).await;
    payments.participant.shutdown(grace).await;
    stock.participant.shutdown(grace).await;
    let lamps = stock.get("lamp")?;
    let (carol, dave) = (payments.get("carol")?, payments.get("dave")?);
    println!("{lamps} lamps are left; Carol has {carol}, and Dave has {dave}.");
    assert_eq!((lamps, carol, dave), (0, 40, 100));
    Ok(())
}

/// A row that is needed is locked: by a sale under way, or one whose commit is just being applied.
#[derive(Debug, thiserror::Error)]
#[error("somebody else is being served")]
struct Busy;

/// The front end. (In a real shop this, too, is called over HTTP.)
struct Shop {
    initiator: Initiator,
    http: Client<HttpConnector, Body>,
    payments: SocketAddr,
    stock: SocketAddr,
}

impl Shop {
    /// What the customer is told. Tries again while another sale is in the way, for milliseconds.
    async fn order(&self, item: &str, price: u64, customer: &str) -> String {
        loop {
            match self.sell(item, price, customer).await {
                Ok(()) => return "sold".into(),
                Err(error) if error.is::<Busy>() => sleep(Duration::from_millis(10)).await,
                Err(error) => return format!("sorry, {error}"),
            }
        }
    }

    /// One transaction.
    async fn sell(&self, item: &str, price: u64, customer: &str) -> Result<()> {
        let mut txn = self.initiator.begin().await?;
        // Whoever returns early drops the transaction, and its branches let go of their work.
        self.take(&mut txn, self.payments, customer, price).await?;
        self.take(&mut txn, self.stock, item, 1).await?;
        match txn.commit().await? {
            Outcome::Committed => Ok(()),
            Outcome::Aborted(reason) => bail!("{reason}"),
        }
    }

    /// Has a service work under the transaction, and enlists it.
    async fn take(&self, txn: &mut Transaction, at: SocketAddr, row: &str, sum: u64) -> Result<()> {
        let call = Request::post(format!("http://{at}/take/{row}/{sum}"));
        let call = call.header(TRANSACTION, txn.id().to_string());
        let answer = self.http.request(call.body(Body::empty())?).await?;
        ensure!(answer.status() != StatusCode::SERVICE_UNAVAILABLE, Busy);
        let Some(ticket) = answer.headers().get(TICKET) else {
            let why = to_bytes(Body::new(answer.into_body()), 1_000).await?;
            bail!("{}", String::from_utf8_lossy(&why));
        };
        txn.enlist(ticket.to_str()?.parse()?)?;
        Ok(())
    }
}

/// A service: it keeps numbers, and takes from them. Those of `stock` are pieces, those of
/// `payments` money.
#[derive(Clone)]
struct Service {
    address: SocketAddr,
    store: Embedded,
    participant: Participant,
}

impl Service {
    async fn start(cluster: &LocalCluster, dir: &Path, name: &str) -> Result<Service> {
        let store = Embedded::open(dir.join(name), Options::new())?;
        let participant = Participant::builder(cluster.participant(name)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let service = Service {
            address: listener.local_addr()?,
            participant: participant.connect(store.clone()).await?,
            store,
        };
        let router = Router::new().route("/take/{row}/{sum}", post(take));
        let router = router.with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(service)
    }

    async fn set(&self, row: &str, left: u64) -> Result<()> {
        let set = self.store.local(|work| work.put(row, left.to_string()));
        Ok(set.await?)
    }

    fn get(&self, row: &str) -> Result<u64> {
        parse(self.store.read(row)?)
    }
}

/// Works under the caller's transaction; the answer carries the ticket.
async fn take(
    State(service): State<Service>,
    extract::Path((row, sum)): extract::Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<[(&'static str, String); 1], (StatusCode, String)> {
    let txn = transaction(&headers).map_err(refuse)?;
    let branch = service.participant.branch(txn).await;
    let branch = branch.map_err(|error| refuse(error.into()))?;
    if let Err(error) = subtract(&service.store.work(&branch), &row, sum) {
        // Lets go at once; if commit is asked for all the same, the vote is to abort.
        branch.rollback().await;
        return Err(refuse(error));
    }
    Ok([(TICKET, branch.ticket().to_string())])
}

/// Who may try again is told so.
fn refuse(error: anyhow::Error) -> (StatusCode, String) {
    let status = match error.downcast_ref() {
        Some(WorkError::Conflict { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        Some(_) | None => StatusCode::CONFLICT,
    };
    (status, error.to_string())
}

fn transaction(headers: &HeaderMap) -> Result<TxnId> {
    let id = headers.get(TRANSACTION).map(|id| id.to_str()).transpose()?;
    Ok(id.unwrap_or_default().parse()?)
}

fn subtract(work: &Work, row: &str, sum: u64) -> Result<()> {
    let left = parse(work.get(row)?)?;
    ensure!(left >= sum, "{sum} of {row} wanted, {left} there");
    work.put(row, (left - sum).to_string())?;
    Ok(())
}

fn parse(found: Option<Vec<u8>>) -> Result<u64> {
    Ok(String::from_utf8(found.unwrap_or_default())?.parse()?)
}
