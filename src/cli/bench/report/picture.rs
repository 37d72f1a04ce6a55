//! What all pictures have in common.

use anyhow::Result;
use plotters::prelude::{Color, RGBColor};

use super::canvas::{Canvas, GREY, INK, LABEL, Point, TEXT, TITLE, WIDTH, paint};
use super::entry::{Entry, contenders};

/// Where text begins.
pub(super) const MARGIN: i32 = 16;

const TITLE_LINE: i32 = 28;
const LEGEND_LINE: i32 = 24;
/// The room that a sign takes, with the space up to its text.
const SIGN_WIDTH: i32 = 34;

/// A finished picture.
#[derive(Debug)]
pub(super) struct Picture {
    /// The name of its file, without `.svg`.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    /// How it is to be read, in one sentence.
    pub(super) reading: &'static str,
    pub(super) svg: String,
}

/// What stands above the panels.
#[derive(Debug)]
pub(super) struct Heading {
    pub(super) title: String,
    /// What points and axes are.
    pub(super) axes: String,
    pub(super) legend: Vec<(Sign, String)>,
}

/// What a legend explains.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sign {
    Swatch(RGBColor),
    Solid,
    Dashed,
    Cross,
    Triangle,
    Stroke,
}

/// The colours of the contenders.
pub(super) fn colours<'e, 'r: 'e>(
    entries: impl IntoIterator<Item = &'e Entry<'r>>,
) -> Vec<(Sign, String)> {
    let contenders = contenders(entries).into_iter();
    let sign = |entry: &Entry| (Sign::Swatch(entry.colour), entry.contender.clone());
    contenders.map(sign).collect()
}

/// Turned into a file's name.
pub(super) fn slug(text: &str) -> String {
    let words = text.split(|of: char| !of.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

impl Heading {
    /// Draws it with `body` pixels below, which `draw` fills from its argument on.
    pub(super) fn paint(
        self,
        name: String,
        reading: &'static str,
        body: i32,
        draw: impl FnOnce(&Canvas<'_>, i32) -> Result<()>,
    ) -> Result<Picture> {
        let lines = wrap(&self.title);
        let (places, legend_height) = self.places();
        let axes_at = MARGIN + lines.len() as i32 * TITLE_LINE + 8;
        let legend_at = axes_at + 14;
        let top = legend_at + legend_height + 8;
        let svg = paint(top + body, |canvas| {
            for (line, y) in lines
                .iter()
                .zip((MARGIN + 10..).step_by(TITLE_LINE as usize))
            {
                canvas.text(line, (MARGIN, y), TITLE)?;
            }
            canvas.text(&self.axes, (MARGIN, axes_at), TEXT.coloured(GREY))?;
            for ((sign, text), (x, y)) in self.legend.iter().zip(places) {
                sign.draw(canvas, (x, legend_at + y))?;
                canvas.text(text, (x + SIGN_WIDTH, legend_at + y), TEXT)?;
            }
            draw(canvas, top)
        })?;
        let title = self.title;
        Ok(Picture {
            name,
            title,
            reading,
            svg,
        })
    }

    /// Where the signs of the legend go, and its height.
    fn places(&self) -> (Vec<Point>, i32) {
        let (mut x, mut y) = (MARGIN, LEGEND_LINE / 2);
        let mut places = Vec::new();
        for (_, text) in &self.legend {
            let width = SIGN_WIDTH + TEXT.width(text);
            if x > MARGIN && x + width > WIDTH - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_LINE);
            }
            places.push((x, y));
            x += width + 16;
        }
        let height = places.last().map_or(0, |(_, y)| y + LEGEND_LINE / 2);
        (places, height)
    }
}

impl Sign {
    fn draw(self, canvas: &Canvas<'_>, (x, y): Point) -> Result<()> {
        let stroke = vec![(x, y), (x + 26, y)];
        match self {
            Sign::Swatch(colour) => canvas.bar([(x + 6, y - 7), (x + 26, y + 7)], colour),
            Sign::Solid => canvas.line(stroke, INK.stroke_width(2)),
            Sign::Dashed => canvas.dashed(stroke, INK.stroke_width(2)),
            Sign::Cross => canvas.cross((x + 19, y)),
            Sign::Triangle => canvas.triangle((x + 19, y)),
            Sign::Stroke => canvas.bar([(x + 18, y - 9), (x + 20, y + 9)], INK),
        }
    }
}

/// Lines of a title that fit into the picture.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if TITLE.width(&format!("{line} {word}")) <= WIDTH - 2 * MARGIN => {
                *line += " ";
                *line += word;
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Labels that keep out of each other's way and, if they can, out of what is drawn.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Left, top, right, bottom, and how bad it is to write over it.
    taken: Vec<([i32; 4], u32)>,
}

impl Labels {
    /// Labels had better not be written over this point.
    pub(super) fn keep_free(&mut self, (x, y): Point) {
        self.taken.push(([x - 4, y - 4, x + 4, y + 4], 3));
    }

    /// Writes beside the point, where it is in the way least.
    pub(super) fn write(
        &mut self,
        canvas: &Canvas<'_>,
        text: &str,
        at: Point,
        colour: RGBColor,
    ) -> Result<()> {
        const HALF_HEIGHT: i32 = 8;
        let half = LABEL.width(text) / 2;
        let near = [(0, -16), (0, 16), (half + 9, 0), (-half - 9, 0)];
        let beside = half + 5;
        let far = [
            (beside, -16),
            (-beside, -16),
            (beside, 16),
            (-beside, 16),
            (0, -28),
            (0, 28),
        ];
        let places = near
            .iter()
            .chain(&far)
            .map(|(dx, dy)| (at.0 + dx, at.1 + dy));
        let around = |(x, y): Point| [x - half, y - HALF_HEIGHT, x + half, y + HALF_HEIGHT];
        let cost = |place: &Point| -> u32 {
            let taken = self
                .taken
                .iter()
                .filter(|(of, _)| meet(*of, around(*place)));
            taken.map(|(_, cost)| cost).sum()
        };
        let place = places.min_by_key(cost).unwrap_or(at);
        self.taken.push((around(place), 100));
        canvas.text(text, place, LABEL.centred().coloured(colour))
    }
}

fn meet(one: [i32; 4], other: [i32; 4]) -> bool {
    one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain() {
        assert_eq!(slug("none (relayed), 1000/s"), "none-relayed-1000-s");
        assert_eq!(slug("../a<b>"), "a-b");
    }

    #[test]
    fn long_titles_and_legends_take_more_lines() {
        assert_eq!(wrap("a title").len(), 1);
        let long = "many words ".repeat(20);
        let lines = wrap(&long);
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), long.trim());
        let heading = Heading {
            title: long,
            axes: String::new(),
            legend: vec![(Sign::Cross, "paxos-commit F=1".to_owned()); 12],
        };
        let (places, height) = heading.places();
        assert!(height >= 2 * LEGEND_LINE);
        assert!(places.iter().all(|(x, y)| *x < WIDTH - 150 && *y < height));
    }

    #[test]
    fn labels_of_neighbours_do_not_meet() {
        let mut labels = Labels::default();
        let svg = paint(100, |canvas| {
            for x in [500, 505, 510] {
                labels.write(canvas, "1,024", (x, 50), INK)?;
            }
            Ok(())
        });
        assert!(svg.is_ok_and(|svg| svg.matches("1,024").count() == 3));
        let boxes: Vec<[i32; 4]> = labels.taken.iter().map(|(of, _)| *of).collect();
        for (index, one) in boxes.iter().enumerate() {
            assert!(boxes[..index].iter().all(|other| !meet(*one, *other)));
        }
    }
}
