//! `/metrics`, `/livez` and `/readyz` of a replica, for Prometheus and for whatever starts and
//! watches processes.
//!
//! There is no TLS and no password: listen where only those can come who may know.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use paxos_commit::replica::describe_metrics;
use tokio::net::TcpListener;

use super::replica::Health;

/// From a fast disk to one that is about to end the process.
const SAVE_SECONDS: [f64; 11] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0,
];

/// From one turn at a time to as many as ever wait.
const SAVE_JOBS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

/// How often the recorder tidies up what was recorded into histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Listens, and answers from now on. Whatever this process counts before is not seen.
pub(super) async fn start(address: SocketAddr, health: Health) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("http: cannot listen on {address}"))?;
    let full = |name: &str| Matcher::Full(name.into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(full("paxos_commit_save_seconds"), &SAVE_SECONDS)?
        .set_buckets_for_metric(full("paxos_commit_save_jobs"), &SAVE_JOBS)?
        .build_recorder();
    let metrics = recorder.handle();
    metrics::set_global_recorder(recorder).context("a second recorder of metrics")?;
    describe_metrics();
    let tidied = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            tidied.run_upkeep();
        }
    });

    let as_text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let router = Router::new()
        .route("/metrics", get(async move || (as_text, metrics.render())))
        // To answer at all, the process must turn.
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async move || ready(&health)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    tracing::info!(%address, "http");
    Ok(())
}

fn ready(health: &Health) -> (StatusCode, String) {
    match &*health.borrow() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
