//! What the adapter sets in its sessions, whatever the server, its `init_connect` or the URL sets: at
//! first, and whenever a session was cleaned.

use std::time::Duration;

use super::options::Options;

/// A session is not closed for this much longer than the options let it be idle.
const MARGIN: Duration = Duration::from_secs(60);

/// For all sessions. With `autocommit` = 0 a session that has read anything can finish no branch; a
/// transaction that may only read writes no row of a branch. With `unique_checks` = 0 and
/// `foreign_key_checks` = 0 the first row of an empty table locks the whole table, and the others wait
/// until its branch has ended.
const COMMON: &str = "SET SESSION autocommit = 1, unique_checks = 1, \
                      idle_readonly_transaction_timeout = 0, idle_write_transaction_timeout = 0; \
                      SET SESSION TRANSACTION READ WRITE";

/// Sessions in which a service works. What it may set for its own statements stays as it is:
/// `sql_mode`, or how long a statement may take.
pub(super) fn working(options: &Options) -> String {
    let (lock_max, idle_max) = (seconds(options.lock_max), seconds(options.idle_max));
    let open_max = seconds(options.idle_max.max(options.hold_max) + MARGIN);
    format!(
        "{COMMON}; SET SESSION TRANSACTION ISOLATION LEVEL {}; SET SESSION \
         innodb_lock_wait_timeout = {lock_max}, lock_wait_timeout = {lock_max}, \
         idle_transaction_timeout = {idle_max}, wait_timeout = GREATEST(@@wait_timeout, {open_max})",
        options.isolation
    )
}

/// Sessions that only the adapter uses.
///
/// Above READ COMMITTED the removal of markers would lock gaps between them. `sql_safe_updates` refuses
/// statements that name no key, and `completion_type` has a `COMMIT` begin the next transaction or end
/// the session. Some words of `sql_mode` give statements another meaning, or leave out the engine of a
/// table where it is shown.
pub(super) fn finishing(options: &Options) -> String {
    let (answer_max, open_max) = (seconds(options.answer_max), seconds(MARGIN));
    format!(
        "{COMMON}; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION \
         sql_mode = 'STRICT_TRANS_TABLES', sql_safe_updates = 0, completion_type = 'NO_CHAIN', \
         max_statement_time = 0, sql_select_limit = DEFAULT, sql_big_selects = 1, \
         sql_auto_is_null = 0, innodb_lock_wait_timeout = {answer_max}, \
         lock_wait_timeout = {answer_max}, idle_transaction_timeout = 0, \
         wait_timeout = GREATEST(@@wait_timeout, {open_max})"
    )
}

/// As the server's settings take it: 0 would mean at once, or never. The longest is a year.
fn seconds(time: Duration) -> u64 {
    time.as_secs().clamp(1, 31_536_000)
}
