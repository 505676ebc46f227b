//! `weir import undo` and `weir import list`.

use std::time::{Duration, Instant};

use comfy_table::Table;
use jiff::Timestamp;
use weir_schemas::control::Action;

use crate::{Environment, ImportError, PastImport, State, control::History, progress::Progress};

/// Has an import taken back as a whole, and waits up to `wait` until it is. Gives what it was.
///
/// What was never counted goes at once. What was is the pipeline's to take back, so without a running one it stays
/// until there is: [`ImportError::UndoPending`]. To ask again changes nothing.
pub async fn undo(id: &str, wait: Duration, environment: &Environment) -> Result<PastImport, ImportError> {
    let begun = Instant::now();
    let mut asked = false;
    let mut waiting = None;
    loop {
        let (id, environment) = (id.to_owned(), environment.clone());
        let look = tokio::task::spawn_blocking({
            let id = id.clone();
            move || look(&id, asked, &environment)
        });
        let past = look.await.expect("looking does not panic")?;
        asked = true;
        waiting
            .get_or_insert_with(|| Progress::waiting(format!("import {id}: waiting for the pipeline to take it back")));
        if past.state == State::Undone {
            return Ok(past);
        }
        if begun.elapsed() >= wait {
            return Err(ImportError::UndoPending { id, seconds: wait.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn look(id: &str, asked: bool, environment: &Environment) -> Result<PastImport, ImportError> {
    const REASON: &str = "weir import undo";
    let history = History::open(environment, false)?;
    let find = || {
        let found = history.imports()?.into_iter().find(|past| past.import.id == id);
        found.ok_or_else(|| ImportError::UnknownImport(id.to_owned()))
    };
    let past = find()?;
    match past.state {
        State::Unfinished | State::UndoingUnfinished => {
            history.take_back(id, REASON)?;
            find()
        }
        State::Written if !asked => {
            history.say(REASON, Action::ImportUndo { id: id.to_owned() })?;
            find()
        }
        State::Written | State::Undoing | State::Undone => Ok(past),
    }
}

/// What an undo of it would do, for people.
pub(crate) fn rehearsal(past: &PastImport) -> String {
    let PastImport { import, events, .. } = past;
    let (id, site) = (&import.id, &import.site);
    match past.state {
        State::Unfinished => {
            format!("would be so: import {id} of {site}, of which nothing is counted, goes from the log")
        }
        State::Written => {
            format!("would be so: {events} events of {site} by import {id} go from the statistics and the log")
        }
        State::Undoing | State::UndoingUnfinished => format!("import {id} is being taken back already"),
        State::Undone => format!("import {id} was taken back already"),
    }
}

/// All imports, oldest first. Makes nothing in the log.
pub fn list(environment: &Environment) -> Result<Vec<PastImport>, ImportError> {
    History::open(environment, true)?.imports()
}

/// For people.
pub(crate) fn table(all: &[PastImport]) -> String {
    let mut table = Table::new();
    table.set_header(["import", "site", "events", "from", "to", "files", "state"]);
    for past in all {
        let at = |ms: i64| match past.events {
            0 => String::new(),
            _ => Timestamp::from_millisecond(ms).map_or(String::new(), |at| at.to_string()),
        };
        let files: Vec<String> = past
            .import
            .files
            .iter()
            .map(|file| format!("{} (bytes {} to {})", file.name, file.began_at, file.bytes))
            .collect();
        let state = match past.state {
            State::Unfinished => "unfinished: nothing of it is counted",
            State::Written => "written",
            State::UndoingUnfinished | State::Undoing => "to be taken back",
            State::Undone => "taken back",
        };
        table.add_row([
            past.import.id.clone(),
            past.import.site.clone(),
            past.events.to_string(),
            at(past.first_ms),
            at(past.last_ms),
            files.join("\n"),
            state.to_owned(),
        ]);
    }
    table.to_string()
}
