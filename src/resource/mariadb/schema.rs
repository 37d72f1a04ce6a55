//! What is looked at and made at the start: the server's settings, the tables, the rights.

use mysql_async::prelude::Queryable;

use crate::protocol::types::StoreId;
use crate::resource::identity::{Identity, Owner};

use super::connection::Connection;
use super::error::{ConnectError, code, code_of};
use super::xid::hex;

/// The first version that has all that is asked of it (`SKIP LOCKED`). Tested with 10.11.
const VERSION_MIN: (u16, u16) = (10, 6);
const VERSION_MIN_TEXT: &str = "10.6";

/// The adapter's tables, in the database of the service, each with its full name.
pub(super) struct Tables {
    /// A row for each branch that stands prepared, and for each that committed, until it is settled.
    pub(super) branch: String,
    /// The identity of the store and the key of its names, for each participant.
    pub(super) store: String,
    /// Written to only so that the log is forced to disk.
    pub(super) forced: String,
}

impl Tables {
    pub(super) fn new(database: &str) -> Self {
        let name = |table| format!("`{}`.`{table}`", database.replace('`', "``"));
        Tables {
            branch: name("paxos_commit_branch"),
            store: name("paxos_commit_store"),
            forced: name("paxos_commit_forced"),
        }
    }

    fn all(&self) -> [(&str, &'static str); 3] {
        [
            (
                &self.branch,
                "owner BINARY(16) NOT NULL, commit_id BINARY(48) NOT NULL, \
                 session BINARY(8) NOT NULL, process BINARY(8) NOT NULL, \
                 PRIMARY KEY (owner, commit_id, session)",
            ),
            (
                &self.store,
                "cluster VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                 participant VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                 db VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, \
                 identity CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                 secret BINARY(32) NOT NULL, PRIMARY KEY (cluster, participant, db)",
            ),
            (
                &self.forced,
                "slot INT UNSIGNED NOT NULL PRIMARY KEY, times BIGINT UNSIGNED NOT NULL",
            ),
        ]
    }
}

/// Refuses a server that cannot take part, and warns about what is dangerous.
pub(super) async fn check_server(connection: &mut Connection) -> Result<(), ConnectError> {
    let what = "say how it is set up";
    let failed = |source| ConnectError::Server { what, source };
    let version = connection.row::<String>("SELECT VERSION()").await;
    let got = version.map_err(failed)?.unwrap_or_default();
    let is_mariadb = got.to_ascii_lowercase().contains("mariadb");
    let (major, minor, _) = connection.conn.server_version();
    if !is_mariadb || (major, minor) < VERSION_MIN {
        return Err(ConnectError::Version {
            expected: VERSION_MIN_TEXT,
            got,
        });
    }
    let settings = connection.row::<SettingsRow>(Settings::SQL).await;
    let settings = settings.map_err(failed)?.map(Settings::from);
    settings.map_or(Ok(()), |settings| settings.check())?;
    let replication = connection.rows(Replication::SQL).await.map_err(failed)?;
    if (Replication {
        settings: replication,
    })
    .misses_votes()
    {
        tracing::error!(
            "expected rpl_semi_sync_master_wait_point = AFTER_SYNC, got AFTER_COMMIT: else no vote waits \
             for a replica, and a replica that is promoted may lack what was voted"
        );
    }
    Ok(())
}

/// What is set about semi-synchronous replication: names and values. Nothing, if the server does not
/// know it.
struct Replication {
    settings: Vec<(String, String)>,
}

impl Replication {
    const SQL: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
                       ('rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_wait_point')";

    /// Whether it is on, and `XA PREPARE` does not wait. (Seen on 10.11.19: only `AFTER_SYNC` has it
    /// wait.)
    fn misses_votes(&self) -> bool {
        let value_of = |name: &str| {
            let found = self.settings.iter().find(|(of, _)| of.ends_with(name));
            found.map(|(_, value)| value.as_str())
        };
        let is_on = value_of("enabled").is_some_and(|enabled| !is_off(enabled));
        is_on
            && value_of("wait_point")
                .is_some_and(|point| point.eq_ignore_ascii_case("after_commit"))
    }
}

/// The name of the database, as the server spells it. One that folds names (`lower_case_table_names`)
/// takes any spelling in the URL, and what is prepared must be found under each.
pub(super) async fn database(connection: &mut Connection) -> Result<String, ConnectError> {
    let what = "say which database it is";
    let found = connection.row::<Option<String>>("SELECT DATABASE()").await;
    let found = found.map_err(|source| ConnectError::Server { what, source })?;
    found.flatten().ok_or(ConnectError::NoDatabase)
}

/// What is looked at. Text, since a version may tell as a number (`1`) what a later one tells as a
/// word (`ON`): `innodb_doublewrite` from 11.0.6 on, for example.
#[derive(Clone, Debug)]
struct Settings {
    read_only: String,
    flush: String,
    log_bin: String,
    sync_binlog: String,
    format: String,
    doublewrite: String,
}

type SettingsRow = (String, String, String, String, String, String);

impl From<SettingsRow> for Settings {
    fn from(row: SettingsRow) -> Self {
        let (read_only, flush, log_bin, sync_binlog, format, doublewrite) = row;
        Settings {
            read_only,
            flush,
            log_bin,
            sync_binlog,
            format,
            doublewrite,
        }
    }
}

impl Settings {
    /// In the order of the fields.
    const SQL: &str = "SELECT @@read_only, @@innodb_flush_log_at_trx_commit, @@log_bin, \
                       @@sync_binlog, @@binlog_format, @@innodb_doublewrite";

    fn check(&self) -> Result<(), ConnectError> {
        // It has more words than ON by now, each for a server that refuses somebody's writes.
        if !is_off(&self.read_only) {
            return Err(ConnectError::ReadOnly);
        }
        let is_logged = !is_off(&self.log_bin);
        if is_logged && self.format.eq_ignore_ascii_case("statement") {
            return Err(ConnectError::Statements);
        }
        for (setting, expected, got) in self.losses() {
            let lost = "what was voted and committed is lost when the machine loses its power";
            tracing::error!("expected {setting} = {expected}, got {got}: else {lost}");
        }
        Ok(())
    }

    /// What is dangerous: which setting, what is expected, what it is.
    fn losses(&self) -> Vec<(&'static str, &'static str, &str)> {
        let mut losses = Vec::new();
        if !["1", "3"].contains(&self.flush.as_str()) {
            losses.push(("innodb_flush_log_at_trx_commit", "1", self.flush.as_str()));
        }
        if !is_off(&self.log_bin) && self.sync_binlog != "1" {
            losses.push(("sync_binlog", "1", &self.sync_binlog));
        }
        if is_off(&self.doublewrite) {
            losses.push(("innodb_doublewrite", "ON", &self.doublewrite));
        }
        losses
    }
}

fn is_off(setting: &str) -> bool {
    setting == "0" || setting.eq_ignore_ascii_case("off")
}

/// Makes the tables where they are missing, and tries whether they can be used.
pub(super) async fn prepare_tables(
    connection: &mut Connection,
    tables: &Tables,
) -> Result<(), ConnectError> {
    for (table, columns) in tables.all() {
        let sql = format!("CREATE TABLE IF NOT EXISTS {table} ({columns}) ENGINE=InnoDB");
        // Who may not make tables may well use them.
        let exists = format!("SELECT 1 FROM {table} LIMIT 1");
        if connection.conn.query_drop(&exists).await.is_err() {
            let what = "make its tables";
            let made = connection.conn.query_drop(&sql).await;
            made.map_err(|source| ConnectError::Rights {
                what,
                sql: sql.clone(),
                source,
            })?;
        }
        check_engine(connection, table).await?;
        try_rights(connection, table, columns)
            .await
            .map_err(|source| {
                let what = "read and write its tables";
                ConnectError::Rights { what, sql, source }
            })?;
    }
    Ok(())
}

async fn check_engine(connection: &mut Connection, table: &str) -> Result<(), ConnectError> {
    let what = "describe the adapter's tables";
    let failed = |source| ConnectError::Server { what, source };
    let made = connection.row(format!("SHOW CREATE TABLE {table}")).await;
    let made: Option<(String, String)> = made.map_err(failed)?;
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

/// The identity of the store, and the key of its names: draws them if this database has none for this
/// owner. Of several processes that do so at the same time, all read the row of the first.
pub(super) async fn identity(
    connection: &mut Connection,
    tables: &Tables,
    owner: &Owner,
) -> Result<Identity, ConnectError> {
    let what = "keep the identity of the store";
    let failed = |source| ConnectError::Server { what, source };
    let (table, drawn) = (&tables.store, Identity::draw());
    let (cluster, participant) = (owner.cluster.as_str(), owner.participant.as_str());
    let insert = format!(
        "INSERT INTO {table} (cluster, participant, db, identity, secret) \
         VALUES ('{cluster}', '{participant}', DATABASE(), '{}', X'{}') \
         ON DUPLICATE KEY UPDATE identity = identity",
        drawn.store,
        hex(drawn.key())
    );
    connection.conn.query_drop(insert).await.map_err(failed)?;
    let select = select(table, "identity, secret", owner);
    let row = connection.row::<(String, Vec<u8>)>(select).await;
    let read = row.map_err(failed)?;
    let read = read.and_then(|(store, key)| Identity::read(&store, &key));
    read.ok_or_else(|| ConnectError::Damaged {
        table: table.clone(),
    })
}

/// The identity that the database has now; none if it has no row, or not even the table.
pub(super) async fn found_identity(
    connection: &mut Connection,
    table: &str,
    owner: &Owner,
) -> Result<Option<StoreId>, mysql_async::Error> {
    let row = connection
        .row::<String>(select(table, "identity", owner))
        .await;
    match row {
        Ok(row) => Ok(row.and_then(|identity| identity.parse().ok())),
        Err(error) if code_of(&error) == Some(code::NO_SUCH_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

fn select(table: &str, columns: &str, owner: &Owner) -> String {
    // Names of clusters and participants hold no quotes.
    format!(
        "SELECT {columns} FROM {table} WHERE cluster = '{}' AND participant = '{}' \
         AND db = DATABASE()",
        owner.cluster.as_str(),
        owner.participant.as_str()
    )
}

/// Statements that need every right and change nothing.
async fn try_rights(
    connection: &mut Connection,
    table: &str,
    columns: &str,
) -> Result<(), mysql_async::Error> {
    let column = columns.split(' ').next().unwrap_or_default();
    for sql in [
        format!("SELECT 1 FROM {table} WHERE 1 = 0"),
        format!("INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0"),
        format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
        format!("DELETE FROM {table} WHERE 1 = 0"),
    ] {
        connection.conn.query_drop(sql).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: [&str; 6]) -> Settings {
        let [read_only, flush, log_bin, sync, format, doublewrite] = values.map(str::to_owned);
        (read_only, flush, log_bin, sync, format, doublewrite).into()
    }

    #[test]
    fn votes_do_not_wait_where_only_commits_do() {
        for (enabled, point, expected) in [
            ("ON", "AFTER_COMMIT", true),
            ("1", "after_commit", true),
            ("ON", "AFTER_SYNC", false),
            ("OFF", "AFTER_COMMIT", false),
        ] {
            let settings = [("enabled", enabled), ("wait_point", point)];
            let settings = settings
                .map(|(name, value)| (format!("rpl_semi_sync_master_{name}"), value.to_owned()));
            let settings = settings.to_vec();
            assert_eq!(Replication { settings }.misses_votes(), expected);
        }
        let settings = Vec::new();
        assert!(!Replication { settings }.misses_votes());
    }

    #[test]
    fn settings_are_read_as_numbers_and_as_words() {
        for values in [
            ["0", "1", "0", "0", "MIXED", "1"],
            ["OFF", "1", "OFF", "0", "STATEMENT", "ON"],
            ["off", "3", "ON", "1", "ROW", "fast"],
        ] {
            let settings = settings(values);
            assert!(settings.check().is_ok(), "{settings:?}");
            assert_eq!(settings.losses(), [], "{settings:?}");
        }
        for read_only in ["1", "ON", "NO_LOCK"] {
            let settings = settings([read_only, "1", "0", "0", "ROW", "ON"]);
            assert!(matches!(settings.check(), Err(ConnectError::ReadOnly)));
        }
        for log_bin in ["1", "ON"] {
            let settings = settings(["0", "1", log_bin, "1", "STATEMENT", "ON"]);
            assert!(matches!(settings.check(), Err(ConnectError::Statements)));
        }
        for off in ["0", "OFF"] {
            let settings = settings([off, "2", "ON", "0", "ROW", off]);
            assert!(settings.check().is_ok());
            assert_eq!(settings.losses().len(), 3, "{settings:?}");
        }
    }
}
