//! The structure, enforced: imports run one way, and the protocol stays pure.

use std::fs;
use std::path::{Path, PathBuf};

/// What each part of `src/` may import from the others, by the first name of the path.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &["protocol"]),
    ("random", &[]),
    ("wire", &["wire", "protocol"]),
    ("store", &["store", "protocol"]),
    ("transport", &["transport", "random", "wire", "protocol"]),
    (
        "driver",
        &["driver", "transport", "store", "wire", "protocol"],
    ),
    ("replica", &SHELL),
    ("participant", &SHELL),
    ("initiator", &SHELL),
    ("operator", &SHELL),
    ("config", &["config", "replica", "transport", "protocol"]),
    (
        "resource",
        &["resource", "participant", "random", "store", "protocol"],
    ),
    (
        "cluster",
        &[
            "cluster",
            "config",
            "replica",
            "participant",
            "initiator",
            "operator",
            "transport",
            "store",
            "wire",
            "protocol",
        ],
    ),
    // Tests of all decoders, in no program.
    (
        "fuzzing",
        &[
            "cluster",
            "config",
            "fuzzing",
            "participant",
            "protocol",
            "resource",
            "store",
            "transport",
            "wire",
        ],
    ),
    ("cli", &["cli"]),
    ("main", &[]),
    (
        "lib",
        &[
            "cluster",
            "driver",
            "initiator",
            "operator",
            "participant",
            "protocol",
            "replica",
            "resource",
            "store",
            "transport",
            "wire",
        ],
    ),
];

/// What the shells may import, each its own files besides.
const SHELL: [&str; 9] = [
    "driver",
    "random",
    "transport",
    "store",
    "wire",
    "protocol",
    "replica",
    "participant",
    "initiator",
];

/// The hosts; only `protocol/mod.rs` and the observer know more than one.
const ROLES: [&str; 3] = ["replica", "participant", "initiator"];

/// What pure code does not name.
const IMPURE: [&str; 16] = [
    "tokio",
    "quinn",
    "rustls",
    "fjall",
    "anyhow",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand::",
    "fastrand",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::io",
];

/// The longest that a source file may be.
const LINES_MAX: usize = 500;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of code, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("readable");
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.map(str::to_owned).collect()
}

/// The names that follow `prefix` in a line.
fn after<'l>(line: &'l str, prefix: &str) -> Vec<&'l str> {
    let parts = line.split(prefix).skip(1);
    let end = |c: char| !c.is_alphanumeric() && c != '_';
    parts
        .map(|part| part.split(end).next().unwrap_or(""))
        .collect()
}

/// Complaints about imports that run the wrong way in one file.
fn wrong_imports(part: &str, lines: &[String]) -> Vec<String> {
    let allowed = LAYERS.iter().find(|(name, _)| *name == part);
    let Some((_, allowed)) = allowed else {
        return vec![format!("{part} has no place in the layers")];
    };
    let imports = lines.iter().flat_map(|line| after(line, "crate::"));
    imports
        .filter(|import| !allowed.contains(import))
        .map(|import| format!("{part} imports {import}"))
        .collect()
}

fn impurities(lines: &[String]) -> Vec<String> {
    let names = |line: &String| IMPURE.iter().find(|name| line.contains(**name)).copied();
    let found = lines
        .iter()
        .filter_map(|line| names(line).map(|name| (name, line)));
    found
        .map(|(name, line)| format!("{name} in: {line}"))
        .collect()
}

fn role_imports(role: &str, lines: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in lines {
        for prefix in ["protocol::", "super::super::"] {
            for name in after(line, prefix) {
                if ROLES.contains(&name) && name != role {
                    complaints.push(format!("{role} imports {name}: {line}"));
                }
            }
        }
    }
    complaints
}

#[test]
fn imports_run_one_way() {
    let root = Path::new("src");
    for path in sources(root) {
        let part = path.strip_prefix(root).expect("below src").iter().next();
        let part = Path::new(part.expect("a name")).with_extension("");
        let part = part.to_str().expect("a plain name");
        let complaints = wrong_imports(part, &code(&path));
        assert_eq!(complaints, Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_protocol_is_pure() {
    // It shares what says the same, and nothing that anybody can tell from a copy.
    let shares = Path::new("src/protocol/types/recent.rs");
    assert!(shares.exists());
    for path in sources(Path::new("src/protocol")) {
        if path == shares {
            continue;
        }
        let complaints = impurities(&code(&path));
        assert_eq!(complaints, Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn roles_do_not_import_each_other() {
    for role in ROLES {
        for path in sources(&Path::new("src/protocol").join(role)) {
            let complaints = role_imports(role, &code(&path));
            assert_eq!(complaints, Vec::<String>::new(), "{}", path.display());
        }
    }
}

#[test]
fn files_stay_short() {
    for folder in ["src", "examples", "benches", "tests"] {
        for path in sources(Path::new(folder)) {
            let lines = fs::read_to_string(&path).expect("readable").lines().count();
            assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn the_checks_can_fail() {
    let lines = |text: &str| vec![text.to_owned()];
    assert_eq!(
        wrong_imports("protocol", &lines("use crate::driver::Loop;")).len(),
        1
    );
    assert_eq!(
        wrong_imports("protocol", &lines("use crate::protocol::X;")).len(),
        0
    );
    assert_eq!(wrong_imports("attic", &lines("")).len(), 1);
    assert_eq!(impurities(&lines("let now = Instant::now();")).len(), 1);
    assert_eq!(impurities(&lines("let now = ballot;")).len(), 0);
    let import = lines("use crate::protocol::replica::Record;");
    assert_eq!(role_imports("participant", &import).len(), 1);
    assert_eq!(role_imports("replica", &import).len(), 0);
}
