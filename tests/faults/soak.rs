//! All of it at once, for long: memory and disk of every process are looked at, and must be flat.
//!
//! `FAULT_SECONDS=1800 FAULT_REPORT=DIR cargo test --release --test faults soak -- --nocapture`
//! leaves the curves in `DIR/soak.svg`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;
use tokio::time::Instant;

use crate::harness::adversary::{NETWORK, PROCESSES, summary};
use crate::harness::gauges::{Curves, Sample};
use crate::harness::{Adversary, Arena, Knobs, Options};
use crate::membership::Operator;

/// How long a generation lasts, in a run of this length: many of them, and in a long run long enough
/// for what is slow.
fn tuning(duration: Duration) -> String {
    let period_s = (duration.as_secs() / 20).clamp(2, 30);
    format!("generation_period_s = {period_s}\ngrace_s = 1")
}

/// Nothing is said of a growth before.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let knobs = Knobs::new(Duration::from_secs(10));
    let options = Options {
        tuning: tuning(knobs.duration),
        rate: 100,
        ..Options::default()
    };
    let mut arena = Arena::start(&knobs, options).await;
    let menu = [PROCESSES, NETWORK].concat();
    // In a long run there is time between them: generations have to turn, too.
    let pause_ms = match knobs.duration >= LONG {
        true => 500..3_000,
        false => 0..300,
    };
    let mut adversary = Adversary::new(knobs.rng(), &menu).pausing(pause_ms);
    let mut operator = Operator::new(knobs.rng());
    let end = Instant::now() + knobs.duration;
    while Instant::now() < end {
        adversary.step(&mut arena).await;
        operator.step(&mut arena, &mut adversary).await;
    }
    operator.finish(&mut arena, &mut adversary).await;
    let curves = std::mem::take(&mut arena.gauges.curves);
    let datagrams = arena.datagrams();
    let audit = arena.finish().await;
    println!("{}; {datagrams:?}", summary(adversary.done(), &audit));
    let folder = env::var_os("FAULT_REPORT").map_or_else(env::temp_dir, PathBuf::from);
    let path = folder.join("soak.svg");
    draw(&path, &curves).unwrap();
    println!("memory and disk: {}", path.display());
    if knobs.duration >= LONG {
        flat(&curves);
    }
}

/// What was there in the last third is not much more than what was there in the one before.
fn flat(curves: &Curves) {
    let replicas = curves
        .iter()
        .filter(|(name, _)| name.starts_with("replica"));
    let all: Vec<Sample> = replicas.flat_map(|(_, curve)| curve.clone()).collect();
    let end = all.iter().map(|sample| sample.at_s).fold(0.0, f64::max);
    let most = |from: f64, to: f64, of: fn(&Sample) -> f64| {
        let within = all
            .iter()
            .filter(|sample| sample.at_s >= from && sample.at_s < to);
        within.map(of).fold(0.0, f64::max)
    };
    for (what, of) in [
        (
            "memory",
            (|sample: &Sample| sample.memory_mb) as fn(&Sample) -> f64,
        ),
        ("disk", |sample| sample.disk_mb),
    ] {
        let before = most(end / 3.0, end * 2.0 / 3.0, of);
        let after = most(end * 2.0 / 3.0, f64::MAX, of);
        println!(
            "{what} of a replica, at most: {before:.0} MB in the second third, then {after:.0} MB"
        );
        assert!(after < before * 1.5 + 20.0, "{what} grows");
    }
}

/// Memory above, disk below, a line for each process.
fn draw(path: &Path, curves: &Curves) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (1_200, 900)).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(450);
    let panels = [
        (
            above,
            "Resident memory, MB",
            (|sample: &Sample| sample.memory_mb) as fn(&Sample) -> f64,
        ),
        (below, "Data directory, MB", |sample| sample.disk_mb),
    ];
    let samples = || curves.values().flatten();
    let end = samples().map(|sample| sample.at_s).fold(1.0, f64::max);
    for (panel, caption, of) in panels {
        let high = samples().map(of).fold(1.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(&panel)
            .caption(caption, ("sans-serif", 20))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..high)?;
        chart
            .configure_mesh()
            .x_desc("seconds since the start")
            .light_line_style(WHITE)
            .draw()?;
        for (index, (name, curve)) in curves.iter().enumerate() {
            let color = match name.split_once('-') {
                Some(("replica", _)) => BLUE.mix(0.8),
                Some(("ledger", _)) => RED.mix(0.8),
                _ => GREEN.mix(0.8),
            };
            let points = curve.iter().map(|sample| (sample.at_s, of(sample)));
            let series = LineSeries::new(points, color.stroke_width(1 + index as u32 % 2));
            chart.draw_series(series)?;
        }
        let legend = "blue: replicas, red: ledgers, green: initiators";
        let at = (end * 0.02, high * 0.95);
        chart.draw_series([Text::new(legend, at, ("sans-serif", 15))])?;
    }
    area.present()?;
    Ok(())
}
