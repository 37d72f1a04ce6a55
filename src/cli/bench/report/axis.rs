//! From values to pixels, and the lines that tell which is which.

use anyhow::Result;
use plotters::prelude::Color;

use super::canvas::{Canvas, GREY, GRID, LABEL};
use super::units;

/// How far apart equal steps are.
#[derive(Clone, Copy, Debug)]
enum Scale {
    Linear,
    Logarithmic,
}

/// One direction of a panel.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Where the lowest and the highest value are.
    pixels: (i32, i32),
}

impl Axis {
    /// From 0 on.
    pub(super) fn linear(high: f64, pixels: (i32, i32)) -> Axis {
        let high = if high > 0.0 { high } else { 1.0 };
        Axis::between(0.0, high, pixels)
    }

    pub(super) fn between(low: f64, high: f64, pixels: (i32, i32)) -> Axis {
        let scale = Scale::Linear;
        Axis {
            scale,
            low,
            high,
            pixels,
        }
    }

    /// With some room at both ends, and a decade at least.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>, pixels: (i32, i32)) -> Axis {
        let positive = values.filter(|value| *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 1.0) };
        let (low, high) = (low / 1.3, high * 1.3);
        let lacking = (10.0 * low / high).max(1.0).sqrt();
        Axis {
            scale: Scale::Logarithmic,
            low: low / lacking,
            high: high * lacking,
            pixels,
        }
    }

    /// Beginning at a power of ten.
    pub(super) fn starting_at_a_decade(self) -> Axis {
        let low = 10_f64.powf(self.low.log10().floor());
        Axis { low, ..self }
    }

    /// The same values elsewhere.
    pub(super) fn over(&self, pixels: (i32, i32)) -> Axis {
        let same = self.clone();
        Axis { pixels, ..same }
    }

    /// Values beyond an end are drawn at it.
    pub(super) fn pixel(&self, value: f64) -> i32 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
            }
        };
        let length = f64::from(self.pixels.1 - self.pixels.0);
        self.pixels.0 + (part.clamp(0.0, 1.0) * length).round() as i32
    }

    /// Values to write at the axis.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round_step(self.high / 10.0);
                let count = (self.high / step + 1e-9) as u32;
                (0..=count).map(|number| f64::from(number) * step).collect()
            }
            Scale::Logarithmic => {
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let few = self.high / self.low < 500.0;
                let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let all = decades
                    .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
                all.filter(|tick| self.low <= *tick && *tick <= self.high)
                    .collect()
            }
        }
    }

    /// The ticks with what [`units::time`] says of them, in microseconds.
    pub(super) fn times(&self) -> Vec<(f64, String)> {
        let ticks = self.ticks().into_iter();
        ticks.map(|us| (us, units::time(us))).collect()
    }

    /// The ticks as they are, with a unit.
    pub(super) fn numbers(&self, unit: &str) -> Vec<(f64, String)> {
        let decimals = usize::from(round_step(self.high / 10.0) < 1.0);
        let ticks = self.ticks().into_iter();
        let text = |value| units::number(value, decimals) + unit;
        ticks.map(|value| (value, text(value))).collect()
    }
}

/// The next of 0.1, 0.2, 0.5, 1, 2, 5, 10 and so on.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.max(0.1).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    let step = steps.into_iter().find(|step| *step >= least);
    step.unwrap_or(10.0 * decade)
}

/// Two axes with a grid.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) x: Axis,
    /// Its pixels go up, from the bottom to the top.
    pub(super) y: Axis,
}

impl Panel {
    pub(super) fn top(&self) -> i32 {
        self.y.pixels.1
    }

    pub(super) fn left(&self) -> i32 {
        self.x.pixels.0
    }

    pub(super) fn right(&self) -> i32 {
        self.x.pixels.1
    }

    pub(super) fn point(&self, x: f64, y: f64) -> (i32, i32) {
        (self.x.pixel(x), self.y.pixel(y))
    }

    /// The horizontal lines, with their values at the left.
    pub(super) fn rows(&self, canvas: &Canvas<'_>, ticks: &[(f64, String)]) -> Result<()> {
        for (value, text) in ticks {
            let y = self.y.pixel(*value);
            canvas.line(
                vec![(self.left(), y), (self.right(), y)],
                GRID.stroke_width(1),
            )?;
            canvas.text(text, (self.left() - 8, y), LABEL.at_right())?;
        }
        Ok(())
    }

    /// The vertical lines, with their values below.
    pub(super) fn columns(&self, canvas: &Canvas<'_>, ticks: &[(f64, String)]) -> Result<()> {
        let bottom = self.y.pixels.0;
        for (value, text) in ticks {
            let x = self.x.pixel(*value);
            canvas.line(vec![(x, self.top()), (x, bottom)], GRID.stroke_width(1))?;
            canvas.text(text, (x, bottom + 14), LABEL.centred())?;
        }
        canvas.line(
            vec![(self.left(), bottom), (self.right(), bottom)],
            GREY.stroke_width(1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_ends() {
        let axis = Axis::linear(10.0, (100, 200));
        assert_eq!(
            [-1.0, 0.0, 5.0, 10.0, 99.0].map(|of| axis.pixel(of)),
            [100, 100, 150, 200, 200]
        );
        let axis = Axis::logarithmic([1.0, 100.0].into_iter(), (500, 100));
        assert_eq!(axis.pixel(10.0), 300);
        assert_eq!(axis.pixel(0.0), 500);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn an_axis_for_one_value_or_none_has_a_decade() {
        for values in [vec![], vec![0.0], vec![7.0]] {
            let axis = Axis::logarithmic(values.into_iter(), (0, 100));
            assert!(axis.high / axis.low > 9.99);
            assert!(axis.ticks().len() >= 3);
        }
        let axis = Axis::logarithmic([30.0, 700.0].into_iter(), (0, 100)).starting_at_a_decade();
        assert_eq!(axis.pixel(10.0), 0);
        assert!(axis.pixel(20.0) > 0);
        assert_eq!(Axis::linear(0.0, (0, 100)).pixel(1.0), 100);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(
            [0.0, 0.13, 1.2, 2.5, 6.0, 1_234.0].map(round_step),
            [0.1, 0.2, 2.0, 5.0, 10.0, 2_000.0]
        );
        let ticks = Axis::linear(12.0, (0, 100)).numbers(" s");
        let texts: Vec<&str> = ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s", "12 s"]);
    }
}
