//! Numbers as people read them.

/// Three significant digits, in the unit that suits, such as "4.03 s".
pub(super) fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "µs"),
        us if us < 999_500.0 => (us / 1_000.0, "ms"),
        us => (us / 1_000_000.0, "s"),
    };
    format!("{} {unit}", significant(value))
}

/// Three significant digits, without zeros at the end of a fraction.
fn significant(value: f64) -> String {
    let text = match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => return number(value, 0),
    };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// With a comma between thousands; a dash if there is no such number.
pub(super) fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        "" => grouped,
        fraction => format!("{grouped}.{fraction}"),
    }
}

pub(super) fn count(value: u64) -> String {
    number(value as f64, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_suits() {
        assert_eq!(time(0.0), "0 µs");
        assert_eq!(time(84.25), "84.2 µs");
        assert_eq!(time(999.6), "1 ms");
        assert_eq!(time(10_000.0), "10 ms");
        assert_eq!(time(3_214.0), "3.21 ms");
        assert_eq!(time(132_400.0), "132 ms");
        assert_eq!(time(999_900.0), "1 s");
        assert_eq!(time(4_031_000.0), "4.03 s");
        assert_eq!(time(7_200_000_000.0), "7,200 s");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(0.0, 0), "0");
        assert_eq!(number(999.0, 0), "999");
        assert_eq!(number(12_345.678, 1), "12,345.7");
        assert_eq!(number(-123_456.0, 0), "-123,456");
        assert_eq!(number(f64::NAN, 2), "–");
        assert_eq!(count(1_000_000), "1,000,000");
    }
}
