//! For how long nobody could commit.

use anyhow::Result;
use plotters::prelude::WHITE;

use super::super::plan::{Fault, Load};
use super::axis::{Axis, Panel};
use super::canvas::{Canvas, HEAD, INK, LABEL, WIDTH};
use super::entry::{Entry, contenders, groups, names};
use super::picture::{Heading, MARGIN, Picture, Sign, colours};
use super::units;

const RIGHT: i32 = WIDTH - 110;
const BAR_HEIGHT: i32 = 20;
const BAR_STEP: i32 = 24;
/// Between scenarios.
const GAP: i32 = 14;
const FOOT: i32 = 36;

const READING: &str = "A bar is the longest time within which no transaction at all committed, on a \
    scale where the same step is always ten times as long; the stroke in it is the same without a \
    fault: what is beyond it is due to the fault.";

type Group<'e, 'r> = ((String, Load), Vec<&'e Entry<'r>>);

pub(super) fn picture(entries: &[&Entry<'_>]) -> Result<Option<Picture>> {
    let faulty = entries
        .iter()
        .copied()
        .filter(|entry| entry.fault() != Fault::None);
    let groups = groups(faulty, |entry| {
        (entry.scenario.clone(), entry.run.spec.load)
    });
    if groups.is_empty() {
        return Ok(None);
    }
    draw(&groups, entries).map(Some)
}

fn us(entry: &Entry<'_>) -> f64 {
    entry.summary.longest_stall_ms * 1_000.0
}

fn draw(groups: &[Group<'_, '_>], entries: &[&Entry<'_>]) -> Result<Picture> {
    let all: Vec<&Entry> = groups
        .iter()
        .flat_map(|(_, group)| group.iter().copied())
        .collect();
    let yardsticks: Vec<f64> = all
        .iter()
        .filter_map(|entry| entry.without_fault(entries))
        .map(us)
        .collect();
    let mut legend = colours(all.iter().copied());
    if !yardsticks.is_empty() {
        legend.push((Sign::Stroke, "the same without a fault".to_owned()));
    }
    let mut axes = "Longest time without a commit (log scale), for each fault".to_owned();
    let contenders = contenders(all.iter().copied()).len();
    if groups.iter().any(|(_, group)| group.len() < contenders) {
        axes += "; where there is no bar, there was no run";
    }
    let heading = Heading {
        title: title(&all),
        axes,
        legend,
    };
    let names = names(groups);
    let left = MARGIN
        + 12
        + names
            .iter()
            .map(|name| HEAD.width(name))
            .max()
            .unwrap_or(0)
            .min(360);
    let heights = groups
        .iter()
        .map(|(_, group)| group.len() as i32 * BAR_STEP + GAP);
    let height: i32 = heights.sum();
    heading.paint(
        "stalls".to_owned(),
        READING,
        height + FOOT,
        |canvas, top| {
            let values = all.iter().map(|entry| us(entry)).chain(yardsticks);
            let panel = Panel {
                x: Axis::logarithmic(values, (left, RIGHT)).starting_at_a_decade(),
                y: Axis::linear(1.0, (top + height, top)),
            };
            panel.columns(canvas, &panel.x.times())?;
            let mut y = top + GAP / 2;
            for (name, (_, group)) in names.iter().zip(groups) {
                let middle = y + group.len() as i32 * BAR_STEP / 2 - (BAR_STEP - BAR_HEIGHT) / 2;
                canvas.text(name, (left - 12, middle), HEAD.at_right())?;
                for entry in group {
                    draw_bar(canvas, entry, entry.without_fault(entries), &panel, y)?;
                    y += BAR_STEP;
                }
                y += GAP;
            }
            Ok(())
        },
    )
}

/// The worst that each of the contenders shows.
fn title(all: &[&Entry<'_>]) -> String {
    let worst = contenders(all.iter().copied())
        .into_iter()
        .filter_map(|contender| {
            let own = all
                .iter()
                .filter(|entry| entry.contender == contender.contender);
            let worst = own.max_by(|one, other| us(one).total_cmp(&us(other)))?;
            let Entry {
                contender,
                scenario,
                ..
            } = worst;
            Some(format!(
                "{} with {contender} ({scenario})",
                units::time(us(worst))
            ))
        });
    let worst: Vec<String> = worst.collect();
    format!("At worst, nobody could commit for {}", worst.join(", "))
}

fn draw_bar(
    canvas: &Canvas<'_>,
    entry: &Entry<'_>,
    yardstick: Option<&Entry<'_>>,
    panel: &Panel,
    top: i32,
) -> Result<()> {
    let bottom = top + BAR_HEIGHT;
    let mut end = panel.x.pixel(us(entry));
    canvas.bar([(panel.left(), top), (end, bottom)], entry.colour)?;
    if let Some(of) = yardstick {
        let x = panel.x.pixel(us(of));
        canvas.bar([(x - 3, top), (x + 3, bottom)], WHITE)?;
        canvas.bar([(x - 1, top - 1), (x + 1, bottom + 1)], INK)?;
        end = end.max(x);
    }
    let text = units::time(us(entry));
    canvas.text(&text, (end + 8, top + BAR_HEIGHT / 2), LABEL.coloured(INK))
}
