//! What is looked at and made at the start: the server's settings, the tables, the rights.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::protocol::types::StoreId;
use crate::resource::identity::{Identity, Owner};

use super::connection::Connection;
use super::error::ConnectError;

/// The first version that has all that is asked of it. (Tested with 15.)
const VERSION_MIN: i32 = 13;

/// Whoever makes the tables holds this lock, since `IF NOT EXISTS` alone lets two collide.
const LOCK: i64 = 0x7061_786f_735f_6332;

const SCHEMA_BYTES_MAX: usize = 63;

/// An identifier that needs no quotes.
pub(super) fn check_name(schema: &str) -> Result<(), ConnectError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = schema.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if begins && schema.len() <= SCHEMA_BYTES_MAX && schema.bytes().all(allowed) {
        return Ok(());
    }
    let got = schema.to_owned();
    Err(ConnectError::Schema { got })
}

/// Refuses a server that cannot take part; makes the tables where they are missing.
pub(super) async fn prepare_server(
    connection: &Connection,
    schema: &str,
    prepared_max: usize,
) -> Result<(), ConnectError> {
    check_process(connection).await?;
    check_settings(&connection.client, prepared_max).await?;
    if !exists(connection, schema).await? {
        create(connection, schema).await?;
    }
    check_rights(connection, schema).await?;
    check_secrecy(connection, schema).await
}

/// A process of the server that is at nobody knows what must be ended.
async fn check_process(connection: &Connection) -> Result<(), ConnectError> {
    if connection.backend.is_some() {
        return Ok(());
    }
    let what = "say who has logged in";
    let sql = "SELECT session_user::text";
    let row = connection.client.query_typed_one(sql, &[]).await;
    let row = row.map_err(|source| ConnectError::Server { what, source })?;
    let (role, login) = (connection.user.clone(), row.get::<_, String>(0));
    let quoted = |name: &str| name.replace('"', "\"\"");
    Err(ConnectError::Rights {
        what: "see and end its own processes, which belong to the role that has logged in",
        sql: format!("GRANT \"{}\" TO \"{}\"", quoted(&login), quoted(&role)),
        role,
        source: None,
    })
}

async fn check_settings(client: &Client, prepared_max: usize) -> Result<(), ConnectError> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int4, \
               pg_catalog.current_setting('server_version'), \
               pg_catalog.current_setting('max_prepared_transactions')::int4, \
               pg_catalog.current_setting('fsync')::bool, \
               pg_catalog.current_setting('full_page_writes')::bool, \
               pg_catalog.pg_is_in_recovery()";
    let what = "say how it is set up";
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(|source| ConnectError::Server { what, source })?;
    if row.get::<_, i32>(0) < VERSION_MIN * 10_000 {
        return Err(ConnectError::TooOld {
            expected: VERSION_MIN as u32,
            got: row.get(1),
        });
    }
    if row.get(5) {
        return Err(ConnectError::Standby);
    }
    let got: i32 = row.get(2);
    if got == 0 {
        let expected = prepared_max;
        return Err(ConnectError::Disabled { expected });
    }
    if usize::try_from(got).is_ok_and(|got| got < prepared_max) {
        tracing::warn!(
            got,
            expected = prepared_max,
            "max_prepared_transactions is lower than what can work here at a time: some will abort"
        );
    }
    for (setting, at) in [("fsync", 3), ("full_page_writes", 4)] {
        if !row.get::<_, bool>(at) {
            tracing::error!(
                setting,
                "is off: what was voted and committed is lost when the machine loses its power"
            );
        }
    }
    Ok(())
}

async fn exists(connection: &Connection, schema: &str) -> Result<bool, ConnectError> {
    // Not by `to_regclass`: without a right to the schema that is an error.
    let sql = "SELECT count(*) FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname IN ('committed', 'store')";
    let parameters = [(&schema as _, Type::TEXT)];
    let row = connection.client.query_typed_one(sql, &parameters).await;
    let what = "say whether the tables are there";
    let row = row.map_err(|source| ConnectError::Server { what, source })?;
    Ok(row.get::<_, i64>(0) == 2)
}

async fn create(connection: &Connection, schema: &str) -> Result<(), ConnectError> {
    let sql = tables(schema);
    let batch = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SELECT pg_catalog.pg_advisory_xact_lock({LOCK}); {sql} COMMIT"
    );
    match connection.client.batch_execute(&batch).await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let role = &connection.user;
            Err(ConnectError::Rights {
                role: role.clone(),
                what: "make the adapter's tables",
                sql: format!("{sql} {}", rights(schema, role)),
                source: Some(error),
            })
        }
        Err(source) => {
            let what = "make the adapter's tables";
            Err(ConnectError::Server { what, source })
        }
    }
}

async fn check_rights(connection: &Connection, schema: &str) -> Result<(), ConnectError> {
    // By name: where there is no right to the schema itself, this is an error of that kind.
    let sql = "SELECT bool_and(pg_catalog.has_table_privilege($1 || name, right_)) \
               FROM (VALUES ('committed', 'SELECT'), ('committed', 'INSERT'), \
               ('committed', 'UPDATE'), ('committed', 'DELETE'), \
               ('store', 'SELECT'), ('store', 'INSERT')) AS needed (name, right_)";
    let prefix = format!("{schema}.");
    let parameters = [(&prefix as _, Type::TEXT)];
    let answer = connection.client.query_typed_one(sql, &parameters).await;
    let source = match answer {
        Ok(row) if row.get(0) => return Ok(()),
        Ok(_) => None,
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Some(error),
        Err(source) => {
            let what = "say what the role may do";
            return Err(ConnectError::Server { what, source });
        }
    };
    let role = connection.user.clone();
    Err(ConnectError::Rights {
        sql: rights(schema, &role),
        role,
        what: "use the adapter's tables",
        source,
    })
}

/// Refuses tables that every role may read: the key of the names is in one of them.
async fn check_secrecy(connection: &Connection, schema: &str) -> Result<(), ConnectError> {
    let sql = "SELECT bool_or(pg_catalog.has_table_privilege('public', $1 || name, 'SELECT')) \
               FROM pg_catalog.unnest(ARRAY['committed', 'store']) AS name";
    let prefix = format!("{schema}.");
    let parameters = [(&prefix as _, Type::TEXT)];
    let answer = connection.client.query_typed_one(sql, &parameters).await;
    let what = "say who may read the adapter's tables";
    let row = answer.map_err(|source| ConnectError::Server { what, source })?;
    match row.get(0) {
        false => Ok(()),
        true => Err(ConnectError::Public {
            sql: secrecy(schema),
        }),
    }
}

/// The identity of the store, and the key of its names: draws them if this database has none for this
/// owner. Of several processes that do so at the same time, all read the row of the first.
pub(super) async fn identity(
    connection: &Connection,
    schema: &str,
    owner: &Owner,
) -> Result<Identity, ConnectError> {
    let what = "keep the identity of the store";
    let failed = |source| ConnectError::Server { what, source };
    let drawn = Identity::draw();
    // Another identity after a crash of the server, or on a standby that is promoted, would lose what
    // was prepared under this one: this waits for the standby, as every session of the adapter does.
    let insert = format!(
        "INSERT INTO {schema}.store (cluster, participant, database, identity, secret) \
         VALUES ($1, $2, pg_catalog.current_database(), $3, $4) ON CONFLICT DO NOTHING"
    );
    let store = drawn.store.to_string();
    let (cluster, participant) = (owner.cluster.as_str(), owner.participant.as_str());
    let parameters = [
        (&cluster as _, Type::TEXT),
        (&participant as _, Type::TEXT),
        (&store as _, Type::TEXT),
        (&drawn.key() as _, Type::BYTEA),
    ];
    let (client, sql) = (&connection.client, select(schema, "identity, secret"));
    // In a statement of its own: one that has just waited for another process's row does not see it.
    let inserting = client.execute_typed(&insert, &parameters);
    inserting.await.map_err(failed)?;
    let row = client.query_typed_opt(&sql, &parameters[..2]).await;
    let row = row.map_err(failed)?;
    let read = row.and_then(|row| Identity::read(row.get(0), row.get(1)));
    read.ok_or_else(|| ConnectError::Damaged {
        table: format!("{schema}.store"),
    })
}

/// The identity that the database has now; none if it has no row, or not even the table.
pub(super) async fn found_identity(
    client: &Client,
    schema: &str,
    owner: &Owner,
) -> Result<Option<StoreId>, Error> {
    let sql = select(schema, "identity");
    let (cluster, participant) = (owner.cluster.as_str(), owner.participant.as_str());
    let parameters = [(&cluster as _, Type::TEXT), (&participant as _, Type::TEXT)];
    match client.query_typed_opt(&sql, &parameters).await {
        Ok(row) => Ok(row.and_then(|row| row.get::<_, &str>(0).parse().ok())),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

fn select(schema: &str, columns: &str) -> String {
    // Sessions to work on have the `search_path` of the service, where other operators may stand first.
    format!(
        "SELECT {columns} FROM {schema}.store WHERE cluster OPERATOR(pg_catalog.=) $1 \
         AND participant OPERATOR(pg_catalog.=) $2 \
         AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
    )
}

/// The tables; the module's docs tell what they hold.
fn tables(schema: &str) -> String {
    let secrecy = secrecy(schema);
    // Rows of `committed` come and go, in the order of their names: vacuum often.
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}; \
         CREATE TABLE IF NOT EXISTS {schema}.committed (gid text COLLATE \"C\" PRIMARY KEY) \
         WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000); \
         CREATE TABLE IF NOT EXISTS {schema}.store (cluster text, participant text, database text, \
         identity text NOT NULL, secret bytea NOT NULL, PRIMARY KEY (cluster, participant, database)); \
         {secrecy}"
    )
}

/// Default privileges may have given every role the right to read.
fn secrecy(schema: &str) -> String {
    format!("REVOKE ALL ON {schema}.committed, {schema}.store FROM PUBLIC;")
}

fn rights(schema: &str, role: &str) -> String {
    let role = role.replace('"', "\"\"");
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO \"{role}\"; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.committed TO \"{role}\"; \
         GRANT SELECT, INSERT ON {schema}.store TO \"{role}\";"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_an_identifier_without_quotes() {
        for good in ["paxos_commit", "_x", "a1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for wrong in ["", "1a", "A", "a-b", "a.b", "a\"b", "é", &long] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_role_is_quoted() {
        let sql = rights("s", "it\"s");
        assert!(sql.contains("TO \"it\"\"s\";"), "{sql}");
    }
}
