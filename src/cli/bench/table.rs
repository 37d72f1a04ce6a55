//! The results on a terminal.

use super::plan::{Load, Prepare, Protocol, Spec};
use super::results::{Results, Run, Summary};

/// Prints a row for each run, then what they say about each other.
pub(super) fn print(results: &Results) {
    let Results {
        environment,
        floor,
        runs,
    } = results;
    say!(
        "\n{} cores, {}; data on {}; paxos-commit {}",
        environment.cores,
        environment.cpu,
        environment.file_system,
        environment.program
    );
    say!(
        "floor of a commit here: {:.0} us = 4 hops of {:.0} us, and fdatasync of 2, then of 3 files \
         at a time (of one: {:.0} us)\n",
        floor.commit,
        floor.hop,
        floor.fdatasync
    );
    say!("{}", head(&LATENCY, "latency and stalls in ms"));
    for run in runs {
        say!("{}", latency_row(run));
    }
    say!(
        "(latency: from when the transaction should have begun; stall: the longest time without a \
         commit beyond the\n time between arrivals; f99: 99th percentile within a second after each \
         fault)\n"
    );
    say!("{}", head(&COSTS, "per commit, all processes"));
    for run in runs {
        say!("{}", costs_row(run));
    }
    say!();
    for line in compare(results) {
        say!("{line}");
    }
}

/// The columns of the two tables, after the name of the run.
const LATENCY: [&str; 9] = [
    "commits", "aborts", "open", "per s", "p50", "p99", "max", "stall", "f99",
];
const COSTS: [&str; 5] = ["messages", "delays", "forced", "bytes", "CPU us"];

fn head(columns: &[&str], what: &str) -> String {
    line(what, columns.iter().map(|column| (*column).to_owned()))
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!(" {cell:>8}")).collect();
    format!("{name:<52}{cells}")
}

fn latency_row(run: &Run) -> String {
    let summary = run.summary();
    let window = summary.fault_window;
    let cells = [
        summary.committed.to_string(),
        summary.aborted.to_string(),
        summary.unresolved.to_string(),
        format!("{:.0}", summary.throughput_per_s),
        ms(summary.latency_us.p50),
        ms(summary.latency_us.p99),
        ms(summary.latency_us.max),
        format!("{:.1}", summary.longest_stall_ms),
        window.map_or("-".into(), |window| ms(window.latency_us.p99)),
    ];
    line(&run.spec.to_string(), cells.into_iter())
}

fn costs_row(run: &Run) -> String {
    let summary = run.summary();
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    let cells = [
        format!("{:.1}", summary.messages_per_commit),
        or_dash(summary.message_delays.map(|count| count.to_string())),
        format!("{:.2}", summary.forced_writes_per_commit),
        format!("{:.0}", summary.bytes_per_commit),
        or_dash(summary.cpu_us_per_commit.map(|us| format!("{us:.0}"))),
    ];
    line(&run.spec.to_string(), cells.into_iter())
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1_000.0)
}

/// Runs that differ in one thing only, side by side.
fn compare(results: &Results) -> Vec<String> {
    let floor = results.floor.commit;
    let mut lines = Vec::new();
    for group in groups(&results.runs) {
        let spec = &group[0].spec;
        let p50 = median(&group, |summary| summary.latency_us.p50 as f64);
        if spec.load == Load::Concurrency(1) && !spec.relayed {
            let mut line = format!("{spec}: p50 {p50:.0} us");
            if is_path_of_floor(spec) && floor > 0.0 {
                line += &format!(", {:.2} x floor", p50 / floor);
            }
            if let Some(base) = two_phase_like(results, &group) {
                line += &format!(", {:.2} x two-phase with a relay", p50 / base);
            }
            lines.push(line);
        }
        let Some(none) = without_fault(results, &group) else {
            continue;
        };
        let stall = |summary: &Summary| summary.longest_stall_ms;
        let felt = |summary: &Summary| {
            summary
                .fault_window
                .map_or(0.0, |window| window.latency_us.p99 as f64)
        };
        let (longest, usual) = (median(&group, stall), median(&none, stall));
        let (p99, usual_p99) = (
            median(&group, felt),
            median(&none, |summary| summary.latency_us.p99 as f64),
        );
        lines.push(format!(
            "{spec}: longest stall {longest:.1} ms (without it {usual:.1} ms); p99 in the fault \
             window {:.2} ms = {:.2} x that without it; aborted {:.0}, unresolved {:.0}",
            p99 / 1_000.0,
            p99 / usual_p99,
            median(&group, |summary| summary.aborted as f64),
            median(&group, |summary| summary.unresolved as f64),
        ));
    }
    lines
}

/// Whether these are the hops and the forced writes that the floor is made of.
fn is_path_of_floor(spec: &Spec) -> bool {
    let relayed_commit = spec.protocol == Protocol::PaxosCommit && spec.prepare == Prepare::Relay;
    relayed_commit && spec.f == 1 && spec.participants == 2
}

/// Runs of the same kind, in the order of the first of each.
fn groups(runs: &[Run]) -> Vec<Vec<&Run>> {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| group[0].spec == run.spec) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

fn median(group: &[&Run], of: impl Fn(&Summary) -> f64) -> f64 {
    let mut values: Vec<f64> = group.iter().map(|run| of(&run.summary())).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median p50 of two-phase commit under the same conditions, with a relay.
fn two_phase_like(results: &Results, group: &[&Run]) -> Option<f64> {
    let spec = &group[0].spec;
    if spec.protocol == Protocol::TwoPhase {
        return None;
    }
    let mut like = spec.clone();
    (like.protocol, like.f) = (Protocol::TwoPhase, 0);
    like.prepare = Prepare::Relay;
    let found = groups(&results.runs)
        .into_iter()
        .find(|of| of[0].spec == like)?;
    Some(median(&found, |summary| summary.latency_us.p50 as f64))
}

/// The same without a fault.
fn without_fault<'r>(results: &'r Results, group: &[&Run]) -> Option<Vec<&'r Run>> {
    let spec = &group[0].spec;
    if spec.fault == super::plan::Fault::None {
        return None;
    }
    let mut like = spec.clone();
    like.fault = super::plan::Fault::None;
    groups(&results.runs)
        .into_iter()
        .find(|of| of[0].spec == like)
}
