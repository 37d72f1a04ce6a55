//! All runs in numbers.

use super::super::results::{Run, Summary};
use super::entry::Entry;
use super::page::escape;
use super::units::{count, number};

const HEADS: [(&str, &str); 17] = [
    ("contender", ""),
    ("load", ""),
    ("scenario", ""),
    ("com\u{ad}mitted", ""),
    ("aborted", ""),
    ("un\u{ad}resolved", ""),
    ("commits", "per s"),
    ("p50", "ms"),
    ("p99", "ms"),
    ("max", "ms"),
    ("longest stall", "ms"),
    ("p99 in fault window", "ms"),
    ("messages", "per commit"),
    ("message delays", ""),
    ("forced writes", "per commit"),
    ("bytes", "per commit"),
    ("CPU", "µs per commit"),
];

/// How many of them are words.
const WORDS: usize = 3;

const NOTE: &str = "Latency counts from when a transaction should have begun. The longest stall is \
    the longest time within which nobody could commit. The fault window is the second after each \
    fault, or as long as the network was bad.";

const NOTE_OF_REPEATS: &str = " Of runs with the same settings, the pictures show the one with the \
    median p99; the others are grey.";

/// One row for each run.
pub(super) fn table(entries: &[Entry<'_>]) -> String {
    let heads: String = HEADS
        .iter()
        .enumerate()
        .map(|(index, head)| self::head(index, head))
        .collect();
    let mut rows = String::new();
    let mut before: Option<&Run> = None;
    for entry in entries {
        let spec = &entry.run.spec;
        let is_apart =
            before.is_some_and(|of| (of.spec.load, of.spec.fault) != (spec.load, spec.fault));
        before = Some(entry.run);
        rows += &row(entry, is_apart);
    }
    let mut note = NOTE.to_owned();
    if entries.iter().any(|entry| !entry.is_median) {
        note += NOTE_OF_REPEATS;
    }
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n<p class=\"note\">{}</p>\n",
        escape(&note)
    )
}

fn head(index: usize, (name, unit): &(&str, &str)) -> String {
    let class = if index < WORDS { " class=\"word\"" } else { "" };
    format!(
        "<th{class}>{}<small>{}</small></th>",
        escape(name),
        escape(unit)
    )
}

fn row(entry: &Entry<'_>, is_apart: bool) -> String {
    let mut classes = Vec::new();
    classes.extend(is_apart.then_some("apart"));
    classes.extend((!entry.is_median).then_some("other"));
    let (red, green, blue) = (entry.colour.0, entry.colour.1, entry.colour.2);
    let load = entry.run.spec.load.to_string();
    let words = [&entry.contender, &load, &entry.scenario].map(|word| escape(word));
    let numbers = numbers(&entry.summary).map(|number| format!("<td>{}</td>", escape(&number)));
    format!(
        "<tr class=\"{}\"><td class=\"word\"><span class=\"swatch\" \
         style=\"background:#{red:02x}{green:02x}{blue:02x}\"></span>{}</td>\
         <td class=\"word\">{}</td><td class=\"word\">{}</td>{}</tr>\n",
        classes.join(" "),
        words[0],
        words[1],
        words[2],
        numbers.concat()
    )
}

/// What is not known, or of no commit at all, is a dash.
fn numbers(summary: &Summary) -> [String; HEADS.len() - WORDS] {
    let has_commits = summary.committed > 0;
    let of_commits = |value: f64, decimals| {
        let value = if has_commits { value } else { f64::NAN };
        number(value, decimals)
    };
    let ms = |us: u64| of_commits(us as f64 / 1_000.0, 2);
    let in_window = summary
        .fault_window
        .filter(|window| window.latency_us.max > 0);
    let or_dash = |value: Option<f64>, decimals| number(value.unwrap_or(f64::NAN), decimals);
    let latency = summary.latency_us;
    [
        count(summary.committed),
        count(summary.aborted),
        count(summary.unresolved),
        number(summary.throughput_per_s, 0),
        ms(latency.p50),
        ms(latency.p99),
        of_commits(latency.max as f64 / 1_000.0, 1),
        number(summary.longest_stall_ms, 1),
        or_dash(in_window.map(|of| of.latency_us.p99 as f64 / 1_000.0), 2),
        of_commits(summary.messages_per_commit, 1),
        or_dash(summary.message_delays.map(f64::from), 0),
        of_commits(summary.forced_writes_per_commit, 2),
        of_commits(summary.bytes_per_commit, 0),
        or_dash(summary.cpu_us_per_commit.filter(|_| has_commits), 0),
    ]
}
