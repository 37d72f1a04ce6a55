//! What is looked at and made at the start: the server's settings, the tables, the rights.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::error::ConnectError;

/// The first version that has all that is asked of it (`SKIP LOCKED`). Tested with 10.11.
const VERSION_MIN: (u16, u16) = (10, 6);
const VERSION_MIN_TEXT: &str = "10.6";

/// The adapter's tables, in the database of the service, each with its full name.
pub(super) struct Tables {
    /// A row for each branch that stands prepared, and for each that committed, until it is settled.
    pub(super) branch: String,
    /// The horizon.
    pub(super) settled: String,
    /// Written to only so that the log is forced to disk.
    pub(super) forced: String,
}

impl Tables {
    pub(super) fn new(database: &str) -> Self {
        let name = |table| format!("`{}`.`{table}`", database.replace('`', "``"));
        Tables {
            branch: name("paxos_commit_branch"),
            settled: name("paxos_commit_settled"),
            forced: name("paxos_commit_forced"),
        }
    }

    fn all(&self) -> [(&str, &'static str); 3] {
        [
            (
                &self.branch,
                "owner BINARY(16) NOT NULL, commit_id BINARY(32) NOT NULL, \
                 session BINARY(8) NOT NULL, process BINARY(8) NOT NULL, \
                 PRIMARY KEY (owner, commit_id, session)",
            ),
            (
                &self.settled,
                "owner BINARY(16) NOT NULL PRIMARY KEY, through BINARY(32) NOT NULL",
            ),
            (
                &self.forced,
                "slot INT UNSIGNED NOT NULL PRIMARY KEY, times BIGINT UNSIGNED NOT NULL",
            ),
        ]
    }
}

/// Refuses a server that cannot take part, and warns about what is dangerous.
pub(super) async fn check_server(conn: &mut Conn) -> Result<(), ConnectError> {
    let what = "say how it is set up";
    let failed = |source| ConnectError::Server { what, source };
    let version: Option<String> = conn.query_first("SELECT VERSION()").await.map_err(failed)?;
    let got = version.unwrap_or_default();
    let is_mariadb = got.to_ascii_lowercase().contains("mariadb");
    let (major, minor, _) = conn.server_version();
    if !is_mariadb || (major, minor) < VERSION_MIN {
        return Err(ConnectError::Version {
            expected: VERSION_MIN_TEXT,
            got,
        });
    }
    let sql = "SELECT @@read_only, @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog, \
               @@binlog_format, @@innodb_doublewrite";
    let row: Option<(bool, u8, bool, u32, String, bool)> =
        conn.query_first(sql).await.map_err(failed)?;
    let Some((read_only, flush, log_bin, sync_binlog, format, doublewrite)) = row else {
        return Ok(());
    };
    if read_only {
        return Err(ConnectError::ReadOnly);
    }
    if log_bin && format.eq_ignore_ascii_case("statement") {
        return Err(ConnectError::Statements);
    }
    let lost = "what was voted and committed is lost when the machine loses its power";
    if flush != 1 && flush != 3 {
        tracing::error!(innodb_flush_log_at_trx_commit = flush, "expected 1: {lost}");
    }
    if log_bin && sync_binlog != 1 {
        tracing::error!(sync_binlog, "expected 1: {lost}");
    }
    if !doublewrite {
        tracing::error!("innodb_doublewrite is off: {lost}");
    }
    Ok(())
}

/// Makes the tables where they are missing, and tries whether they can be used.
pub(super) async fn prepare_tables(conn: &mut Conn, tables: &Tables) -> Result<(), ConnectError> {
    for (table, columns) in tables.all() {
        let sql = format!("CREATE TABLE IF NOT EXISTS {table} ({columns}) ENGINE=InnoDB");
        // Who may not make tables may well use them.
        let exists = format!("SELECT 1 FROM {table} LIMIT 1");
        if conn.query_drop(&exists).await.is_err() {
            let what = "make its tables";
            let made = conn.query_drop(&sql).await;
            made.map_err(|source| ConnectError::Rights {
                what,
                sql: sql.clone(),
                source,
            })?;
        }
        check_engine(conn, table).await?;
        try_rights(conn, table, columns).await.map_err(|source| {
            let what = "read and write its tables";
            ConnectError::Rights { what, sql, source }
        })?;
    }
    Ok(())
}

async fn check_engine(conn: &mut Conn, table: &str) -> Result<(), ConnectError> {
    let what = "describe the adapter's tables";
    let failed = |source| ConnectError::Server { what, source };
    let made: Option<(String, String)> = conn
        .query_first(format!("SHOW CREATE TABLE {table}"))
        .await
        .map_err(failed)?;
    let text = made.map(|(_, text)| text).unwrap_or_default();
    let engine = text.rsplit_once("ENGINE=").map_or("", |(_, rest)| rest);
    let engine = engine.split_whitespace().next().unwrap_or_default();
    if engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(());
    }
    Err(ConnectError::Engine {
        table: table.to_owned(),
        got: engine.to_owned(),
    })
}

/// Statements that need every right and change nothing.
async fn try_rights(conn: &mut Conn, table: &str, columns: &str) -> Result<(), mysql_async::Error> {
    let column = columns.split(' ').next().unwrap_or_default();
    for sql in [
        format!("SELECT 1 FROM {table} WHERE 1 = 0"),
        format!("INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0"),
        format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
        format!("DELETE FROM {table} WHERE 1 = 0"),
    ] {
        conn.query_drop(sql).await?;
    }
    Ok(())
}
