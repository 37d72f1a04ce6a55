//! The page.

use super::super::results::{Environment, Floor};
use super::entry::Entry;
use super::picture::Picture;
use super::table;
use super::units;

/// Nothing else is needed to show the page.
const STYLE: &str = include_str!("page.css");

/// What plotters says of every file, and a page does not need.
const NAMESPACE: &str = r#" xmlns="http://www.w3.org/2000/svg""#;

/// The whole of it, with the pictures in it.
pub(super) fn page(
    environment: &Environment,
    floor: &Floor,
    entries: &[Entry<'_>],
    pictures: &[Picture],
) -> String {
    let title = "paxos-commit bench: two-phase commit and Paxos Commit compared";
    let body = [
        element("h1", title),
        format!(
            "<p class=\"environment\">{}</p>\n",
            escape(&line(environment))
        ),
        findings(pictures),
        element("h2", "All runs"),
        table::table(entries),
        of_the_floor(floor),
        element("h2", "Pictures"),
        pictures.iter().map(figure).collect(),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        body.concat()
    )
}

/// Text as it has to be written between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for of in text.chars() {
        match of {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            of => escaped.push(of),
        }
    }
    escaped
}

/// With that text in it.
fn element(tag: &str, text: &str) -> String {
    format!("<{tag}>{}</{tag}>\n", escape(text))
}

fn line(environment: &Environment) -> String {
    let Environment {
        program,
        os,
        cpu,
        cores,
        memory_mb,
        file_system,
    } = environment;
    let memory = format!("{} GB", units::number(*memory_mb as f64 / 1_024.0, 1));
    let cores = format!("{cores} cores");
    let parts = [program, os, cpu, &cores, &memory, file_system];
    let known = parts.into_iter().filter(|part| !part.is_empty());
    let known: Vec<&str> = known.map(String::as_str).collect();
    known.join(" · ")
}

/// The titles of the pictures, for those who read nothing else.
fn findings(pictures: &[Picture]) -> String {
    let item = |picture: &Picture| {
        let Picture { name, title, .. } = picture;
        format!("<li><a href=\"#{name}\">{}</a></li>\n", escape(title))
    };
    let items: String = pictures.iter().map(item).collect();
    match pictures {
        [] => String::new(),
        [..] => format!("<h2>In short</h2>\n<ul>\n{items}</ul>\n"),
    }
}

fn of_the_floor(floor: &Floor) -> String {
    if *floor == Floor::default() {
        return String::new();
    }
    let text = format!(
        "The floor: without any protocol this machine takes {} for a hop (half a round trip over \
         QUIC between two processes), {} for one append with fdatasync, and {} for both as a commit \
         needs them (four hops, two appends at the same time, then three).",
        units::time(floor.hop),
        units::time(floor.fdatasync),
        units::time(floor.commit)
    );
    element("p", &text)
}

fn figure(picture: &Picture) -> String {
    let Picture {
        name,
        title,
        reading,
        svg,
    } = picture;
    let title = escape(title);
    let svg = svg.replacen(
        NAMESPACE,
        &format!(" role=\"img\" aria-label=\"{title}\""),
        1,
    );
    let reading = escape(reading);
    format!("<figure id=\"{name}\">\n{svg}<figcaption>{reading}</figcaption>\n</figure>\n")
}
