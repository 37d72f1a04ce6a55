//! The two databases: their servers, and what stands in them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use paxos_commit::cluster::servers::{ThrowawayMariadb, ThrowawayPostgres};
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts, Row, prelude::Queryable};
use paxos_commit::resource::postgres::tokio_postgres::{Client, NoTls};

/// How many accounts each database has, numbered from 1.
pub(crate) const ACCOUNTS: i64 = 100;

/// What is in each at the beginning.
pub(crate) const OPENING_BALANCE: i64 = 1_000;

/// Room for every branch that can stand prepared at a time.
const PREPARED_MAX: &str = "100";

const TABLES: [&str; 4] = [
    "DROP TABLE IF EXISTS bank_account",
    "DROP TABLE IF EXISTS bank_transfer",
    "CREATE TABLE bank_account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
    "CREATE TABLE bank_transfer \
     (number BIGINT PRIMARY KEY, account BIGINT NOT NULL, amount BIGINT NOT NULL)",
];
const BALANCES: &str = "SELECT id, balance FROM bank_account";
const TRANSFERS: &str = "SELECT number, account, amount FROM bank_transfer";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

impl Kind {
    pub(crate) const BOTH: [Kind; 2] = [Kind::Postgres, Kind::Mariadb];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Postgres => "PostgreSQL",
            Kind::Mariadb => "MariaDB",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Postgres => "postgres",
            Kind::Mariadb => "mariadb",
        })
    }
}

/// What stands in a database.
#[derive(Debug)]
pub(crate) struct Content {
    /// By account.
    pub(crate) balances: BTreeMap<i64, i64>,
    /// The account and the amount, by the number of the transfer.
    pub(crate) transfers: BTreeMap<i64, (i64, i64)>,
}

/// Both databases, and their servers if those are throw-away ones.
pub(crate) struct Databases {
    postgres: Option<ThrowawayPostgres>,
    mariadb: Option<ThrowawayMariadb>,
    postgres_url: String,
    mariadb_url: String,
}

impl Databases {
    /// Those with these addresses; where there is none, a throw-away server.
    pub(crate) async fn open(postgres: Option<String>, mariadb: Option<String>) -> Result<Self> {
        let (postgres, postgres_url) = match postgres {
            Some(url) => (None, url),
            None => {
                let settings = [("max_prepared_transactions", PREPARED_MAX)];
                let server = ThrowawayPostgres::start(&settings).await?;
                let url = server.url("postgres");
                (Some(server), url)
            }
        };
        let (mariadb, mariadb_url) = match mariadb {
            Some(url) => (None, url),
            None => {
                let server = ThrowawayMariadb::start(&[]).await?;
                let url = server.url(ThrowawayMariadb::DATABASE);
                (Some(server), url)
            }
        };
        Ok(Databases {
            postgres,
            mariadb,
            postgres_url,
            mariadb_url,
        })
    }

    pub(crate) fn url(&self, kind: Kind) -> &str {
        match kind {
            Kind::Postgres => &self.postgres_url,
            Kind::Mariadb => &self.mariadb_url,
        }
    }

    /// Kills a throw-away server with SIGKILL; a server that was given is left alone.
    pub(crate) fn kill(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Postgres => self.postgres.as_mut().map(ThrowawayPostgres::kill),
            Kind::Mariadb => self.mariadb.as_mut().map(ThrowawayMariadb::kill),
        }
        .is_some()
    }

    /// Starts a throw-away server again.
    pub(crate) async fn restart(&mut self, kind: Kind) -> Result<()> {
        match (kind, &mut self.postgres, &mut self.mariadb) {
            (Kind::Postgres, Some(server), _) => server.restart().await?,
            (Kind::Mariadb, _, Some(server)) => server.restart().await?,
            (Kind::Postgres, None, _) | (Kind::Mariadb, _, None) => {}
        }
        Ok(())
    }

    /// Makes the tables, anew if they are there, and fills the accounts.
    pub(crate) async fn create_accounts(&self) -> Result<()> {
        let (postgres, mut mariadb) = (self.postgres().await?, self.mariadb().await?);
        let account = |id| format!("({id}, {OPENING_BALANCE})");
        let accounts: Vec<String> = (1..=ACCOUNTS).map(account).collect();
        let fill = format!("INSERT INTO bank_account VALUES {}", accounts.join(", "));
        for sql in TABLES.into_iter().chain([fill.as_str()]) {
            postgres.batch_execute(sql).await?;
            mariadb.query_drop(sql).await?;
        }
        mariadb.disconnect().await?;
        Ok(())
    }

    /// What stands in one of them, as others see it.
    pub(crate) async fn content(&self, kind: Kind) -> Result<Content> {
        Ok(match kind {
            Kind::Postgres => {
                let client = self.postgres().await?;
                let balances = client.query(BALANCES, &[]).await?.into_iter();
                let transfers = client.query(TRANSFERS, &[]).await?.into_iter();
                Content {
                    balances: balances.map(|row| (row.get(0), row.get(1))).collect(),
                    transfers: transfers
                        .map(|row| (row.get(0), (row.get(1), row.get(2))))
                        .collect(),
                }
            }
            Kind::Mariadb => {
                let mut conn = self.mariadb().await?;
                let balances: Vec<(i64, i64)> = conn.query(BALANCES).await?;
                let transfers: Vec<(i64, i64, i64)> = conn.query(TRANSFERS).await?;
                conn.disconnect().await?;
                Content {
                    balances: balances.into_iter().collect(),
                    transfers: transfers
                        .into_iter()
                        .map(|(number, account, amount)| (number, (account, amount)))
                        .collect(),
                }
            }
        })
    }

    /// How many branches stand prepared in both servers, of whoever they are.
    async fn prepared(&self) -> Result<usize> {
        let client = self.postgres().await?;
        let sql = "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'paxos-commit/%'";
        let in_postgres = client.query(sql, &[]).await?.len();
        let mut conn = self.mariadb().await?;
        let in_mariadb: Vec<Row> = conn.query("XA RECOVER").await?;
        conn.disconnect().await?;
        Ok(in_postgres + in_mariadb.len())
    }

    /// Every branch comes to its outcome, in the end.
    pub(crate) async fn wait_until_nothing_is_prepared(&self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let prepared = self.prepared().await?;
            if prepared == 0 {
                return Ok(());
            }
            if begun.elapsed() > patience {
                bail!("{prepared} branches still stand prepared after {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn postgres(&self) -> Result<Client> {
        let connecting =
            paxos_commit::resource::postgres::tokio_postgres::connect(&self.postgres_url, NoTls);
        let (client, connection) = connecting.await.context("PostgreSQL")?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn mariadb(&self) -> Result<Conn> {
        let connecting = Conn::new(Opts::from_url(&self.mariadb_url)?);
        connecting.await.context("MariaDB")
    }
}
