//! What a higher load costs.

use anyhow::Result;
use plotters::prelude::Color;

use super::super::plan::{Fault, Load};
use super::super::results::Latency;
use super::axis::{Axis, Panel};
use super::canvas::{Canvas, Point, WIDTH};
use super::entry::{Entry, contenders, groups};
use super::picture::{Heading, Labels, Picture, Sign, colours, slug};
use super::units;

const LEFT: i32 = 84;
const RIGHT: i32 = WIDTH - 40;
const PLOT_HEIGHT: i32 = 400;
const FOOT: i32 = 40;

const READING: &str = "Each point is a run with that many transactions under way at a time: further \
    right is more commits a second, lower is faster, and where a curve turns upwards more load only \
    makes everybody wait.";

/// One for each scenario in which some contender ran with several concurrencies.
pub(super) fn pictures(entries: &[&Entry<'_>]) -> Result<Vec<Picture>> {
    let entries = entries.iter().copied();
    let closed =
        entries.filter(|entry| concurrency(entry).is_some() && entry.summary.committed > 0);
    let groups = groups(closed, |entry| (entry.scenario.clone(), entry.fault()));
    let pictures = groups.iter().filter_map(|((scenario, fault), group)| {
        let curves: Vec<Vec<&Entry>> = curves(group);
        (!curves.is_empty()).then(|| draw(scenario, *fault, &curves))
    });
    pictures.collect()
}

fn concurrency(entry: &Entry<'_>) -> Option<u64> {
    match entry.run.spec.load {
        Load::Concurrency(count) => Some(count),
        Load::Rate(_) | Load::SearchP99(_) => None,
    }
}

/// The runs of each contender that has several, by their concurrency.
fn curves<'e, 'r>(group: &[&'e Entry<'r>]) -> Vec<Vec<&'e Entry<'r>>> {
    let curves = groups(group.iter().copied(), |entry| entry.contender.clone());
    let curves = curves.into_iter().map(|(_, mut curve)| {
        curve.sort_by_key(|entry| concurrency(entry));
        curve
    });
    curves.filter(|curve| curve.len() > 1).collect()
}

fn draw(scenario: &str, fault: Fault, curves: &[Vec<&Entry<'_>>]) -> Result<Picture> {
    let all: Vec<&Entry> = curves.iter().flatten().copied().collect();
    let mut legend = colours(all.iter().copied());
    legend.push((Sign::Solid, "p50".to_owned()));
    legend.push((Sign::Dashed, "p99".to_owned()));
    let suffix = match fault == Fault::None {
        true => String::new(),
        false => format!(" ({scenario})"),
    };
    let heading = Heading {
        title: title(&all) + &suffix,
        axes: "Latency of commits (log scale) over commits a second; at each point, how many \
               transactions were under way at a time"
            .to_owned(),
        legend,
    };
    let name = format!("throughput-{}", slug(scenario));
    heading.paint(name, READING, PLOT_HEIGHT + FOOT, |canvas, top| {
        let high = all.iter().map(|entry| entry.summary.throughput_per_s);
        let high = high.filter(|high| high.is_finite()).fold(0.0, f64::max);
        let latencies = all.iter().map(|entry| entry.summary.latency_us);
        // With room for labels above and below.
        let latencies = latencies.flat_map(|of| [of.p50 as f64 / 1.2, of.p99 as f64 * 1.2]);
        let panel = Panel {
            x: Axis::linear(high * 1.05, (LEFT, RIGHT)),
            y: Axis::logarithmic(latencies, (top + PLOT_HEIGHT, top)),
        };
        draw_panel(canvas, curves, &panel)
    })
}

fn title(all: &[&Entry<'_>]) -> String {
    let best = contenders(all.iter().copied())
        .into_iter()
        .map(|contender| {
            let own = all
                .iter()
                .filter(|entry| entry.contender == contender.contender);
            let most = own
                .map(|entry| entry.summary.throughput_per_s)
                .fold(0.0, f64::max);
            format!("{} with {}", units::number(most, 0), contender.contender)
        });
    let best: Vec<String> = best.collect();
    format!("Most commits a second: {}", best.join(", "))
}

fn draw_panel(canvas: &Canvas<'_>, curves: &[Vec<&Entry<'_>>], panel: &Panel) -> Result<()> {
    panel.rows(canvas, &panel.y.times())?;
    panel.columns(canvas, &panel.x.numbers("/s"))?;
    let p50 = |of: Latency| of.p50;
    let p99 = |of: Latency| of.p99;
    let mut labels = Labels::default();
    for curve in curves {
        let style = curve[0].colour.stroke_width(2);
        let (median, slow) = (points(curve, panel, p50), points(curve, panel, p99));
        canvas.line(median.clone(), style)?;
        canvas.dashed(slow.clone(), style)?;
        for point in median.iter().chain(&slow) {
            canvas.dot(*point, 4, curve[0].colour.to_rgba())?;
        }
        let between = along(&median).into_iter().chain(along(&slow));
        between.for_each(|point| labels.keep_free(point));
    }
    for curve in curves {
        for of in [p50, p99] {
            for (entry, point) in curve.iter().zip(points(curve, panel, of)) {
                let text = concurrency(entry).map_or(String::new(), units::count);
                labels.write(canvas, &text, point, entry.colour)?;
            }
        }
    }
    Ok(())
}

fn points(curve: &[&Entry<'_>], panel: &Panel, latency: impl Fn(Latency) -> u64) -> Vec<Point> {
    let point = |entry: &&Entry| {
        let us = latency(entry.summary.latency_us) as f64;
        panel.point(entry.summary.throughput_per_s, us)
    };
    curve.iter().map(point).collect()
}

/// Points every few pixels on the lines from one to the next.
fn along(points: &[Point]) -> Vec<Point> {
    const STEPS: i32 = 100;
    let lines = points.windows(2).map(|ends| (ends[0], ends[1]));
    let steps = lines.flat_map(|((x, y), (to_x, to_y))| {
        (0..=STEPS).map(move |step| (x + (to_x - x) * step / STEPS, y + (to_y - y) * step / STEPS))
    });
    steps.collect()
}
