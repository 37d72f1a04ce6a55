//! `paxos-commit txn`.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::bail;
use clap::{Args, Subcommand};
use paxos_commit::operator::{Ended, Operator, Said, Transactions};
use paxos_commit::protocol::message::State;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{CommitId, IdError, TxnId};
use paxos_commit::wire::Report;
use serde_json::{Value, json};

use super::show::{names, print_json, state_json, state_text};
use super::{AccessArguments, EXIT_PARTIAL, Exit};

/// Look at transactions, and end what hangs.
#[derive(Debug, Subcommand)]
pub(super) enum TxnCommand {
    /// List what is undecided, or decided and not yet applied by every branch, and why.
    List(ListArguments),
    /// Show what each replica knows of one transaction.
    Show(ShowArguments),
    /// End an undecided transaction now. If commit was chosen already, it stays, and you are told.
    Abort(EndArguments),
    /// Let a settled commit go whose participant will never come back. You answer for "never": a
    /// branch that comes back after all rolls back what the others have committed.
    Release(EndArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// List at most so many transactions; the summary counts all.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// List those after this one: the last of the page before.
    #[arg(long, value_name = "ID")]
    after: Option<CommitId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// The id of the transaction, or its commit id, as any command or log prints it.
    id: Id,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// The id of the transaction, or its commit id, as any command or log prints it.
    id: Id,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl TxnCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            TxnCommand::List(arguments) => list(arguments).await,
            TxnCommand::Show(arguments) => show(arguments).await,
            TxnCommand::Abort(arguments) => abort(arguments).await,
            TxnCommand::Release(arguments) => release(arguments).await,
        }
    }
}

/// The name of a transaction on the command line: its own id, or the commit id that it has once its
/// roster is known.
#[derive(Clone, Copy, Debug)]
enum Id {
    Txn(TxnId),
    Commit(CommitId),
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.trim();
        match text.parse() {
            Ok(id) => Ok(Id::Commit(id)),
            Err(IdError { .. }) => text.parse().map(Id::Txn),
        }
    }
}

impl Id {
    fn txn(self) -> TxnId {
        match self {
            Id::Txn(txn) => txn,
            Id::Commit(id) => id.txn,
        }
    }

    /// The commit id that is meant, if the replicas know the transaction. What they do not know is
    /// most likely a typing mistake, and is left alone.
    async fn known(self, operator: &mut Operator) -> anyhow::Result<CommitId> {
        let txn = self.txn();
        let known = operator.commit_ids(txn).await?;
        let mut ids = known.iter().copied();
        match (self, ids.next(), ids.next()) {
            (Id::Commit(id), ..) if known.contains(&id) => Ok(id),
            // It is not begun anew by a question.
            (Id::Commit(id), ..) if operator.generations().is_settled(&id) => Ok(id),
            (Id::Txn(_), Some(id), None) => Ok(id),
            (Id::Txn(_), Some(_), Some(_)) => {
                let ids: Vec<String> = known.iter().map(CommitId::to_string).collect();
                bail!(
                    "{txn} has several commit ids; name one of: {}",
                    ids.join(", ")
                )
            }
            (Id::Txn(_), None, _) if operator.generations().is_txn_settled(txn) => {
                bail!("{txn}: ended long ago; what it came to is forgotten")
            }
            (Id::Commit(id), Some(other), _) => bail!(
                "no replica knows {id}; nothing was done. Its transaction is known under {other}"
            ),
            (Id::Txn(_) | Id::Commit(_), None, _) => bail!(
                "no replica that answers knows {txn}; nothing was done. `paxos-commit txn list` \
                 shows what is under way"
            ),
        }
    }
}

async fn list(arguments: ListArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let transactions = operator.list().await?;
    let status = operator.status().await;
    let page = page_of(&transactions, arguments.limit, arguments.after);
    if arguments.json {
        print_json(&list_json(&transactions, &page));
    } else {
        for (id, states) in &page {
            print_states(id, states, &status);
        }
        print_summary(&transactions, &page);
    }
    if transactions.is_whole {
        return Ok(());
    }
    Err(Exit {
        code: EXIT_PARTIAL,
        text: "the list is partial: fewer than a majority of the replicas answered".into(),
    }
    .into())
}

/// What is listed, of all that there is.
type Page<'t> = Vec<(&'t CommitId, &'t BTreeMap<ReplicaId, State>)>;

fn page_of(transactions: &Transactions, limit: usize, after: Option<CommitId>) -> Page<'_> {
    let found = transactions.found.iter();
    let found = found.filter(|(id, _)| after.is_none_or(|after| **id > after));
    found.take(limit).collect()
}

fn list_json(transactions: &Transactions, page: &Page<'_>) -> Value {
    let listed = page.iter().map(|(id, states)| {
        let states = states.iter().map(|(replica, state)| {
            let mut value = state_json(state);
            value["replica"] = json!(replica.0);
            value
        });
        json!({"id": id.to_string(), "replicas": states.collect::<Vec<_>>()})
    });
    let silent = transactions.silent.iter();
    let silent = silent.map(|(id, problem)| json!({"id": id.0, "problem": problem}));
    json!({
        "transactions": listed.collect::<Vec<_>>(),
        "total": transactions.found.len(),
        "partial": !transactions.is_whole,
        "silent_replicas": silent.collect::<Vec<_>>(),
    })
}

fn print_states(id: &CommitId, states: &BTreeMap<ReplicaId, State>, status: &Said<Report>) {
    let connected = |name: &str| {
        let reports = status.values().flatten();
        let mut names = reports.flat_map(|report| &report.participants);
        names.any(|(of, _)| of.as_str() == name)
    };
    say!("{id}");
    for (replica, state) in states {
        say!("  replica {replica}: {}", state_text(state));
        for name in away(state).iter().filter(|name| !connected(name)) {
            say!("    participant {name} is away: no session of it is connected");
        }
    }
}

/// How many there are, what they wait for, and what is not known.
fn print_summary(transactions: &Transactions, page: &Page<'_>) {
    let Transactions { found, silent, .. } = transactions;
    let is_undecided = |states: &BTreeMap<ReplicaId, State>| {
        let mut states = states.values();
        states.all(|state| matches!(state, State::Undecided { .. }))
    };
    let undecided = found.values().filter(|states| is_undecided(states)).count();
    match found.len() {
        0 if silent.is_empty() => {
            say!("nothing is undecided, and everything that is decided is applied");
        }
        0 => say!("no replica that answered knows of anything undecided or unapplied"),
        all => say!(
            "{all} transactions: {undecided} undecided, {} decided and not yet applied everywhere",
            all - undecided
        ),
    }
    let mut waits: BTreeMap<String, usize> = BTreeMap::new();
    for states in found.values() {
        let mut names: Vec<String> = states.values().flat_map(away).collect();
        names.sort();
        names.dedup();
        for name in names {
            *waits.entry(name).or_default() += 1;
        }
    }
    for (name, count) in waits {
        say!("participant {name}: {count} of them wait for it");
    }
    if let Some((last, _)) = page.last().filter(|_| page.len() < found.len()) {
        say!(
            "{} of {} are listed; the next ones: --after {last}",
            page.len(),
            found.len()
        );
    }
    for (replica, problem) in silent {
        say!("replica {replica} did not answer, what only it knows is missing: {problem}");
    }
}

/// The participants that a transaction waits for.
fn away(state: &State) -> Vec<String> {
    let branches = match state {
        State::Undecided { missing, .. } => missing,
        State::Decided { unapplied, .. } => unapplied,
    };
    let mut names: Vec<String> = branches
        .iter()
        .map(|branch| branch.participant.to_string())
        .collect();
    names.dedup();
    names
}

async fn show(arguments: ShowArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let said = operator.show(arguments.id.txn()).await;
    let in_force = operator.generations().in_force();
    let answered = |id| said.get(&id).is_some_and(Result::is_ok);
    let is_whole = in_force.is_none_or(|configuration| {
        let acceptors = configuration.acceptors();
        acceptors.iter().filter(|id| answered(*id)).count() >= acceptors.majority()
    });
    print_shown(arguments.json, said);
    if is_whole {
        return Ok(());
    }
    Err(Exit {
        code: EXIT_PARTIAL,
        text: "the answer is partial: fewer than a majority of the replicas answered".into(),
    }
    .into())
}

/// What each replica knows of a transaction.
fn print_shown(as_json: bool, said: Said<Vec<(CommitId, State)>>) {
    if as_json {
        let said = said.iter().map(|(replica, said)| match said {
            Ok(instances) => json!({
                "replica": replica.0,
                "instances": instances.iter().map(|(id, state)| {
                    let mut value = state_json(state);
                    value["id"] = json!(id.to_string());
                    value
                }).collect::<Vec<_>>(),
            }),
            Err(problem) => json!({"replica": replica.0, "problem": problem}),
        });
        print_json(&json!(said.collect::<Vec<_>>()));
        return;
    }
    for (replica, said) in said {
        match said {
            Ok(instances) if instances.is_empty() => {
                say!("replica {replica}: unknown, or forgotten");
            }
            Ok(instances) => {
                for (id, state) in instances {
                    say!("replica {replica}: {id}: {}", state_text(&state));
                }
            }
            Err(problem) => say!("replica {replica}: {problem}"),
        }
    }
}

async fn abort(arguments: EndArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let id = arguments.id.known(&mut operator).await?;
    let (state, text) = match operator.force_abort(id).await? {
        Ended::Chosen(outcome) => (
            outcome.to_string(),
            format!("{id}: {outcome} was chosen; it is final"),
        ),
        Ended::Forgotten => (
            "forgotten".into(),
            format!("{id}: ended long ago; what it came to is forgotten"),
        ),
    };
    if arguments.json {
        print_json(&json!({"id": id.to_string(), "chosen": state}));
    } else {
        say!("{text}");
    }
    let why = match state.as_str() {
        "commit" => "it was not aborted: commit had been chosen",
        // Perhaps it never was: a mistyped id of an old generation looks the same.
        "forgotten" => "it was not aborted: its generation was settled long ago",
        _ => return Ok(()),
    };
    let text = why.into();
    Err(Exit { code: 1, text }.into())
}

async fn release(arguments: EndArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let id = arguments.id.known(&mut operator).await?;
    let waiting = operator.waiting().await?;
    let waits_for = waiting.iter().find(|listed| listed.id == id);
    let roster = waits_for.map(|listed| {
        let branches: Vec<_> = listed.unapplied.roster.iter().cloned().collect();
        names(&branches)
    });
    operator.release(id).await?;
    if arguments.json {
        print_json(&json!({"id": id.to_string(), "released": true, "roster": roster}));
    } else {
        say!("{id}: released; nobody waits for it any more");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u32) -> CommitId {
        let digits = "0".repeat(31);
        let text = format!("00000001-{digits}7-{sequence:08x}-0000000000000009-{digits}1");
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read_page_by_page() {
        let mut transactions = Transactions::default();
        for sequence in 1..=5 {
            transactions.found.insert(id(sequence), BTreeMap::new());
        }
        let (mut after, mut read) = (None, Vec::new());
        loop {
            let page = page_of(&transactions, 2, after);
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(**last);
            assert!(page.len() <= 2);
            read.extend(page.into_iter().map(|(id, _)| *id));
        }
        assert_eq!(read, (1..=5).map(id).collect::<Vec<_>>());
    }

    #[test]
    fn an_id_is_taken_in_every_form() {
        let id = id(1);
        let read = |text: &str| text.parse::<Id>().unwrap();
        assert!(matches!(read(&id.to_string()), Id::Commit(of) if of == id));
        assert!(matches!(read(&format!(" {}\n", id.txn)), Id::Txn(of) if of == id.txn));
        assert!("1".parse::<Id>().is_err());
    }
}
