//! What must be true in the end, whoever was killed.

use anyhow::Result;

use super::databases::{ACCOUNTS, Content, Databases, Kind, OPENING_BALANCE};
use super::teller::{End, Ledger};

/// Everything that is wrong; nothing, if all is well.
pub(crate) async fn audit(databases: &mut Databases, ledger: &Ledger) -> Result<Vec<String>> {
    let postgres = databases.content(Kind::Postgres).await?;
    let mariadb = databases.content(Kind::Mariadb).await?;
    let mut wrong = Vec::new();
    let total: i64 = [&postgres, &mariadb].map(total).iter().sum();
    let opening = 2 * ACCOUNTS * OPENING_BALANCE;
    if total != opening {
        wrong.push(format!(
            "there was {opening} in all accounts, now there is {total}"
        ));
    }
    for (kind, content) in [(Kind::Postgres, &postgres), (Kind::Mariadb, &mariadb)] {
        for complaint in check_balances(content) {
            wrong.push(format!("in {}: {complaint}", kind.title()));
        }
    }
    let numbers = ledger.ends.keys();
    let numbers = numbers.chain(postgres.transfers.keys());
    let mut numbers: Vec<i64> = numbers.chain(mariadb.transfers.keys()).copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let stands = [&postgres, &mariadb].map(|content| content.transfers.get(&number).copied());
        let told = ledger.ends.get(&number);
        let is_right = match (stands, told) {
            ([Some((_, out)), Some((_, into))], Some(End::Committed | End::Either)) => out == -into,
            ([None, None], Some(End::Aborted | End::Either)) => true,
            _ => false,
        };
        if !is_right {
            wrong.push(format!(
                "transfer {number} was told {told:?} and stands as {stands:?}"
            ));
        }
    }
    Ok(wrong)
}

fn total(content: &Content) -> i64 {
    content.balances.values().sum()
}

/// Every balance is what the transfers come to.
fn check_balances(content: &Content) -> Vec<String> {
    let mut expected: std::collections::BTreeMap<i64, i64> =
        (1..=ACCOUNTS).map(|id| (id, OPENING_BALANCE)).collect();
    for (account, amount) in content.transfers.values() {
        *expected.entry(*account).or_default() += amount;
    }
    let wrong = expected
        .iter()
        .filter(|(id, balance)| content.balances.get(id) != Some(balance));
    let text = |(id, balance): (&i64, &i64)| {
        let found = content.balances.get(id);
        format!("account {id} should hold {balance} and holds {found:?}")
    };
    wrong.map(text).collect()
}
