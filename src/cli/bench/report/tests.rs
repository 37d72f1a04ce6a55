//! Whole reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use super::super::plan::{Fault, Load, Prepare, Protocol};
use super::super::results::{End, Environment, Floor, Mark, Results, Run};
use super::made::{Made, made, results};
use super::{charts, entry, write};

/// The files of a report by their names.
fn report(results: &Results) -> BTreeMap<String, String> {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("not").join("there");
    write(&folder, results).unwrap();
    let files = fs::read_dir(&folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    });
    files.collect()
}

fn of(runs: Vec<Run>) -> Results {
    Results {
        environment: Environment::default(),
        floor: Floor::default(),
        runs,
    }
}

fn names(files: &BTreeMap<String, String>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

/// Tags are closed by themselves or one after the other.
fn is_well_formed(svg: &str) -> bool {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let Some((tag, _)) = part.split_once('>') else {
            return false;
        };
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        match tag.strip_prefix('/') {
            Some(name) if open.pop() != Some(name) => return false,
            Some(_) => {}
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    open.is_empty()
}

#[test]
fn every_picture_is_a_file_and_in_the_page() {
    let files = report(&results());
    assert_eq!(
        names(&files),
        [
            "latency-kill-1000-s.svg",
            "latency-kill-relay-1000-s.svg",
            "latency-loss-1000-s.svg",
            "latency-partition-1000-s.svg",
            "latency-pause-1000-s.svg",
            "latency-rolling-1000-s.svg",
            "latency-wan-1000-s.svg",
            "percentiles-idle.svg",
            "percentiles.svg",
            "report.html",
            "stalls.svg",
            "throughput-none.svg",
        ]
    );
    let page = &files["report.html"];
    for (name, svg) in files.iter().filter(|(name, _)| name.ends_with(".svg")) {
        assert!(is_well_formed(svg), "{name}");
        assert!(
            svg.starts_with("<svg") && svg.len() < 1_000_000,
            "{name}: {}",
            svg.len()
        );
        let (_, drawn) = svg.split_once('\n').unwrap();
        assert!(page.contains(drawn), "{name} is not in the page");
    }
    assert_eq!(page.matches("<tr class").count(), results().runs.len());
    assert!(page.contains("1.32 ms for both"));
}

#[test]
fn the_page_needs_nothing_else() {
    let files = report(&results());
    let page = &files["report.html"];
    for outside in [
        "http", "src=", "url(", "@import", "<script", "<link", "file:",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn no_letter_is_too_small_or_beyond_the_edge() {
    for (name, svg) in report(&results())
        .iter()
        .filter(|(name, _)| name.ends_with(".svg"))
    {
        let value = |text: &str, key: &str| -> f64 {
            let (_, after) = text.split_once(&format!("{key}=\"")).unwrap();
            after.split('"').next().unwrap().parse().unwrap()
        };
        let height = value(svg, "height");
        for text in svg.split("<text").skip(1) {
            assert!(value(text, "font-size") >= 12.0, "{name}");
            let (x, y) = (value(text, " x"), value(text, " y"));
            assert!((0.0..1_100.0).contains(&x), "{name}");
            assert!((0.0..height - 6.0).contains(&y), "{name}");
        }
    }
}

#[test]
fn titles_say_what_was_found() {
    let results = results();
    let entries = entry::entries(&results);
    let pictures = charts::pictures(&entries).unwrap();
    let title = |name: &str| {
        let picture = pictures.iter().find(|picture| picture.name == name);
        picture.unwrap().title.clone()
    };
    let title_of_kill = title("latency-kill-relay-1000-s");
    assert!(
        title_of_kill.contains("without a commit with two-phase"),
        "{title_of_kill}"
    );
    assert!(
        title_of_kill.starts_with("kill-relay: 4.0"),
        "{title_of_kill}"
    );
    assert!(title("percentiles").contains("p99 differs most under "));
    assert!(title("stalls").contains("with two-phase (partition)"));
    assert!(title("throughput-none").contains("with paxos-commit F=1"));
}

#[test]
fn a_contender_has_one_colour_and_no_other_has_it() {
    let results = results();
    let mut colours = BTreeMap::new();
    for entry in entry::entries(&results) {
        let colour = (entry.colour.0, entry.colour.1, entry.colour.2);
        let before = colours.insert(entry.contender, colour);
        assert!(before.is_none_or(|before| before == colour));
    }
    assert_eq!(colours.len(), 4);
    let different: BTreeSet<_> = colours.values().collect();
    assert_eq!(different.len(), 4);
}

#[test]
fn of_repeated_runs_the_median_is_drawn_and_all_are_in_the_table() {
    let load = Load::Rate(50);
    let with = |outages| {
        made(Made {
            load,
            outages,
            ..Made::default()
        })
    };
    let never = {
        let mut run = with(&[]);
        run.samples
            .iter_mut()
            .for_each(|sample| sample.end = End::Unresolved);
        run
    };
    let other = made(Made {
        protocol: Protocol::TwoPhase,
        load,
        ..Made::default()
    });
    let runs = vec![never, with(&[]), other, with(&[(1_000, 9_000)])];
    let results = of(runs);
    let medians: Vec<bool> = entry::entries(&results)
        .iter()
        .map(|entry| entry.is_median)
        .collect();
    // Who never committed is the worst, not the best.
    assert_eq!(medians, [false, false, true, true]);
    let page = &report(&results)["report.html"];
    assert_eq!(page.matches("class=\"other\"").count(), 2);
    assert!(page.contains("median p99"));
}

#[test]
fn without_data_there_is_no_picture() {
    assert_eq!(names(&report(&of(vec![]))), ["report.html"]);
    let idle = made(Made {
        load: Load::Concurrency(16),
        seconds: 1,
        ..Made::default()
    });
    assert_eq!(names(&report(&of(vec![idle]))), ["report.html"]);
    let searched = made(Made {
        load: Load::SearchP99(Duration::from_millis(10)),
        ..Made::default()
    });
    assert_eq!(names(&report(&of(vec![searched]))), ["report.html"]);
}

#[test]
fn odd_runs_do_no_harm() {
    let kill = Made {
        fault: Fault::KillRelay,
        marks: &[(4_000, "kill 1")],
        ..Made::default()
    };
    let with = |change: fn(&mut Run)| {
        let mut run = made(kill.clone());
        change(&mut run);
        run
    };
    let without_samples = with(|run| run.samples.clear());
    let with_one = with(|run| run.samples.truncate(1));
    let of_no_time = with(|run| {
        run.lasted = Duration::ZERO;
        run.samples.truncate(2);
        run.samples
            .iter_mut()
            .for_each(|sample| sample.latency_us = 0);
    });
    let without_commits = with(|run| {
        run.samples
            .iter_mut()
            .for_each(|sample| sample.end = End::Aborted);
        run.counts.cpu_us = None;
        run.message_delays = None;
    });
    let never_answered = with(|run| {
        run.samples
            .iter_mut()
            .for_each(|sample| sample.end = End::Unresolved);
    });
    for run in [
        without_samples,
        with_one,
        of_no_time,
        without_commits,
        never_answered,
    ] {
        let mut other = run.clone();
        other.spec.protocol = Protocol::TwoPhase;
        other.spec.load = Load::Concurrency(4);
        let mut third = other.clone();
        third.spec.load = Load::Concurrency(8);
        let files = report(&of(vec![run, other, third]));
        assert!(files.contains_key("stalls.svg"));
        for (name, text) in files {
            assert!(!text.contains("NaN") && !text.contains("inf "), "{name}");
        }
    }
}

#[test]
fn more_contenders_than_colours_do_no_harm() {
    let mut runs = Vec::new();
    for f in 1..8 {
        for prepare in [Prepare::Relay, Prepare::Spontaneous] {
            let mut run = made(Made {
                prepare,
                fault: Fault::Kill,
                seconds: 1,
                ..Made::default()
            });
            run.spec.f = f;
            run.spec.participants = 3 + f;
            runs.push(run);
        }
    }
    assert!(
        report(&of(runs))
            .values()
            .all(|text| text.contains("F=7 N=10 spontaneous"))
    );
}

#[test]
fn text_is_escaped() {
    let mut run = made(Made {
        fault: Fault::Kill,
        ..Made::default()
    });
    let what = "<b>kill</b> & \"co\"".to_owned();
    run.marks = vec![Mark {
        at: Duration::from_secs(4),
        what,
    }];
    let mut results = of(vec![run]);
    results.environment.cpu = "<script>alert('1')</script> & more".to_owned();
    for (name, text) in report(&results) {
        assert!(!text.contains("<b>") && !text.contains("<script"), "{name}");
        assert!(!text.contains("& "), "{name}");
    }
    let page = &report(&results)["report.html"];
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; more"));
}
