//! Lines, signs and text, in pixels from the upper left corner.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The width of every picture.
pub(super) const WIDTH: i32 = 1_100;

pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const GREY: RGBColor = RGBColor(0x5C, 0x5C, 0x5C);
pub(super) const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);

/// plotters divides the size of a font by this.
const FONT_RATIO: f64 = 1.24;

pub(super) type Point = (i32, i32);

/// How text looks, and which part of it stands at its point; it is always in the middle of its
/// height.
#[derive(Clone, Copy)]
pub(super) struct Letters {
    pixels: i32,
    style: FontStyle,
    colour: RGBColor,
    anchor: HPos,
}

pub(super) const TITLE: Letters = letters(21, FontStyle::Bold, INK);
pub(super) const HEAD: Letters = letters(16, FontStyle::Bold, INK);
pub(super) const TEXT: Letters = letters(14, FontStyle::Normal, INK);
pub(super) const LABEL: Letters = letters(13, FontStyle::Normal, GREY);

const fn letters(pixels: i32, style: FontStyle, colour: RGBColor) -> Letters {
    Letters {
        pixels,
        style,
        colour,
        anchor: HPos::Left,
    }
}

impl Letters {
    pub(super) fn centred(self) -> Letters {
        let anchor = HPos::Center;
        Letters { anchor, ..self }
    }

    /// The text ends at its point.
    pub(super) fn at_right(self) -> Letters {
        let anchor = HPos::Right;
        Letters { anchor, ..self }
    }

    pub(super) fn coloured(self, colour: RGBColor) -> Letters {
        Letters { colour, ..self }
    }

    /// About how wide that is, rather too much: every viewer has fonts of its own.
    pub(super) fn width(self, text: &str) -> i32 {
        let of_a_character = match self.style {
            FontStyle::Bold => 0.62,
            FontStyle::Normal | FontStyle::Oblique | FontStyle::Italic => 0.58,
        };
        (text.chars().count() as f64 * f64::from(self.pixels) * of_a_character).ceil() as i32
    }
}

/// What is drawn on.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// The text of an SVG file.
pub(super) fn paint(height: i32, draw: impl FnOnce(&Canvas<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let size = (WIDTH as u32, height.max(1) as u32);
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let canvas = Canvas { area };
    draw(&canvas)?;
    canvas.area.present()?;
    drop(canvas);
    Ok(svg)
}

impl Canvas<'_> {
    pub(super) fn text(&self, text: &str, at: Point, letters: Letters) -> Result<()> {
        let pixels = f64::from(letters.pixels) * FONT_RATIO;
        let font = FontDesc::new(FontFamily::SansSerif, pixels, letters.style);
        let style = TextStyle::from(font).color(&letters.colour);
        let style = style.pos(Pos::new(letters.anchor, VPos::Center));
        Ok(self.area.draw_text(text, &style, at)?)
    }

    pub(super) fn line(&self, points: Vec<Point>, style: ShapeStyle) -> Result<()> {
        Ok(self.area.draw(&PathElement::new(points, style))?)
    }

    pub(super) fn dashed(&self, points: Vec<Point>, style: ShapeStyle) -> Result<()> {
        let dashes = DashedPathElement::new(points, 8, 5, style);
        Ok(self.area.draw(&dashes)?)
    }

    pub(super) fn bar(&self, corners: [Point; 2], colour: RGBColor) -> Result<()> {
        Ok(self.area.draw(&Rectangle::new(corners, colour.filled()))?)
    }

    pub(super) fn dot(&self, at: Point, radius: i32, colour: RGBAColor) -> Result<()> {
        Ok(self.area.draw(&Circle::new(at, radius, colour.filled()))?)
    }

    /// Two strokes across each other.
    pub(super) fn cross(&self, at: Point) -> Result<()> {
        Ok(self.area.draw(&Cross::new(at, 3, INK.stroke_width(2)))?)
    }

    /// A triangle that points upwards.
    pub(super) fn triangle(&self, at: Point) -> Result<()> {
        Ok(self.area.draw(&TriangleMarker::new(at, 5, INK.filled()))?)
    }
}
