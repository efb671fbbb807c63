//! What is asked of the store about the state: where it stands, all of it page by page, and changes in batches.

use std::sync::Arc;

use redis::Value;

use super::link::{Keys, Link, integer, text, unsigned};
use super::lost::Lost;
use super::mirror::Mark;
use super::scripts::{ADD, DROP, FORGET, MARK, PAGE, PICK, REMOVE, Script};
use super::view::{Entry, MAX_ID_BYTES, MAX_VALUE_BYTES, Strange, Tombstone, View, fits};

/// Most entries at the store. More is not read and not added: the store cannot be used before some are gone.
pub const MAX_ENTRIES: usize = 262_144;
/// Most tombstones at the store.
pub const MAX_TOMBSTONES: usize = 262_144;
/// Most bytes of the store, ids and values together.
pub const MAX_BYTES: usize = 256 * 1024 * 1024;
/// About how many fields are read at once: a page holds other sidecars up for as long as it takes.
const PAGE_FIELDS: &[u8] = b"256";
/// Most changes that are written at once, and most bytes of them, but for a single one.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 * 1024;

/// What came of adding an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is at the store now.
    Added,
    /// One of this id was there before.
    Known,
    /// It was removed before, and is not added. The tombstone is as the store has it: nobody has verified it.
    Gone(Tombstone),
}

/// Where the store stands.
pub(super) async fn mark(link: &Link, keys: &Keys) -> Result<Mark, Lost> {
    let answers = link.list(&MARK, &keys.state(), &[]).await?;
    let size = |at: usize| unsigned(answers.get(at)).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    let chain = answers.get(1).and_then(text).ok_or_else(Lost::strange)?;
    let mark = Mark {
        number: unsigned(answers.first())?,
        chain: chain.into(),
        holds: (size(2)?, size(3)?),
        now: unsigned(answers.get(4))?,
    };
    check(mark.holds.0, mark.holds.1, 0)?;
    Ok(mark)
}

fn check(entries: usize, gone: usize, bytes: usize) -> Result<(), Lost> {
    if entries > MAX_ENTRIES || gone > MAX_TOMBSTONES || bytes > MAX_BYTES {
        return Err(Lost::refused(format!(
            "it holds more than {MAX_ENTRIES} entries, {MAX_TOMBSTONES} tombstones or {MAX_BYTES} bytes"
        )));
    }
    Ok(())
}

/// All that the store holds, and what of it cannot be read.
///
/// It is read page by page and not at one moment, so that nobody waits for a whole state. What is there from before the
/// first page until after the last one is in it; what changes meanwhile is told by a change with a later number than
/// any mark that was read before. Entries come first, so that of one that is removed meanwhile the tombstone is read.
pub(super) async fn everything(
    link: &Link,
    keys: &Keys,
    goes_on: &(impl Fn() + Sync),
) -> Result<(View, Vec<Strange>), Lost> {
    let mut view = View::default();
    let mut bytes = 0;
    let (mut strange, mut strange_entries) = (Vec::new(), 0);
    let (longest_id, longest) = (MAX_ID_BYTES.to_string(), MAX_VALUE_BYTES.to_string());
    for key in [&keys.entries, &keys.gone] {
        let mut cursor = b"0".to_vec();
        // A page may say again what another one said.
        let mut seen = std::collections::HashSet::new();
        loop {
            let args = [cursor.as_slice(), PAGE_FIELDS, longest_id.as_bytes(), longest.as_bytes()];
            let answers = link.list(&PAGE, &[key], &args).await?;
            let (Some(Value::BulkString(next)), Some(Value::Array(fields))) = (answers.first(), answers.get(1)) else {
                return Err(Lost::strange());
            };
            for pair in fields.chunks_exact(2) {
                let [id, Value::BulkString(value)] = pair else { return Err(Lost::strange()) };
                let Some(id) = text(id).filter(|id| seen.insert(Arc::<str>::from(*id))) else { continue };
                bytes += id.len() + value.len();
                strange.extend(read(&mut view, id, key == &keys.entries, value));
            }
            if key == &keys.entries {
                strange_entries = strange.len();
            }
            let strange_gone = strange.len() - strange_entries;
            check(view.entries.len() + strange_entries, view.gone.len() + strange_gone, bytes)?;
            goes_on();
            if next == b"0" {
                break;
            }
            cursor.clone_from(next);
        }
    }
    Ok((view, strange))
}

/// Reads a value into a view; gives back one that cannot be.
fn read(view: &mut View, id: &str, is_entry: bool, value: &[u8]) -> Option<Strange> {
    let read = if is_entry {
        Entry::read(id, value).map(|entry| view.entries.push(entry))
    } else {
        Tombstone::read(id, value).map(|gone| view.gone.push(gone))
    };
    read.is_none().then(|| Strange { id: id.into(), is_entry, value: value.into() })
}

/// What the store holds of some ids, and what of it cannot be read; whether all of them are there.
pub(super) async fn pick(link: &Link, keys: &Keys, ids: &[Arc<str>]) -> Result<(View, Vec<Strange>, bool), Lost> {
    let args: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    let answers = link.list(&PICK, &[&keys.entries, &keys.gone], &args).await?;
    if answers.len() != 2 * ids.len() {
        return Err(Lost::strange());
    }
    let (mut view, mut strange, mut all) = (View::default(), Vec::new(), true);
    for (id, values) in ids.iter().zip(answers.chunks_exact(2)) {
        let [Value::BulkString(entry), Value::BulkString(gone)] = values else { return Err(Lost::strange()) };
        all &= !entry.is_empty() || !gone.is_empty();
        for (is_entry, value) in [(true, entry), (false, gone)].into_iter().filter(|(_, value)| !value.is_empty()) {
            strange.extend(read(&mut view, id, is_entry, value));
        }
    }
    Ok((view, strange, all))
}

/// Takes out what stands there exactly so.
pub(super) async fn drop_strange(link: &Link, keys: &Keys, strange: &[Strange]) -> Result<(), Lost> {
    for some in strange.chunks(BATCH) {
        let mut args = vec![keys.changes.as_bytes(), b""];
        for Strange { id, is_entry, value } in some {
            args.extend([id.as_bytes(), if *is_entry { b"1" } else { b"2" }, value]);
        }
        link.run(&DROP, &keys.state(), &args).await?;
    }
    Ok(())
}

/// Adds entries that fit, to so many replicas. Answers in their order.
pub(super) async fn add(link: &Link, keys: &Keys, entries: &[Entry], replicas: u32) -> Result<Vec<Put>, Lost> {
    let fields = entries.iter().map(|entry| vec![entry.id.as_bytes().to_vec(), entry.written()]);
    let mut puts = Vec::with_capacity(entries.len());
    for answer in batches(link, keys, &ADD, MAX_ENTRIES, fields.collect(), replicas).await? {
        let entry = entries.get(puts.len()).ok_or_else(Lost::strange)?;
        puts.push(match answer {
            Value::BulkString(value) => {
                let gone = Tombstone::read(&entry.id, &value).ok_or_else(Lost::strange)?;
                Put::Gone(gone)
            }
            answer => match integer(&answer) {
                Some(1) => Put::Added,
                Some(0) => Put::Known,
                Some(2) => return Err(Lost::Full(format!("{MAX_ENTRIES} entries").into())),
                _ => return Err(Lost::strange()),
            },
        });
    }
    if puts.len() == entries.len() { Ok(puts) } else { Err(Lost::strange()) }
}

/// Removes entries; a moment of 0 is now, by the store's clock.
pub(super) async fn remove(link: &Link, keys: &Keys, gone: &[Tombstone], replicas: u32) -> Result<(), Lost> {
    let fields = gone
        .iter()
        .map(|gone| vec![gone.id.as_bytes().to_vec(), gone.at.to_string().into_bytes(), gone.sealed.to_vec()]);
    for answer in batches(link, keys, &REMOVE, MAX_TOMBSTONES, fields.collect(), replicas).await? {
        match integer(&answer) {
            Some(0 | 1) => {}
            Some(2) => return Err(Lost::Full(format!("{MAX_TOMBSTONES} tombstones").into())),
            _ => return Err(Lost::strange()),
        }
    }
    Ok(())
}

/// Has the store forget what is over of these ids.
pub(super) async fn forget(link: &Link, keys: &Keys, ids: &[Arc<str>], retention: u64) -> Result<(), Lost> {
    if ids.is_empty() {
        return Ok(());
    }
    let retention = retention.to_string();
    let mut args = vec![keys.changes.as_bytes(), retention.as_bytes()];
    args.extend(ids.iter().map(|id| id.as_bytes()));
    link.run(&FORGET, &keys.state(), &args).await.map(|_| ())
}

/// Runs a script over changes, so many at a time that none takes long; so many replicas have to have them.
async fn batches(
    link: &Link,
    keys: &Keys,
    script: &Script,
    most: usize,
    changes: Vec<Vec<Vec<u8>>>,
    replicas: u32,
) -> Result<Vec<Value>, Lost> {
    let most = most.to_string();
    let mut answers = Vec::with_capacity(changes.len());
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        while let Some(change) = changes.next_if(|change| {
            let size: usize = change.iter().map(Vec::len).sum();
            count == 0 || (count < BATCH && bytes + size <= BATCH_BYTES)
        }) {
            count += 1;
            bytes += change.iter().map(Vec::len).sum::<usize>();
            batch.extend(change);
        }
        let mut args = vec![keys.changes.as_bytes(), most.as_bytes()];
        args.extend(batch.iter().map(Vec::as_slice));
        let some = if replicas == 0 {
            link.list(script, &keys.state(), &args).await?
        } else {
            let (some, had) = link.list_kept(script, &keys.state(), &args, replicas).await?;
            if had < replicas {
                return Err(Lost::TooFewReplicas { had, wanted: replicas });
            }
            some
        };
        if some.len() != count {
            return Err(Lost::strange());
        }
        answers.extend(some);
    }
    Ok(answers)
}

/// Drops what cannot be shared, and says how much that was.
pub(super) fn fitting(view: &mut View) -> usize {
    let before = view.entries.len() + view.gone.len();
    view.entries.retain(|entry| fits(&entry.id, &entry.sealed).is_ok());
    view.gone.retain(|gone| fits(&gone.id, &gone.sealed).is_ok());
    before - view.entries.len() - view.gone.len()
}

/// Whether the store may be used as it is set up: a primary that does not throw anything out that has no end.
pub(super) async fn check_setup(link: &Link, keys: &Keys) -> Result<(), Lost> {
    let replication = link.info("replication", &keys.entries).await?;
    if field(&replication, "role").is_some_and(|role| role != "master") {
        return Err(Lost::out_of_reach("it is a replica"));
    }
    let memory = link.info("memory", &keys.entries).await?;
    // Absent where a provider hides it; then it is as its own documents say.
    match field(&memory, "maxmemory_policy") {
        Some(policy) if policy.starts_with("allkeys-") => Err(Lost::refused(
            "its `maxmemory-policy` is one of `allkeys-…`, which would throw holds out: set `noeviction`",
        )),
        _ => Ok(()),
    }
}

/// A field of what `INFO` answers.
fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Memory\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((field(info, "maxmemory"), field(info, "maxmemory_policy")), (Some("0"), Some("noeviction")));
        assert_eq!(field(info, "policy"), None);
    }

    #[test]
    fn more_than_the_bounds_is_refused() {
        assert_eq!(check(MAX_ENTRIES, MAX_TOMBSTONES, MAX_BYTES), Ok(()));
        assert!(matches!(check(MAX_ENTRIES + 1, 0, 0), Err(Lost::Refused(_))));
        assert!(matches!(check(0, MAX_TOMBSTONES + 1, 0), Err(Lost::Refused(_))));
        assert!(matches!(check(0, 0, MAX_BYTES + 1), Err(Lost::Refused(_))));
    }
}
