//! One run, from its first process to its last.

use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use paxos_commit::cluster::Weather;
use tokio::time::sleep_until;

use super::counting::Counting;
use super::fault::Harm;
use super::load::{Application, Span};
use super::plan::{Fault, Load, Prepare, Spec};
use super::regions;
use super::results::{End, Run, Sample};
use super::scene::{Scene, Setting};

/// The load runs for so long before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long what is left may take before the processes are counted.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// How long each datagram takes where message delays are counted: so long that all else is little.
const SLOW_HOP: Duration = Duration::from_millis(25);

/// How many commits are looked at there.
const SLOW_COMMITS: Duration = Duration::from_millis(1_500);

/// Where the search for the highest rate begins, and where it ends at the latest.
const RATE_MIN: u64 = 250;
const RATE_MAX: u64 = 1_000_000;

/// How often the span in which it lies is halved.
const HALVINGS: u32 = 4;

/// How long each rate is tried.
const TRIAL: Duration = Duration::from_secs(3);

/// Runs one.
pub(super) async fn run(setting: &Setting, spec: &Spec, bar: &ProgressBar) -> anyhow::Result<Run> {
    let mut scene = setting.start(spec).await?;
    let application = application(&scene, spec);
    let mut spec = spec.clone();
    if let Load::SearchP99(bound) = spec.load {
        spec.load = Load::Rate(search(&application, bound, bar).await);
    }
    let span = Span::from_now(WARM_UP, spec.duration);
    let mut counting = Counting::default();
    let harming = async {
        sleep_until(span.start).await;
        counting = Counting::begin(&mut scene).await?;
        let harm = Harm {
            scene: &mut scene,
            counting: &mut counting,
            start: span.start,
            duration: spec.duration,
            marks: Vec::new(),
        };
        harm.run(spec.fault).await
    };
    let loading = load(&application, spec.load, span);
    let both = async { tokio::join!(loading, harming) };
    let (samples, marks) = tokio::select! {
        both = both => both,
        () = application.show(span, bar) => unreachable!("it is shown for ever"),
    };
    let marks = marks?;
    scene.wait_until_quiet(QUIET_MAX).await;
    counting.add(&mut scene).await?;
    scene.stop().await?;
    Ok(Run {
        lasted: spec.duration,
        counts: counting.counts(),
        message_delays: None,
        spec,
        samples,
        marks,
    })
}

fn application(scene: &Scene, spec: &Spec) -> std::sync::Arc<Application> {
    // What the application itself says to the participants does not go through the relays.
    let hop_to = |number| match spec.fault {
        Fault::Wan => regions::distance(regions::INITIATOR, regions::region(number)),
        _ => Duration::ZERO,
    };
    Application::new(scene, spec.prepare, hop_to)
}

async fn load(application: &std::sync::Arc<Application>, load: Load, span: Span) -> Vec<Sample> {
    match load {
        Load::Rate(rate) => application.open_loop(rate, span).await,
        Load::Concurrency(count) => application.closed_loop(count, span).await,
        Load::SearchP99(_) => unreachable!("the rate was found before"),
    }
}

/// The highest rate at which nothing is aborted or left and the 99th percentile keeps below `bound`;
/// if there is none, the lowest that was tried.
async fn search(
    application: &std::sync::Arc<Application>,
    bound: Duration,
    bar: &ProgressBar,
) -> u64 {
    let (mut good, mut bad) = (RATE_MIN, RATE_MAX);
    let mut rate = 2 * RATE_MIN;
    let mut halvings = 0;
    while halvings < HALVINGS && rate < RATE_MAX {
        bar.println(format!("trying {rate}/s"));
        let span = Span::from_now(WARM_UP / 2, TRIAL);
        let samples = application.open_loop(rate, span).await;
        let mut latencies: Vec<u64> = samples.iter().map(|sample| sample.latency_us).collect();
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100);
        let is_good = samples.iter().all(|sample| sample.end == End::Committed)
            && p99.is_some_and(|p99| u128::from(*p99) <= bound.as_micros());
        match is_good {
            true => good = rate,
            false => bad = rate,
        }
        rate = match bad {
            RATE_MAX => 2 * rate,
            _ => {
                halvings += 1;
                good.midpoint(bad)
            }
        };
    }
    good
}

/// How many messages one after the other a commit takes: over relays that delay every datagram by
/// the same time, its latency divided by that.
pub(super) async fn message_delays(setting: &Setting, spec: &Spec) -> anyhow::Result<u32> {
    let spec = Spec {
        fault: Fault::None,
        load: Load::Concurrency(1),
        relayed: true,
        ..spec.clone()
    };
    let mut scene = setting.start(&spec).await?;
    let slow = Weather {
        delay: SLOW_HOP,
        ..Weather::default()
    };
    scene.set_weather(&slow)?;
    let hop = match spec.prepare {
        Prepare::Relay => Duration::ZERO,
        Prepare::Spontaneous => SLOW_HOP,
    };
    let application = Application::new(&scene, spec.prepare, |_| hop);
    let span = Span::from_now(SLOW_COMMITS, SLOW_COMMITS);
    let samples = application.closed_loop(1, span).await;
    scene.set_weather(&Weather::default())?;
    scene.stop().await?;
    // The fastest: none can take less, and what keeps the others is not the network.
    let fastest = samples.iter().map(|sample| sample.latency_us).min();
    let fastest = fastest.context("no transaction came to its end over the slow network")?;
    Ok((fastest / SLOW_HOP.as_micros() as u64) as u32)
}
