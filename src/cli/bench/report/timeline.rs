//! Latency over time, with what was done to the cluster.

use std::collections::BTreeSet;

use anyhow::Result;
use plotters::prelude::Color;

use super::super::plan::{Fault, Load};
use super::super::results::{End, Run, Sample};
use super::axis::{Axis, Panel};
use super::canvas::{Canvas, GREY, HEAD, LABEL, Point, TEXT, WIDTH};
use super::entry::{Entry, extremes, groups};
use super::picture::{Heading, MARGIN, Picture, Sign, slug};
use super::units;

const LEFT: i32 = 84;
const RIGHT: i32 = WIDTH - 24;
const PLOT_HEIGHT: i32 = 220;
const HEAD_HEIGHT: i32 = 26;
const MARK_LINE: i32 = 18;
/// Marks that find no place in so many lines have no label.
const MARK_LINES_MAX: usize = 3;
/// Of the seconds below a panel.
const FOOT: i32 = 44;
/// Above the slowest, for those that were never answered.
const NEVER_HEIGHT: i32 = 14;
/// Stalls that differ by less are no finding.
const ALIKE: f64 = 1.25;

/// The most points that are drawn of the usual ones; every slow one is, unless it covers another.
const POINTS_MAX: usize = 1_500;

const READING: &str = "Each point is one commit, at the time when it was asked for: the higher, the \
    longer it took, and what rises after a mark is what the fault did to those who wanted to commit.";

/// One for each fault and rate.
pub(super) fn pictures(entries: &[&Entry<'_>]) -> Result<Vec<Picture>> {
    let entries = entries.iter().copied();
    let faulty = entries.filter(|entry| {
        let is_open = matches!(entry.run.spec.load, Load::Rate(_));
        is_open && entry.fault() != Fault::None && !entry.run.samples.is_empty()
    });
    let groups = groups(faulty, |entry| {
        (entry.scenario.clone(), entry.run.spec.load)
    });
    let pictures = groups
        .iter()
        .map(|((scenario, load), group)| draw(scenario, *load, group));
    pictures.collect()
}

fn draw(scenario: &str, load: Load, group: &[&Entry<'_>]) -> Result<Picture> {
    let name = format!("latency-{}", slug(&format!("{scenario} {load}")));
    let heading = Heading {
        title: title(scenario, group),
        axes: format!(
            "Latency of each transaction, from when it should have begun (log scale), over time; load {load}"
        ),
        legend: legend(group),
    };
    let x = Axis::linear(seconds(group), (LEFT, RIGHT));
    let marks = group.iter().flat_map(|entry| placed(entry.run, &x));
    let lines = marks.map(|mark| mark.line + 1).max().unwrap_or(0);
    let above = HEAD_HEIGHT + lines as i32 * MARK_LINE + NEVER_HEIGHT;
    let panel_height = above + PLOT_HEIGHT + FOOT;
    let body = panel_height * group.len() as i32;
    let samples = group.iter().flat_map(|entry| &entry.run.samples);
    let answered = samples.filter(|sample| sample.end != End::Unresolved);
    let y = Axis::logarithmic(answered.map(latency), (0, 0));
    heading.paint(name, READING, body, |canvas, top| {
        for (entry, top) in group.iter().zip((top..).step_by(panel_height as usize)) {
            let bottom = top + above + PLOT_HEIGHT;
            let y = y.over((bottom, top + above));
            draw_panel(canvas, entry, top, &Panel { x: x.clone(), y })?;
        }
        Ok(())
    })
}

/// For how long the longest ran.
fn seconds(group: &[&Entry<'_>]) -> f64 {
    let lasted = group.iter().map(|entry| entry.run.lasted.as_secs_f64());
    lasted.fold(0.0, f64::max)
}

fn title(scenario: &str, group: &[&Entry<'_>]) -> String {
    let stall = |entry: &Entry| entry.summary.longest_stall_ms;
    let time = |entry: &Entry| units::time(stall(entry) * 1_000.0);
    match (extremes(group, stall), group) {
        (Some((high, low)), _) if stall(high) < ALIKE * stall(low) => {
            format!(
                "{scenario}: nobody is without a commit for more than {}",
                time(high)
            )
        }
        (Some((high, low)), _) => format!(
            "{scenario}: {} without a commit with {}, {} with {}",
            time(high),
            high.contender,
            time(low),
            low.contender
        ),
        (None, [one, ..]) => format!(
            "{scenario}: at most {} without a commit with {}",
            time(one),
            one.contender
        ),
        (None, []) => scenario.to_owned(),
    }
}

fn legend(group: &[&Entry<'_>]) -> Vec<(Sign, String)> {
    let ends = [
        (End::Aborted, Sign::Cross, "aborted"),
        (End::Unresolved, Sign::Triangle, "never answered"),
    ];
    let occurs = |end| group.iter().any(|entry| entry.run.count(end) > 0);
    let occurring = ends.into_iter().filter(|(end, _, _)| occurs(*end));
    occurring
        .map(|(_, sign, text)| (sign, text.to_owned()))
        .collect()
}

fn draw_panel(canvas: &Canvas<'_>, entry: &Entry<'_>, top: i32, panel: &Panel) -> Result<()> {
    let head = top + HEAD_HEIGHT / 2;
    canvas.bar([(MARGIN, head - 8), (MARGIN + 16, head + 8)], entry.colour)?;
    canvas.text(&entry.contender, (MARGIN + 26, head), HEAD)?;
    canvas.text(
        &counts(entry),
        (RIGHT, head),
        TEXT.coloured(GREY).at_right(),
    )?;
    panel.rows(canvas, &panel.y.times())?;
    panel.columns(canvas, &panel.x.numbers(" s"))?;
    for mark in placed(entry.run, &panel.x) {
        let y = panel.top() - NEVER_HEIGHT - 9 - mark.line as i32 * MARK_LINE;
        canvas.line(
            vec![(mark.x, y + 8), (mark.x, panel.y.pixel(0.0))],
            GREY.stroke_width(1),
        )?;
        if mark.line < MARK_LINES_MAX {
            canvas.text(mark.what, (mark.middle, y), LABEL.centred())?;
        }
    }
    draw_samples(canvas, entry, panel)
}

fn counts(entry: &Entry<'_>) -> String {
    let summary = &entry.summary;
    let ends = [
        (summary.committed, "committed"),
        (summary.aborted, "aborted"),
        (summary.unresolved, "never answered"),
    ];
    let occurring = ends.iter().filter(|(count, _)| *count > 0);
    let mut texts: Vec<String> = occurring
        .map(|(count, end)| format!("{} {end}", units::count(*count)))
        .collect();
    texts.push(format!(
        "p99 {}",
        units::time(summary.latency_us.p99 as f64)
    ));
    texts.join(", ")
}

fn latency(sample: &Sample) -> f64 {
    sample.latency_us.max(1) as f64
}

fn draw_samples(canvas: &Canvas<'_>, entry: &Entry<'_>, panel: &Panel) -> Result<()> {
    let run = entry.run;
    let at = |sample: &Sample| panel.point(sample.start_us as f64 / 1e6, latency(sample));
    let latencies = run.latencies();
    // In a long outage, those beyond the 99th percentile are but a part of the slow ones.
    let slow = latencies
        .value_at_quantile(0.99)
        .min(4 * latencies.value_at_quantile(0.5));
    let (slow, usual): (Vec<&Sample>, Vec<&Sample>) =
        of(run, End::Committed).partition(|sample| sample.latency_us >= slow);
    let every = usual.len().div_ceil(POINTS_MAX).max(1);
    for point in apart(usual.into_iter().step_by(every).map(at), 1) {
        canvas.dot(point, 2, entry.colour.mix(0.4))?;
    }
    for point in apart(slow.into_iter().map(at), 2) {
        canvas.dot(point, 2, entry.colour.mix(0.8))?;
    }
    for point in apart(
        of(run, End::Unresolved).map(|sample| (at(sample).0, panel.top() - NEVER_HEIGHT / 2)),
        10,
    ) {
        canvas.triangle(point)?;
    }
    for point in apart(of(run, End::Aborted).map(at), 10) {
        canvas.cross(point)?;
    }
    Ok(())
}

fn of(run: &Run, end: End) -> impl Iterator<Item = &Sample> {
    run.samples.iter().filter(move |sample| sample.end == end)
}

/// Without those that would cover another, in squares of that side.
fn apart(points: impl Iterator<Item = Point>, side: i32) -> Vec<Point> {
    let mut squares = BTreeSet::new();
    let points = points.filter(|(x, y)| squares.insert((x / side, y / side)));
    points.collect()
}

/// Where a mark goes.
struct Placed<'r> {
    what: &'r str,
    x: i32,
    /// Of the label; beside the line if that is near an end.
    middle: i32,
    /// How many labels are below it.
    line: usize,
}

/// The marks with a line for each label where it meets no other.
fn placed<'r>(run: &'r Run, x: &Axis) -> Vec<Placed<'r>> {
    let mut ends = [i32::MIN; MARK_LINES_MAX];
    let marks = run.marks.iter().map(|mark| {
        let half = LABEL.width(&mark.what) / 2;
        let x = x.pixel(mark.at.as_secs_f64());
        let middle = x.clamp(LEFT + half.min(400), RIGHT - half.min(400));
        let line = ends.iter().position(|end| *end < middle - half);
        if let Some(line) = line {
            ends[line] = middle + half + 6;
        }
        Placed {
            what: &mark.what,
            x,
            middle,
            line: line.unwrap_or(MARK_LINES_MAX),
        }
    });
    marks.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::results::Mark;
    use super::super::made::{Made, made};
    use super::*;

    #[test]
    fn labels_of_marks_close_to_each_other_stand_below_each_other() {
        let mut run = made(Made::default());
        let at = [0, 4_000, 4_100, 4_200, 4_300, 12_000];
        run.marks = at
            .map(|ms| Mark {
                at: Duration::from_millis(ms),
                what: "kill 1".to_owned(),
            })
            .to_vec();
        let marks = placed(&run, &Axis::linear(12.0, (LEFT, RIGHT)));
        let lines: Vec<usize> = marks.iter().map(|mark| mark.line).collect();
        assert_eq!(lines, [0, 0, 1, 2, MARK_LINES_MAX, 0]);
        assert!(
            marks
                .iter()
                .all(|mark| mark.middle > LEFT && mark.middle < RIGHT)
        );
    }

    #[test]
    fn points_that_cover_another_are_left_out() {
        let points = [(10, 10), (10, 10), (11, 10), (12, 10)];
        assert_eq!(apart(points.into_iter(), 1), [(10, 10), (11, 10), (12, 10)]);
        assert_eq!(apart(points.into_iter(), 2), [(10, 10), (12, 10)]);
    }
}
