//! Access logs in, events of a site in a topic of their own out.
//!
//! ```text
//!  files, stdin ─▶ Lines ─▶ Line ─▶ class ─▶ Event ─▶ Sorter ─▶ batches ─▶ weir.import.<id> ─▶ (a run of its own)
//!                    │        │        └─ counted, each line once                 ▲
//!                    │        └─ malformed: rejects file         ImportBegun ─────┴───── ImportWritten
//!                    └─ BLAKE3: known from an earlier import?
//! ```
//!
//! Invariants
//! - each line is in exactly one class, and the classes add up to the lines
//! - a topic is sorted by event time, in each partition: nothing of an import is ever late
//! - the same files give the same batches, byte for byte, except for the collector's id and the visitors' numbers
//! - an import is counted as a whole or not at all: without [`ImportWritten`] nobody reads its topic, and the next
//!   import of the site takes it back
//! - memory is bounded, whatever the files hold
//! - no visitor's address leaves this crate, except in the rejects file
//!
//! Start at [`run`], or at [`import()`] for the numbers without the words. Not here: counting, and taking back what was
//! counted already, which the pipeline does when it sees [`ImportUndo`].
//!
//! [`ImportWritten`]: weir_schemas::control::Action::ImportWritten
//! [`ImportUndo`]: weir_schemas::control::Action::ImportUndo

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::civil::Date;
use weir_ingest::SiteConfig;
use weir_log::{Clock, Log};
use weir_schemas::rules::Rules;

mod args;
mod class;
mod control;
mod error;
mod event;
mod history;
mod import;
mod line;
mod progress;
mod read;
mod rejects;
mod sort;
mod source;
mod stop;
mod summary;
#[cfg(test)]
mod tests;
mod time;
mod undo;
mod write;

pub use args::{ImportArgs, ImportCommand, ImportTask};
pub use class::Class;
pub use error::ImportError;
pub use history::{PastImport, State, fold};
pub use import::import;
pub use summary::{Day, Summary};
pub use undo::{list, undo};

/// What an import needs of the rest of Weir.
#[derive(Clone)]
pub struct Environment {
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    /// `user@host`, for the control log.
    pub who: String,
    /// The sites that are known.
    pub sites: Vec<SiteConfig>,
    /// Takes others, too.
    pub accept_any_site: bool,
    /// A MaxMind database; without one events have no country.
    pub mmdb: Option<PathBuf>,
    /// Those that the current schema version pins: by them the summary tells bots.
    pub rules: &'static Rules,
    pub live_days: Arc<dyn LiveDays>,
    /// How long an unfinished import of the same site must have been silent before it is taken for dead;
    /// [`PATIENCE`] outside of tests.
    pub patience: Duration,
}

/// How long a writer may say nothing to the log before the next import of its site takes it for dead.
///
/// A live one appends several times a second; should it be alive nevertheless, it notices before it counts as written.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Who knows on which days a site has live traffic.
pub trait LiveDays: Send + Sync {
    /// The days (UTC) of `first..=last` for which `site` has rows of live traffic, ascending.
    fn live_days<'a>(&'a self, site: &'a str, first: Date, last: Date) -> BoxFuture<'a, anyhow::Result<Vec<Date>>>;
}

/// What `weir import …` does: imports, takes back, or lists, and prints what came of it.
///
/// Ctrl-C ends it; the error then says what state it left.
pub async fn run(command: ImportCommand, environment: Environment) -> anyhow::Result<ExitCode> {
    let json = command.json;
    match (command.task, command.files) {
        (Some(ImportTask::Undo { id, dry_run: true, .. }), _) => {
            let past = list(&environment)?.into_iter().find(|past| past.import.id == id);
            let past = past.ok_or(ImportError::UnknownImport(id))?;
            print(json, &past, || undo::rehearsal(&past));
        }
        (Some(ImportTask::Undo { id, wait, dry_run: false }), _) => {
            let undone = undo(&id, Duration::from_secs(wait), &environment).await?;
            print(json, &undone, || format!("import {id} was taken back: nothing of it is counted any more"));
        }
        (Some(ImportTask::List), _) => {
            let all = list(&environment)?;
            print(json, &all, || undo::table(&all));
        }
        (None, Some(args)) => {
            let summary = import(args, environment).await?;
            print(json, &summary, || summary.to_text());
        }
        (None, None) => anyhow::bail!("give a site and files, or `undo`, or `list` (see `weir import --help`)"),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, value: &impl serde::Serialize, text: impl FnOnce() -> String) {
    if json {
        println!("{}", serde_json::to_string(value).expect("a summary is JSON"));
    } else {
        println!("{}", text());
    }
}
