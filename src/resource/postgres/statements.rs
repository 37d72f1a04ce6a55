//! What the adapter says on each connection of work, parsed and planned once for each.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use super::work::MARK;

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
        // The first column is no name, so that no table of the service can be in the way. What is
        // written through a foreign table, and what is locked for others' sake, has no xid.
        let who = format!("SELECT pg_catalog.current_setting('{MARK}', true), current_user::text");
        let inspect = format!(
            "{who}, pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL \
             OR EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() \
             AND (locktype = 'advisory' OR locktype = 'relation' \
             AND mode NOT IN ('AccessShareLock', 'SIReadLock')))"
        );
        // In a transaction that is not the branch's the marker would prove what never was; and what
        // another role has prepared the adapter's may not finish. So a division by zero fails the
        // transaction, and what comes next does not prepare it.
        let mark = format!(
            "INSERT INTO {schema}.committed SELECT $1 WHERE 1 / \
             (pg_catalog.current_setting('{MARK}', true) IS NOT DISTINCT FROM $2 \
             AND current_user::text = $3)::int = 1"
        );
        let texts = [Type::TEXT, Type::TEXT, Type::TEXT];
        let (who, inspect, mark) = tokio::try_join!(
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
