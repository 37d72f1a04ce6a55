//! Settings that may have been changed by hand, rewritten.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, TomlError, Value, value};

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Member;

use super::{FilesError, at, write_whole};

/// The text of an `access.toml` with these replicas, in whichever form TOML allows; everything else
/// stays as it is.
pub(super) fn with_members(
    path: &Path,
    text: &str,
    members: &[Member],
) -> Result<String, FilesError> {
    let mut document = parse(path, text)?;
    let mut tables = ArrayOfTables::new();
    for Member { id, address } in members {
        let mut table = Table::new();
        table.insert("id", value(i64::from(id.0)));
        table.insert("address", value(address.as_str()));
        tables.push(table);
    }
    let before = document.get("replica").and_then(read_members);
    if before.as_deref() == Some(members) {
        return Ok(text.to_owned());
    }
    // A comment above the list stays.
    if let (Some(Item::ArrayOfTables(old)), Some(first)) =
        (document.get("replica"), tables.get_mut(0))
        && let Some(decor) = old.get(0).map(Table::decor)
    {
        *first.decor_mut() = decor.clone();
    }
    document.remove("replica");
    document.insert("replica", Item::ArrayOfTables(tables));
    Ok(document.to_string())
}

/// The replicas that stand there now, if they can be read.
fn read_members(item: &Item) -> Option<Vec<Member>> {
    let tables: Vec<&dyn TableLike> = match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as _).collect(),
        Item::Value(Value::Array(array)) => {
            let tables = array.iter().map(|value| value.as_inline_table());
            tables
                .map(|table| table.map(|table| table as _))
                .collect::<Option<_>>()?
        }
        Item::None | Item::Table(_) | Item::Value(_) => return None,
    };
    let member = |table: &dyn TableLike| {
        let id = table.get("id")?.as_integer()?;
        Some(Member {
            id: ReplicaId(u32::try_from(id).ok()?),
            address: table.get("address")?.as_str()?.parse().ok()?,
        })
    };
    tables.into_iter().map(member).collect()
}

/// What can be tuned, and where metrics are served, as at another replica.
pub(super) fn copy_settings(from: &Path, to: &Path) -> Result<(), FilesError> {
    let text = match fs::read_to_string(from) {
        Ok(text) => text,
        // Its folder is on another machine.
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(at(from)(error)),
    };
    let model = parse(from, &text)?;
    let text = fs::read_to_string(to).map_err(at(to))?;
    let mut document = parse(to, &text)?;
    for field in ["http", "tuning"] {
        if let Some(item) = model.get(field) {
            document.insert(field, item.clone());
        }
    }
    write_whole(to, &document.to_string())
}

/// Whether there is no such file.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn parse(path: &Path, text: &str) -> Result<DocumentMut, FilesError> {
    text.parse()
        .map_err(|error: TomlError| FilesError::Damaged {
            path: path.to_owned(),
            error: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32) -> Member {
        Member {
            id: ReplicaId(id),
            address: format!("host{id}:7401").parse().unwrap(),
        }
    }

    fn rewrite(text: &str) -> String {
        with_members(Path::new("access.toml"), text, &[member(2), member(4)]).unwrap()
    }

    /// Each is the same to TOML. (The counter-example: the text was cut where `[[replica]]` stands for the
    /// first time, and in an inline list it does not.)
    #[test]
    fn every_form_of_a_list_of_replicas_is_rewritten() {
        let forms = [
            "key = \"k\"\n\n[[replica]]\nid = 1\naddress = \"a:1\"\n",
            "replica = [{ id = 1, address = \"a:1\" }]\nkey = \"k\"\n",
            "key = \"k\" # where [[replica]] stands below\n[[ replica ]]\naddress = 'a:1'\nid = 1\n",
            "key = \"k\"\n[[\"replica\"]]\nid = 1\naddress = \"a:1\"",
        ];
        for form in forms {
            let document: DocumentMut = rewrite(form).parse().unwrap();
            assert_eq!(document["key"].as_str(), Some("k"), "{document}");
            let replicas = document.get("replica").and_then(read_members);
            assert_eq!(replicas, Some(vec![member(2), member(4)]), "{document}");
        }
    }

    #[test]
    fn what_stands_beside_the_replicas_stays() {
        let text = "# mine\nkey = \"../elsewhere.key\"   # on another disk\n\n# the cluster\n\
                    [[replica]]\nid = 2\naddress = \"host2:7401\"\n";
        let rewritten = rewrite(text);
        assert!(
            rewritten.contains("\n# the cluster\n[[replica]]\n"),
            "{rewritten}"
        );
        assert!(rewritten.starts_with("# mine\nkey = \"../elsewhere.key\"   # on another disk\n"));
        assert_eq!(
            rewrite(&rewritten),
            rewritten,
            "and nothing is written twice"
        );
    }
}
