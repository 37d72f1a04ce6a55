//! What the adapter says on each connection of work, parsed and planned once for each.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use super::session::{ARE_DURABLE, DURABLE};
use super::work::MARK;

/// The statement that has what follows wait for the standbys, up to the end of the transaction,
/// whatever the work has set. The server warns when the wait was cut short. (`statement_timeout` does
/// not count any more when `PREPARE TRANSACTION` waits.) By name, so that it can stand between others in
/// one message.
pub(super) const MAKE_DURABLE: &str = "paxos_commit_durable";

/// The statements of one connection. They outlive whatever the adapter itself does to clean up; a
/// service can remove them (`DEALLOCATE ALL`), and then its branch aborts, and the connection goes.
pub(super) struct Statements {
    /// The mark of the local transaction, and the role.
    pub(super) who: Statement,
    /// The same, and whether anything was written, or locked for longer than to be read. The server
    /// goes through the locks of everybody for that.
    pub(super) inspect: Statement,
    /// Writes the marker `$1`; an error unless the local transaction has the mark `$2` and the role
    /// `$3`.
    pub(super) mark: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client, schema: &str) -> Result<Self, Error> {
        // The first column is no name, so that no table of the service can be in the way; and nothing
        // is looked for in its `search_path`. What is written through a foreign table, and what is
        // locked for others' sake, has no xid.
        let who = format!(
            "SELECT pg_catalog.current_setting('{MARK}', true), current_user::pg_catalog.text"
        );
        let inspect = format!(
            "{who}, pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL \
             OR EXISTS (SELECT FROM pg_catalog.pg_locks \
             WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
             AND (locktype OPERATOR(pg_catalog.=) 'advisory' \
             OR locktype OPERATOR(pg_catalog.=) 'relation' \
             AND mode OPERATOR(pg_catalog.<>) ALL ('{{AccessShareLock,SIReadLock}}')))"
        );
        // In a transaction that is not the branch's the marker would prove what never was; and what
        // another role has prepared the adapter's may not finish. So a division by zero fails the
        // transaction, and what comes next does not prepare it.
        let mark = format!(
            "INSERT INTO {schema}.committed SELECT $1 WHERE 1 OPERATOR(pg_catalog./) \
             (COALESCE(pg_catalog.current_setting('{MARK}', true), '') OPERATOR(pg_catalog.=) $2 \
             AND current_user::pg_catalog.text OPERATOR(pg_catalog.=) $3)::pg_catalog.int4 \
             OPERATOR(pg_catalog.=) 1"
        );
        let durable = format!(
            "PREPARE {MAKE_DURABLE} AS SELECT \
             pg_catalog.set_config('client_min_messages', 'warning', true), \
             CASE WHEN pg_catalog.current_setting('synchronous_commit') \
             OPERATOR(pg_catalog.<>) ALL ('{{{ARE_DURABLE}}}') \
             THEN pg_catalog.set_config('synchronous_commit', '{DURABLE}', true) END"
        );
        let texts = [Type::TEXT, Type::TEXT, Type::TEXT];
        let ((), who, inspect, mark) = tokio::try_join!(
            client.batch_execute(&durable),
            client.prepare(&who),
            client.prepare(&inspect),
            client.prepare_typed(&mark, &texts),
        )?;
        Ok(Statements { who, inspect, mark })
    }

    /// Whether an error says that they are gone.
    pub(super) fn are_gone(error: &Error) -> bool {
        error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
    }
}
