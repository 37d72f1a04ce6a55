//! What the adapter sets in its sessions, whatever the server, the database or the role sets.
//!
//! What every version knows is part of the request for a connection (`options`): it comes before what
//! a database or a role sets, and `RESET ALL` keeps it. The rest is set when a session begins, and
//! whenever it was cleaned.

use std::time::Duration;

use super::options::Options;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A service works on it. What it may set for its own statements stays as it is: `search_path`, or
    /// how long a statement may take.
    Working,
    /// Only the adapter uses it.
    Finishing,
}

/// A write waits for the standbys in `synchronous_standby_names` at this setting and at stronger ones.
/// (Counter-example: at a weaker one, `PREPARE TRANSACTION` and `COMMIT PREPARED` return before any
/// standby has the branch. It is lost when a standby is promoted, and the others have committed.)
pub(super) const DURABLE: &str = "on";

/// The settings that are as strong, as elements of an array.
pub(super) const ARE_DURABLE: &str = "on,remote_apply";

/// Another schema may have operators, functions and types of the same names, and stand first. The rest
/// of the path stays, for triggers.
const SERVER_FIRST: &str = "SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', \
     'pg_catalog', CASE WHEN pg_catalog.length(pg_catalog.current_setting('search_path')) \
     OPERATOR(pg_catalog.>) 0 THEN pg_catalog.current_setting('search_path') END), false)";

/// The options of a request for a connection. Those that the service gives come first, so these
/// replace them.
pub(super) fn options(purpose: Purpose, given: &str, options: &Options) -> String {
    let common = format!(
        "{given} -c default_transaction_read_only=off \
         -c default_transaction_isolation=read\\ committed -c exit_on_error=off"
    );
    match purpose {
        Purpose::Working => format!(
            "{common} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
            milliseconds(options.lock_max),
            milliseconds(options.idle_max)
        ),
        // A timeout would cut the wait for a standby short. The server then calls the commit done, and
        // says in a warning that no standby may have it.
        Purpose::Finishing => format!(
            "{common} -c statement_timeout=0 -c lock_timeout={} \
             -c idle_in_transaction_session_timeout=0 -c client_min_messages=warning",
            milliseconds(options.answer_max)
        ),
    }
}

/// The statements that begin a session of a server of this version.
pub(super) fn sets(purpose: Purpose, version: Option<&str>) -> String {
    let major = version.and_then(|version| version.split(|at: char| !at.is_ascii_digit()).next());
    let major: u32 = major.and_then(|major| major.parse().ok()).unwrap_or(0);
    // Set in any case, so that no later change of the server's configuration weakens it.
    let mut sets = format!(
        "SELECT pg_catalog.set_config('synchronous_commit', \
         CASE WHEN pg_catalog.current_setting('synchronous_commit') \
         OPERATOR(pg_catalog.=) 'remote_apply' THEN 'remote_apply' ELSE '{DURABLE}' END, false)"
    );
    if major >= 14 {
        sets.push_str("; SET idle_session_timeout = 0");
    }
    if purpose == Purpose::Finishing {
        sets.push_str("; ");
        sets.push_str(SERVER_FIRST);
    }
    if major >= 17 && purpose == Purpose::Finishing {
        sets.push_str("; SET transaction_timeout = 0");
    }
    sets
}

/// As the server's settings take it: 0 would be none at all.
fn milliseconds(time: Duration) -> u128 {
    time.as_millis().clamp(1, i32::MAX as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_knows_what_it_is_told_to_set() {
        for (version, idle, transaction) in [
            (None, false, false),
            (Some("13.11"), false, false),
            (Some("14beta1"), true, false),
            (Some("15.13 (Debian 15.13-0+deb12u1)"), true, false),
            (Some("17.2"), true, true),
        ] {
            let sets = sets(Purpose::Finishing, version);
            assert_eq!(sets.contains("SET idle_session_timeout"), idle, "{sets}");
            let got = sets.contains("SET transaction_timeout");
            assert_eq!(got, transaction, "{sets}");
        }
        let working = super::sets(Purpose::Working, Some("17.2"));
        assert!(!working.contains("transaction_timeout"), "{working}");
    }
}
