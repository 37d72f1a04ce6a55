//! What settings come to, and that every error says where and what.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{ConfigError, ReplicaSettings, load_access};
use crate::protocol::paxos::ReplicaId;
use crate::replica::Tuning;
use crate::transport::{Authority, Role};

const ACCESS: &str = r#"
authority = "ca.pem"
certificate = "one.pem"
key = "one.key"

[[replica]]
id = 1
address = "one.example:7401"

[[replica]]
id = 2
address = "[::1]:7402"
"#;

const REPLICA: &str = r#"
data = "data"
listen = "0.0.0.0:7401"
http = "127.0.0.1:9401"
authority = "ca.pem"
certificate = "one.pem"
key = "one.key"

[[replica]]
id = 1
address = "one.example:7401"

[tuning]
generation_period_s = 5
generation_transactions_max = 6
generation_min_s = 4
grace_s = 7
undecided_max = 8
vote_timeout_max_s = 9
"#;

/// A folder with the files of replica 1, and `text` as `settings.toml`.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("bank".parse().unwrap()).unwrap();
    authority.save(folder.path()).unwrap();
    let issued = authority.issue(Role::Replica(ReplicaId(1))).unwrap();
    issued.save(folder.path(), "one").unwrap();
    fs::write(folder.path().join("settings.toml"), text).unwrap();
    folder
}

fn access_error(text: &str) -> ConfigError {
    let folder = folder(text);
    load_access(&folder.path().join("settings.toml")).unwrap_err()
}

fn replica_error(text: &str) -> ConfigError {
    let folder = folder(text);
    ReplicaSettings::load(&folder.path().join("settings.toml")).unwrap_err()
}

/// Every error names the file, and what else helps.
fn says(error: &ConfigError, parts: &[&str]) {
    let text = error.to_string();
    for part in [&["settings.toml"], parts].concat() {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn access_is_read() {
    let folder = folder(ACCESS);
    let access = load_access(&folder.path().join("settings.toml")).unwrap();
    let identity = access.credentials.identity().to_string();
    assert_eq!(identity, "paxos-commit://bank/replica/1");
    let replicas: Vec<(u32, &str)> = access
        .replicas
        .iter()
        .map(|member| (member.id.0, member.address.as_str()))
        .collect();
    assert_eq!(replicas, [(1, "one.example:7401"), (2, "[::1]:7402")]);
}

#[test]
fn a_replica_is_read_and_its_paths_are_beside_the_file() {
    let folder = folder(REPLICA);
    let settings = ReplicaSettings::load(&folder.path().join("settings.toml")).unwrap();
    assert_eq!(settings.data, folder.path().join("data"));
    assert_eq!(settings.listen.to_string(), "0.0.0.0:7401");
    assert_eq!(settings.http.unwrap().to_string(), "127.0.0.1:9401");
    let tuning = Tuning {
        generation_period: Duration::from_secs(5),
        generation_transactions_max: 6,
        generation_min: Duration::from_secs(4),
        grace: Duration::from_secs(7),
        undecided_max: 8,
        vote_timeout_max: Duration::from_secs(9),
    };
    assert_eq!(settings.tuning, tuning);
}

#[test]
fn what_is_not_tuned_is_as_usual() {
    let without = REPLICA.split("[tuning]").next().unwrap();
    let without = without.replace("http = \"127.0.0.1:9401\"\n", "");
    let folder = folder(&without);
    let settings = ReplicaSettings::load(&folder.path().join("settings.toml")).unwrap();
    assert_eq!(settings.tuning, Tuning::default());
    assert_eq!(settings.http, None);
    // An absolute path stays what it is.
    let absolute = without.replace("\"data\"", "\"/var/lib/bank\"");
    let folder = self::folder(&absolute);
    let settings = ReplicaSettings::load(&folder.path().join("settings.toml")).unwrap();
    assert_eq!(settings.data, Path::new("/var/lib/bank"));
}

/// The counter-example: with `generation_period_s = 0` a generation is opened at every tick.
#[test]
fn a_setting_that_makes_no_sense_is_refused_with_what_is_allowed() {
    for (field, wrong, allowed) in [
        (
            "generation_period_s = 5",
            "generation_period_s = 0",
            "1 to 86400",
        ),
        (
            "generation_period_s = 5",
            "generation_period_s = 86401",
            "1 to 86400",
        ),
        (
            "generation_transactions_max = 6",
            "generation_transactions_max = 0",
            "1 to 1000000000",
        ),
        (
            "generation_min_s = 4",
            "generation_min_s = 100000",
            "0 to 86400",
        ),
        ("grace_s = 7", "grace_s = 100000", "0 to 86400"),
        ("undecided_max = 8", "undecided_max = 0", "1 to 10000000"),
        (
            "vote_timeout_max_s = 9",
            "vote_timeout_max_s = 0",
            "1 to 86400",
        ),
    ] {
        assert!(REPLICA.contains(field), "{field}");
        let folder = folder(&REPLICA.replace(field, wrong));
        let error = ReplicaSettings::load(&folder.path().join("settings.toml")).unwrap_err();
        let (name, got) = wrong.split_once(" = ").unwrap();
        says(&error, &["tuning.", name, allowed, got]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    let error = load_access(&path).unwrap_err();
    assert!(matches!(error, ConfigError::File { .. }));
    says(&error, &["cannot read", "No such file"]);
    says(&ReplicaSettings::load(&path).unwrap_err(), &["cannot read"]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let error = access_error(&format!("{ACCESS}\nnonsense\n"));
    assert!(matches!(error, ConfigError::Toml { .. }));
    says(&error, &["line 14", "nonsense"]);
}

#[test]
fn a_field_that_nobody_knows_is_told_with_its_line() {
    let error = access_error(&ACCESS.replace("key =", "kee ="));
    says(&error, &["line 4", "unknown field `kee`", "`key`"]);
    let error = replica_error(&REPLICA.replace("grace_s", "grace_ms"));
    says(
        &error,
        &["line 17", "unknown field `grace_ms`", "`grace_s`"],
    );
    let error = access_error(&ACCESS.replace("id = 2", "id = 2\nport = 3"));
    says(&error, &["unknown field `port`"]);
}

#[test]
fn a_field_that_is_missing_is_named() {
    for field in ["authority", "certificate", "key"] {
        let without: Vec<&str> = ACCESS
            .lines()
            .filter(|line| !line.starts_with(field))
            .collect();
        says(
            &access_error(&without.join("\n")),
            &["missing field", field],
        );
    }
    for field in ["data", "listen"] {
        let without: Vec<&str> = REPLICA
            .lines()
            .filter(|line| !line.starts_with(field))
            .collect();
        says(
            &replica_error(&without.join("\n")),
            &["missing field", field],
        );
    }
    let error = access_error(&ACCESS.replace("id = 2\n", ""));
    says(&error, &["missing field `id`"]);
    let none = ACCESS.split("[[replica]]").next().unwrap();
    says(&access_error(none), &["missing field `replica`"]);
    let empty = format!("{none}\nreplica = []\n");
    says(&access_error(&empty), &["replica", "at least one"]);
}

#[test]
fn a_field_of_another_kind_is_told_with_its_line() {
    let error = access_error(&ACCESS.replace("id = 2", "id = \"two\""));
    says(&error, &["line 11", "\"two\""]);
    let error = replica_error(&REPLICA.replace("grace_s = 7", "grace_s = -7"));
    says(&error, &["line 17", "-7"]);
}

#[test]
fn an_address_that_is_none_is_quoted() {
    for wrong in [
        "one.example",
        "one.example:",
        "one.example:http",
        ":7401",
        "h:70000",
    ] {
        let error = access_error(&ACCESS.replace("one.example:7401", wrong));
        let quoted = format!("{wrong:?}");
        says(
            &error,
            &["address of replica 1", "one.example:7401", &quoted],
        );
    }
    let long = format!("{}:1", "x".repeat(300));
    let error = access_error(&ACCESS.replace("one.example:7401", &long));
    says(&error, &["address of replica 1"]);
    let error = replica_error(&REPLICA.replace("0.0.0.0:7401", "localhost:7401"));
    says(&error, &["listen", "an IP address", "\"localhost:7401\""]);
    let error = replica_error(&REPLICA.replace("127.0.0.1:9401", "9401"));
    says(&error, &["http", "an IP address", "\"9401\""]);
}

#[test]
fn a_replica_that_stands_twice_is_told() {
    let error = access_error(&ACCESS.replace("id = 2", "id = 1"));
    says(&error, &["[[replica]]", "1 twice"]);
}

#[test]
fn a_certificate_that_is_missing_or_wrong_is_named() {
    let error = access_error(&ACCESS.replace("one.pem", "two.pem"));
    assert!(matches!(error, ConfigError::Credentials { .. }));
    says(&error, &["cannot read", "two.pem"]);
    // A key where a certificate should be.
    let error = access_error(&ACCESS.replace("one.pem", "one.key"));
    says(&error, &["expected a certificate"]);
    let error = access_error(&ACCESS.replace("\"one.key\"", "\"one.pem\""));
    says(&error, &["expected a private key"]);
    // Of another authority.
    let folder = folder(ACCESS);
    let other = Authority::new("bank".parse().unwrap()).unwrap();
    fs::write(folder.path().join("ca.pem"), other.certificate()).unwrap();
    let error = load_access(&folder.path().join("settings.toml")).unwrap_err();
    says(&error, &["do not fit together"]);
    // The authority's own certificate names nobody.
    let error = access_error(&ACCESS.replace("\"one.pem\"", "\"ca.pem\""));
    says(&error, &["carries no identity"]);
}
