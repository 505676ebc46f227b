//! What the control log says of earlier imports, and what that means for the next: all pure.

use serde::Serialize;
use weir_schemas::control::{Action, ControlRecord, Import};

/// One import, as the control log tells its story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastImport {
    #[serde(flatten)]
    pub import: Import,
    /// Where in the control log it begins.
    #[serde(skip)]
    pub offset: i64,
    /// ms since the Unix epoch.
    pub begun_ms: i64,
    pub who: String,
    /// Events that were written.
    pub events: u64,
    /// Of its first event, ms since the Unix epoch.
    pub first_ms: i64,
    /// Of its last event, ms since the Unix epoch.
    pub last_ms: i64,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its topic is being written, or whoever did so died. Nothing of it is counted.
    Unfinished,
    /// Its topic is whole: it is counted.
    Written,
    /// It is to be taken back; nothing of it was ever counted.
    UndoingUnfinished,
    /// It is to be taken back, rows and all.
    Undoing,
    Undone,
}

/// All imports, oldest first.
///
/// The first word counts: what is to be taken back is not written any more, whatever its writer says after that; and
/// what is unknown, or begins twice, changes nothing.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a (i64, ControlRecord)>) -> Vec<PastImport> {
    let mut all: Vec<PastImport> = Vec::new();
    for (offset, record) in records {
        let of = |all: &mut Vec<PastImport>, id: &str| all.iter().position(|past| past.import.id == id);
        match &record.action {
            Action::ImportBegun { import } if of(&mut all, &import.id).is_none() => all.push(PastImport {
                import: import.clone(),
                offset: *offset,
                begun_ms: record.at_ms,
                who: record.who.clone(),
                events: 0,
                first_ms: 0,
                last_ms: 0,
                state: State::Unfinished,
            }),
            Action::ImportWritten { id, events, first_ms, last_ms, .. } => {
                if let Some(index) = of(&mut all, id)
                    && all[index].state == State::Unfinished
                {
                    let past = &mut all[index];
                    (past.events, past.first_ms, past.last_ms) = (*events, *first_ms, *last_ms);
                    past.state = State::Written;
                }
            }
            Action::ImportUndo { id } => {
                if let Some(index) = of(&mut all, id) {
                    all[index].state = match all[index].state {
                        State::Unfinished => State::UndoingUnfinished,
                        State::Written => State::Undoing,
                        state => state,
                    };
                }
            }
            Action::ImportUndone { id } => {
                if let Some(index) = of(&mut all, id) {
                    all[index].state = State::Undone;
                }
            }
            _ => {}
        }
    }
    all
}

/// A part of some file that is in the statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: String,
    pub(crate) began_at: u64,
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// The parts of files that the site's imports hold, shortest first.
pub(crate) fn parts(imports: &[PastImport], site: &str) -> Vec<Part> {
    let written = imports.iter().filter(|past| past.state == State::Written && past.import.site == site);
    let mut parts: Vec<Part> = written
        .flat_map(|past| {
            past.import.files.iter().map(|file| Part {
                id: past.import.id.clone(),
                began_at: file.began_at,
                bytes: file.bytes,
                blake3: file.blake3.clone(),
            })
        })
        .collect();
    parts.sort_by_key(|part| part.bytes);
    parts
}

/// The site's imports that are neither written nor taken back.
pub(crate) fn unfinished<'a>(imports: &'a [PastImport], site: &str) -> impl Iterator<Item = &'a PastImport> {
    imports.iter().filter(move |past| {
        past.import.site == site && matches!(past.state, State::Unfinished | State::UndoingUnfinished)
    })
}

/// Where a file goes on of which `held` parts are counted already (each hash was found to be the file's own).
///
/// `Err` names an import that holds a later part, while what lies before it was taken back: neither going on there nor
/// beginning anew counts every line once.
pub(crate) fn goes_on_at(held: &[Part]) -> Result<u64, String> {
    let mut at = 0;
    while let Some(next) = held.iter().filter(|part| part.began_at <= at).map(|part| part.bytes).max() {
        if next <= at {
            break;
        }
        at = next;
    }
    match held.iter().find(|part| part.began_at > at) {
        Some(stray) => Err(stray.id.clone()),
        None => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::control::ImportedFile;

    use super::*;

    fn begun(id: &str) -> Action {
        let files = vec![ImportedFile { name: "f".into(), began_at: 0, bytes: 10, blake3: "h".into() }];
        Action::ImportBegun { import: Import { id: id.into(), site: "s".into(), files } }
    }

    fn written(id: &str) -> Action {
        Action::ImportWritten { id: id.into(), events: 3, partitions: 1, first_ms: 1, last_ms: 2 }
    }

    fn undo(id: &str) -> Action {
        Action::ImportUndo { id: id.into() }
    }

    fn undone(id: &str) -> Action {
        Action::ImportUndone { id: id.into() }
    }

    fn folded(actions: &[Action]) -> Vec<PastImport> {
        let record = |action: &Action| ControlRecord {
            at_ms: 0,
            who: String::new(),
            reason: String::new(),
            action: action.clone(),
        };
        let records: Vec<_> = actions.iter().enumerate().map(|(at, action)| (at as i64, record(action))).collect();
        fold(&records)
    }

    fn check(actions: &[Action], expected: &[State]) {
        assert_eq!(folded(actions).iter().map(|past| past.state).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_import_is_what_the_first_word_on_it_says() {
        check(&[], &[]);
        check(&[begun("a"), begun("b"), written("b")], &[State::Unfinished, State::Written]);
        check(&[begun("a"), written("a"), undo("a")], &[State::Undoing]);
        check(&[begun("a"), written("a"), undo("a"), undone("a"), undo("a")], &[State::Undone]);
        check(&[begun("a"), undo("a")], &[State::UndoingUnfinished]);
        check(&[begun("a"), undo("a"), written("a")], &[State::UndoingUnfinished]);
        check(&[begun("a"), undo("a"), undone("a"), written("a")], &[State::Undone]);
        check(&[written("x"), undo("x"), begun("a"), begun("a")], &[State::Unfinished]);
    }

    #[test]
    fn only_what_is_written_holds_parts_of_files() {
        let count = |actions: &[Action], site| parts(&folded(actions), site).len();
        assert_eq!(count(&[begun("a"), written("a")], "s"), 1);
        assert_eq!(count(&[begun("a"), written("a")], "other"), 0);
        assert_eq!(count(&[begun("a")], "s"), 0);
        assert_eq!(count(&[begun("a"), written("a"), undo("a")], "s"), 0);
    }

    fn part(id: &str, began_at: u64, bytes: u64) -> Part {
        Part { id: id.into(), began_at, bytes, blake3: String::new() }
    }

    #[test]
    fn a_file_goes_on_where_its_parts_without_a_gap_end() {
        assert_eq!(goes_on_at(&[]), Ok(0));
        assert_eq!(goes_on_at(&[part("a", 0, 10)]), Ok(10));
        assert_eq!(goes_on_at(&[part("b", 10, 20), part("a", 0, 10)]), Ok(20));
        assert_eq!(goes_on_at(&[part("a", 0, 10), part("again", 0, 15), part("b", 10, 15)]), Ok(15));
    }

    #[test]
    fn a_part_whose_beginning_was_taken_back_is_named() {
        assert_eq!(goes_on_at(&[part("b", 10, 20)]), Err("b".to_owned()));
        assert_eq!(goes_on_at(&[part("a", 0, 10), part("c", 20, 30)]), Err("c".to_owned()));
    }
}
