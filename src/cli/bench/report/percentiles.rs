//! How slow the slowest are: a panel for each scenario.

use anyhow::Result;
use plotters::prelude::Color;

use super::super::plan::Load;
use super::axis::{Axis, Panel};
use super::canvas::{Canvas, HEAD, Point, WIDTH};
use super::entry::{Entry, extremes, groups, names};
use super::picture::{Heading, MARGIN, Picture, colours};
use super::units;

const PLOT_HEIGHT: i32 = 160;
/// Panels beside each other.
const COLUMNS_MAX: usize = 3;
/// The name of the scenario above its panel, and the percentiles below.
const HEAD_HEIGHT: i32 = 34;
const FOOT: i32 = 36;
/// The times at the left of a panel.
const TIMES_WIDTH: i32 = 68;

/// Half of all are beyond it, one in ten, one in a hundred, and so on.
const TICKS: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.1, "p90"),
    (0.01, "p99"),
    (0.001, "p99.9"),
    (0.0001, "p99.99"),
];

const READING: &str = "A curve tells how long a commit takes at each percentile (at p99, one in a \
    hundred takes longer); it ends where there are too few commits for more, lower is better, and a \
    curve that stays flat to the right has no slow ones.";

type Group<'e, 'r> = ((String, Load), Vec<&'e Entry<'r>>);

/// One for a cluster with nothing else to do, which needs axes of its own, and one for a steady load.
pub(super) fn pictures(entries: &[&Entry<'_>]) -> Result<Vec<Picture>> {
    let is_idle = |load| load == Load::Concurrency(1);
    let is_steady = |load| matches!(load, Load::Rate(_));
    let idle = picture(
        "percentiles-idle",
        "One transaction at a time",
        entries,
        is_idle,
    );
    let steady = picture("percentiles", "Steady load", entries, is_steady);
    let pictures = [idle, steady].into_iter().filter_map(Result::transpose);
    pictures.collect()
}

fn picture(
    file: &str,
    subject: &str,
    entries: &[&Entry<'_>],
    is_meant: impl Fn(Load) -> bool,
) -> Result<Option<Picture>> {
    let entries = entries.iter().copied();
    // One commit makes no curve.
    let drawn =
        entries.filter(|entry| is_meant(entry.run.spec.load) && entry.summary.committed > 1);
    let groups = groups(drawn, |entry| (entry.scenario.clone(), entry.run.spec.load));
    if groups.is_empty() {
        return Ok(None);
    }
    draw(file, subject, &groups).map(Some)
}

fn draw(file: &str, subject: &str, groups: &[Group<'_, '_>]) -> Result<Picture> {
    let all = || groups.iter().flat_map(|(_, group)| group.iter().copied());
    let heading = Heading {
        title: title(subject, groups),
        axes: "Latency of commits (log scale) at each percentile".to_owned(),
        legend: colours(all()),
    };
    let count = groups.len().min(COLUMNS_MAX);
    let width = (WIDTH - 2 * MARGIN) / count as i32;
    let height = HEAD_HEIGHT + PLOT_HEIGHT + FOOT;
    let body = height * groups.len().div_ceil(count) as i32 + 8;
    let ends = all().flat_map(|entry| curve(entry).into_iter().map(|(_, us)| us));
    let y = Axis::logarithmic(ends, (0, 0));
    heading.paint(file.to_owned(), READING, body, |canvas, top| {
        let places = (0..groups.len()).map(|index| {
            let (row, column) = ((index / count) as i32, (index % count) as i32);
            (MARGIN + column * width, top + row * height)
        });
        let names = names(groups);
        for ((name, (_, group)), (left, top)) in names.iter().zip(groups).zip(places) {
            let top = top + HEAD_HEIGHT;
            let pixels = (left + TIMES_WIDTH, left + width - 22);
            let panel = Panel {
                x: Axis::between(nines(TICKS[0].0), nines(TICKS[4].0), pixels),
                y: y.over((top + PLOT_HEIGHT, top)),
            };
            canvas.text(name, (panel.left(), top - 16), HEAD)?;
            draw_panel(canvas, group, &panel)?;
        }
        Ok(())
    })
}

/// Where the contenders differ most.
fn title(subject: &str, groups: &[Group<'_, '_>]) -> String {
    let p99 = |entry: &Entry| entry.summary.latency_us.p99 as f64;
    let pairs = groups.iter().zip(names(groups));
    let pairs = pairs.filter_map(|((_, group), name)| Some((extremes(group, p99)?, name)));
    let ratio = |((high, low), _): &((&Entry, &Entry), String)| p99(high) / p99(low).max(1.0);
    let widest = pairs.max_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let Some(((high, low), name)) = widest else {
        return format!("{subject}: percentiles of latency");
    };
    let which = match groups.len() {
        1 => "p99 is".to_owned(),
        _ => format!("p99 differs most under {name},"),
    };
    format!(
        "{subject}: {which} {} with {}, {} with {}",
        units::time(p99(high)),
        high.contender,
        units::time(p99(low)),
        low.contender
    )
}

/// The place of a percentile: 1 for 90, 2 for 99, 3 for 99.9.
fn nines(beyond: f64) -> f64 {
    -beyond.log10()
}

/// Places of percentiles, and the latency there.
fn curve(entry: &Entry<'_>) -> Vec<(f64, f64)> {
    const STEPS: u32 = 200;
    let latencies = entry.run.latencies();
    let (first, last) = (nines(0.5), nines(TICKS[4].0));
    let last = last.min((latencies.len() as f64).log10()).max(first);
    let places =
        (0..=STEPS).map(|step| first + (last - first) * f64::from(step) / f64::from(STEPS));
    let latency = |place: f64| {
        latencies
            .value_at_quantile(1.0 - 10_f64.powf(-place))
            .max(1)
    };
    places.map(|place| (place, latency(place) as f64)).collect()
}

fn draw_panel(canvas: &Canvas<'_>, group: &[&Entry<'_>], panel: &Panel) -> Result<()> {
    let ticks = TICKS.map(|(beyond, name)| (nines(beyond), name.to_owned()));
    panel.rows(canvas, &panel.y.times())?;
    panel.columns(canvas, &ticks)?;
    for (index, entry) in group.iter().enumerate() {
        // Who is drawn first is wider, to be seen below the next where they are the same.
        let width = if index == 0 && group.len() > 1 { 4 } else { 2 };
        let curve = curve(entry).into_iter();
        let points: Vec<Point> = curve.map(|(place, us)| panel.point(place, us)).collect();
        canvas.line(points, entry.colour.stroke_width(width))?;
    }
    Ok(())
}
