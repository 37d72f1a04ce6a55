//! What is looked at and made at the start: the server's settings, the tables, the rights.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

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
    check_rights(connection, schema).await
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
               WHERE n.nspname = $1 AND c.relname IN ('committed', 'settled', 'disputed')";
    let parameters = [(&schema as _, Type::TEXT)];
    let row = connection.client.query_typed_one(sql, &parameters).await;
    let what = "say whether the tables are there";
    let row = row.map_err(|source| ConnectError::Server { what, source })?;
    Ok(row.get::<_, i64>(0) == 3)
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
               FROM pg_catalog.unnest(ARRAY['committed', 'settled', 'disputed']) AS name, \
               pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_";
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

/// The tables; the module's docs tell what they hold.
fn tables(schema: &str) -> String {
    // Rows of `committed` come and go, in the order of their ids: vacuum often.
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}; \
         CREATE TABLE IF NOT EXISTS {schema}.committed (gid text COLLATE \"C\" PRIMARY KEY) \
         WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000); \
         CREATE TABLE IF NOT EXISTS {schema}.settled (prefix text COLLATE \"C\" PRIMARY KEY, \
         through text COLLATE \"C\" NOT NULL); \
         CREATE TABLE IF NOT EXISTS {schema}.disputed (gid text COLLATE \"C\" PRIMARY KEY);"
    )
}

fn rights(schema: &str, role: &str) -> String {
    let role = role.replace('"', "\"\"");
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO \"{role}\"; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.committed, {schema}.settled, \
         {schema}.disputed TO \"{role}\";"
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
