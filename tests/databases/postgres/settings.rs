//! What a server, a database or a role sets changes nothing for the adapter.

use std::sync::Arc;
use std::thread;

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::Postgres;

use super::support::{Base, branch, connect, ids_in_doubt, prepare, txn, until};

/// Operators, functions and types that come before the server's own, and do something else.
const EVIL: &str = "CREATE SCHEMA evil;
    CREATE FUNCTION evil.no(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.no(text, name) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.no(name, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.no(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.nought(int, int) RETURNS int LANGUAGE sql AS 'SELECT 0';
    CREATE FUNCTION evil.count(int) RETURNS int8 LANGUAGE sql AS 'SELECT 0::pg_catalog.int8';
    CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.no);
    CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = name, FUNCTION = evil.no);
    CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = pg_catalog.text, FUNCTION = evil.no);
    CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.no);
    CREATE OPERATOR evil./ (LEFTARG = int4, RIGHTARG = int4, FUNCTION = evil.nought);
    CREATE DOMAIN evil.text AS pg_catalog.int4;
    CREATE DOMAIN evil.int4 AS pg_catalog.int8;
    CREATE DOMAIN evil.int8 AS pg_catalog.int2";

/// Work, a commit, its proof, a rollback and a horizon.
async fn does_all_it_must(base: &Base, setting: &str) {
    let postgres = base.open().await;
    for n in [1, 2] {
        let work = postgres.work(txn(n)).await.unwrap();
        let sql = "INSERT INTO public.noted VALUES (1)";
        work.client().batch_execute(sql).await.unwrap();
        drop(work);
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared, "{setting}");
        assert_eq!(ids_in_doubt(&postgres).await, [branch(n).id], "{setting}");
        if n == 2 {
            postgres.rollback(&branch(n)).await.unwrap();
            continue;
        }
        for _ in 0..2 {
            let proof = postgres.commit(&branch(n)).await.unwrap();
            assert_eq!(proof, Proof::Found, "{setting}");
        }
    }
    let work = postgres.work(txn(3)).await.unwrap();
    let sql = "SELECT FROM public.noted";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    let read = postgres.prepare(&branch(3), None, ReadOnly::Allowed).await;
    assert_eq!(read.unwrap(), Vote::ReadOnly, "{setting}");
    postgres.settled(branch(2).id, &[]).await.unwrap();
    let proof = postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(proof, Proof::Missing, "{setting}");
    assert!(base.names().await.is_empty(), "{setting}");
    let sql = "SELECT count(*) FROM public.noted";
    assert_eq!(base.count(sql).await, 1, "{setting}");
}

#[tokio::test]
async fn a_database_with_settings_of_its_own_takes_part_all_the_same() {
    let base = Arc::new(Base::new("strange").await);
    let mut failed = Vec::new();
    let sql = format!("CREATE TABLE noted (n int4); {EVIL}");
    base.admin.batch_execute(&sql).await.unwrap();
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_deferrable = on",
        "default_transaction_isolation = serializable",
        "standard_conforming_strings = off",
        "client_encoding = latin1",
        "client_min_messages = error",
        "bytea_output = escape",
        "datestyle = german",
        "intervalstyle = sql_standard",
        "extra_float_digits = -15",
        "row_security = off",
        "session_replication_role = replica",
        "transform_null_equals = on",
        "plan_cache_mode = force_generic_plan",
        "force_parallel_mode = on",
        "array_nulls = off",
        "track_activities = off",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "idle_session_timeout = '100ms'",
        "exit_on_error = on",
        "search_path = evil, pg_catalog",
    ] {
        let sql = format!(
            "ALTER DATABASE strange RESET ALL; ALTER DATABASE strange SET {setting};
             DROP SCHEMA IF EXISTS paxos_commit CASCADE; DELETE FROM noted"
        );
        base.admin.batch_execute(&sql).await.unwrap();
        let doing = tokio::spawn({
            let base = base.clone();
            async move { does_all_it_must(&base, setting).await }
        });
        if let Err(panic) = doing.await {
            failed.push(format!("{setting}: {panic}"));
            for name in base.names().await {
                let sql = format!("ROLLBACK PREPARED '{name}'");
                base.admin.batch_execute(&sql).await.unwrap();
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What ends a session that does nothing ends none of the adapter's, before its first work and after.
#[tokio::test]
async fn the_sessions_of_the_adapter_may_be_idle() {
    let base = Base::new("idle_sessions").await;
    let sql = "ALTER DATABASE idle_sessions SET idle_session_timeout = '50ms'";
    base.admin.batch_execute(sql).await.unwrap();
    let postgres = base.open_with(base.options().work_connections(1)).await;
    for n in [1, 2] {
        let work = postgres.work(txn(n)).await.unwrap();
        let shown = work.client().query_one("SHOW idle_session_timeout", &[]);
        assert_eq!(shown.await.unwrap().get::<_, &str>(0), "0");
        drop(work);
        postgres.rollback(&branch(n)).await.unwrap();
    }
}

/// Ends every other session of a database while this thread, and so everything that the test's runtime
/// does, stands still: nothing has heard of it when this returns.
fn end_sessions_unheard(base: &Base) {
    let url = base.url.clone();
    let ending = thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let admin = connect(&url).await;
            let others = "FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND application_name <> ''";
            let sql = format!("SELECT count(pg_terminate_backend(pid)) {others}");
            let ended = admin.query_one(&sql, &[]).await.unwrap();
            assert!(ended.get::<_, i64>(0) > 0);
            until(&admin, &format!("SELECT count(*) = 0 {others}")).await;
        });
    });
    ending.join().unwrap();
}

async fn idle_on_each_kind_of_connection(base: &Base) -> Postgres {
    let few = base.options().work_connections(2).finish_connections(2);
    let postgres = base.open_with(few).await;
    for n in [1, 2] {
        drop(postgres.work(txn(n)).await.unwrap());
    }
    for n in [1, 2] {
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
    }
    let ids = [1, 2].map(branch);
    let (one, two) = tokio::join!(postgres.commit(&ids[0]), postgres.commit(&ids[1]));
    assert_eq!((one.unwrap(), two.unwrap()), (Proof::Found, Proof::Found));
    // Cleaned, and so idle.
    base.until(
        "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() \
         AND state = 'idle' AND query LIKE 'SET SESSION AUTHORIZATION%'",
    )
    .await;
    postgres
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced_before_work_begins() {
    let base = Base::new("closed_for_work").await;
    let postgres = idle_on_each_kind_of_connection(&base).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    end_sessions_unheard(&base);
    let work = postgres.work(txn(3)).await.unwrap();
    let sql = "UPDATE account SET balance = balance - 1 WHERE name = 'alice'";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    assert_eq!(prepare(&postgres, 3).await, Vote::Prepared);
    assert_eq!(postgres.commit(&branch(3)).await.unwrap(), Proof::Found);
    assert_eq!(base.balance("alice").await, 99);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced_before_a_branch_ends() {
    let base = Base::new("closed_for_ends").await;
    let postgres = idle_on_each_kind_of_connection(&base).await;
    for n in [3, 4] {
        drop(postgres.work(txn(n)).await.unwrap());
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
    }
    for step in 0..5 {
        end_sessions_unheard(&base);
        match step {
            0 => assert_eq!(ids_in_doubt(&postgres).await.len(), 2),
            1 => assert_eq!(postgres.commit(&branch(3)).await.unwrap(), Proof::Found),
            2 => assert_eq!(postgres.commit(&branch(3)).await.unwrap(), Proof::Found),
            3 => postgres.rollback(&branch(4)).await.unwrap(),
            _ => postgres.settled(branch(4).id, &[]).await.unwrap(),
        }
    }
}
