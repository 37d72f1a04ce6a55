//! Latency over time.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use plotters::prelude::*;

use super::load::{End, Moved};
use super::measure::Event;

const SIZE: (u32, u32) = (1_200, 600);

/// The most points that are drawn of the usual ones; every slow one is.
const POINTS_MAX: usize = 20_000;

/// Draws every commit as a point, on a logarithmic scale, with a line for each event.
pub(super) fn draw(
    path: &Path,
    moved: &[Moved],
    events: &[Event],
    duration: Duration,
) -> anyhow::Result<()> {
    let committed = moved.iter().filter(|moved| moved.end == End::Committed);
    let point = |moved: &Moved| {
        let latency_ms = moved.latency.as_secs_f64() * 1_000.0;
        (moved.at.as_secs_f64(), latency_ms.max(0.01))
    };
    let points: Vec<(f64, f64)> = committed.map(point).collect();
    let latencies = || points.iter().map(|(_, latency)| *latency);
    let low = latencies().fold(1.0, f64::min) / 1.5;
    let high = latencies().fold(10.0, f64::max) * 2.0;
    let slow = {
        let mut sorted: Vec<f64> = latencies().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(0.0)
    };
    let every = points.len().div_ceil(POINTS_MAX).max(1);
    let drawn = points.iter().enumerate();
    let drawn = drawn.filter(|(index, (_, latency))| index % every == 0 || *latency >= slow);

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: String| anyhow!("cannot draw {}: {error}", path.display());
    area.fill(&WHITE)
        .map_err(|error| failed(error.to_string()))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Commit latency, one point for each transfer",
            ("sans-serif", 22),
        )
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..duration.as_secs_f64(), (low..high).log_scale())
        .map_err(|error| failed(error.to_string()))?;
    chart
        .configure_mesh()
        .x_desc("seconds since the start")
        .y_desc("milliseconds from asking for commit to the outcome")
        .y_label_formatter(&|latency| format!("{latency:.2}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    let points = drawn.map(|(_, point)| Circle::new(*point, 2, BLUE.mix(0.5).filled()));
    chart
        .draw_series(points)
        .map_err(|error| failed(error.to_string()))?;
    for (index, event) in events.iter().enumerate() {
        let x = event.at.as_secs_f64();
        chart
            .draw_series(LineSeries::new([(x, low), (x, high)], RED.stroke_width(2)))
            .map_err(|error| failed(error.to_string()))?;
        // One below the other, so that neighbours can be read.
        let y = high / 1.2_f64.powi(index as i32 + 1);
        let text = Text::new(
            event.what,
            (x, y),
            ("sans-serif", 15).into_font().color(&RED),
        );
        chart
            .draw_series([text])
            .map_err(|error| failed(error.to_string()))?;
    }
    area.present().map_err(|error| failed(error.to_string()))
}
