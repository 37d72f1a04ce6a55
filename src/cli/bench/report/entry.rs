//! The runs, with what the report says about them.

use plotters::style::RGBColor;

use super::super::plan::{Fault, Kind, Load, Prepare, Protocol, Spec};
use super::super::results::{Results, Run, Summary};

/// Colours of Okabe and Ito, who chose them so that colour-blind people tell them apart.
const TWO_PHASE: [RGBColor; 2] = [RGBColor(0xD5, 0x5E, 0x00), RGBColor(0xE6, 0x9F, 0x00)];
const PAXOS_COMMIT: [RGBColor; 4] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x56, 0xB4, 0xE9),
];
/// Of whoever comes after those.
const OTHERS: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// One run.
#[derive(Debug)]
pub(super) struct Entry<'r> {
    pub(super) run: &'r Run,
    pub(super) summary: Summary,
    pub(super) contender: String,
    pub(super) scenario: String,
    /// The contender's own, in every picture.
    pub(super) colour: RGBColor,
    /// Its place among the contenders.
    rank: usize,
    /// Whether it stands in the pictures for all runs of the same spec.
    pub(super) is_median: bool,
}

impl Entry<'_> {
    pub(super) fn fault(&self) -> Fault {
        self.run.spec.fault
    }

    /// The run of the same contender, load and network to which nothing was done.
    pub(super) fn without_fault<'e, 'r>(&self, entries: &[&'e Entry<'r>]) -> Option<&'e Entry<'r>> {
        let is_it = |other: &&&Entry| {
            let spec = &other.run.spec;
            let duration = spec.duration;
            let fault = Fault::None;
            let wanted = Spec {
                fault,
                duration,
                ..self.run.spec.clone()
            };
            wanted == *spec
        };
        entries.iter().find(is_it).copied()
    }
}

/// All runs, in their order.
pub(super) fn entries(results: &Results) -> Vec<Entry<'_>> {
    let mut contenders: Vec<&Spec> = results.runs.iter().map(|run| &run.spec).collect();
    contenders.sort_by_key(|spec| order(spec));
    contenders.dedup_by_key(|spec| order(spec));
    let shown: Vec<usize> = medians(&results.runs);
    let runs = results.runs.iter().enumerate();
    let entries = runs.map(|(index, run)| {
        let rank = contenders
            .iter()
            .position(|of| order(of) == order(&run.spec));
        let rank = rank.unwrap_or_default();
        let of_protocol = |spec: &&&Spec| spec.protocol == run.spec.protocol;
        let place = contenders[..rank].iter().filter(of_protocol).count();
        let colours: &[RGBColor] = match run.spec.protocol {
            Protocol::TwoPhase => &TWO_PHASE,
            Protocol::PaxosCommit => &PAXOS_COMMIT,
        };
        Entry {
            run,
            summary: run.summary(),
            contender: run.spec.contender(),
            scenario: run.spec.scenario(),
            colour: colours.get(place).copied().unwrap_or(OTHERS),
            rank,
            is_median: shown.contains(&index),
        }
    });
    entries.collect()
}

/// Two-phase commit stands above what is compared with it, and the plain before the special.
fn order(spec: &Spec) -> (bool, u32, u32, bool, bool) {
    (
        spec.protocol == Protocol::PaxosCommit,
        spec.f,
        spec.participants,
        spec.prepare == Prepare::Spontaneous,
        spec.kind == Kind::Ledger,
    )
}

/// Of the runs of each spec, the index of the one with the median p99; of the two in the middle, the
/// worse.
fn medians(runs: &[Run]) -> Vec<usize> {
    let mut medians = Vec::new();
    for (first, run) in runs.iter().enumerate() {
        if runs[..first].iter().any(|of| of.spec == run.spec) {
            continue;
        }
        let same = runs.iter().enumerate();
        let same = same.filter(|(_, of)| of.spec == run.spec);
        let mut same: Vec<usize> = same.map(|(index, _)| index).collect();
        same.sort_by_cached_key(|index| {
            let latency = runs[*index].latencies();
            // Whoever never committed was not fast.
            match latency.is_empty() {
                true => u64::MAX,
                false => latency.value_at_quantile(0.99),
            }
        });
        medians.push(same[same.len() / 2]);
    }
    medians
}

/// Those that stand in the pictures.
pub(super) fn shown<'e, 'r>(entries: &'e [Entry<'r>]) -> Vec<&'e Entry<'r>> {
    entries.iter().filter(|entry| entry.is_median).collect()
}

/// Those with the same key, by contender; the keys in the order in which they come first.
pub(super) fn groups<'e, 'r, K: PartialEq>(
    entries: impl IntoIterator<Item = &'e Entry<'r>>,
    key: impl Fn(&Entry<'r>) -> K,
) -> Vec<(K, Vec<&'e Entry<'r>>)>
where
    'r: 'e,
{
    let mut groups: Vec<(K, Vec<&'e Entry<'r>>)> = Vec::new();
    for entry in entries {
        let key = key(entry);
        match groups.iter_mut().find(|(of, _)| *of == key) {
            Some((_, group)) => group.push(entry),
            None => groups.push((key, vec![entry])),
        }
    }
    for (_, group) in &mut groups {
        group.sort_by_key(|entry| entry.rank);
    }
    groups
}

/// One entry for each contender.
pub(super) fn contenders<'e, 'r>(
    entries: impl IntoIterator<Item = &'e Entry<'r>>,
) -> Vec<&'e Entry<'r>>
where
    'r: 'e,
{
    let mut of: Vec<&Entry> = entries.into_iter().collect();
    of.sort_by_key(|entry| entry.rank);
    of.dedup_by_key(|entry| entry.rank);
    of
}

/// The entries with the highest and the lowest value, if those are two.
pub(super) fn extremes<'e, 'r>(
    entries: &[&'e Entry<'r>],
    value: impl Fn(&Entry<'r>) -> f64,
) -> Option<(&'e Entry<'r>, &'e Entry<'r>)> {
    let by_value = |one: &&&Entry<'r>, other: &&&Entry<'r>| value(one).total_cmp(&value(other));
    let high = *entries.iter().max_by(by_value)?;
    let low = *entries.iter().min_by(by_value)?;
    (high.rank != low.rank).then_some((high, low))
}

/// The scenario, and the load if not all have the same.
pub(super) fn names(groups: &[((String, Load), Vec<&Entry>)]) -> Vec<String> {
    let mut loads = groups.iter().map(|((_, load), _)| load);
    let first = loads.next();
    let is_one_load = loads.all(|load| Some(load) == first);
    let name = |(scenario, load): &(String, Load)| match is_one_load {
        true => scenario.clone(),
        false => format!("{scenario}, {load}"),
    };
    groups.iter().map(|(key, _)| name(key)).collect()
}
