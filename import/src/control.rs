//! An import's place among others: what the control log says of them, and what this one has to say.
//!
//! Two imports of a site never both count the same lines: each says in the control log that it begins and then reads
//! that log again, so the second one sees the first. And whoever takes a slow one for dead takes it back in the control
//! log first, where what it says later changes nothing any more.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use weir_log::{ControlLog, LogError, TopicKind};
use weir_schemas::control::{Action, ControlRecord, Import, import_topic};

use crate::{
    Environment, ImportError, PastImport,
    history::{self, State, fold},
    import::Identity,
    progress::Progress,
    sort::Sorter,
    stop::Stop,
    write::{self, Target},
};

/// What the control log says, and what this import has to say.
pub(crate) struct History<'a> {
    environment: &'a Environment,
    /// `None` for a rehearsal on a log that has no control topic: it makes none.
    control: Option<ControlLog>,
}

/// How often the control log is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl<'a> History<'a> {
    pub(crate) fn open(environment: &'a Environment, read_only: bool) -> Result<Self, ImportError> {
        let log = &environment.log;
        let control = if read_only { ControlLog::look(log.clone())? } else { Some(ControlLog::open(log.clone())?) };
        Ok(Self { environment, control })
    }

    /// All imports, oldest first.
    pub(crate) fn imports(&self) -> Result<Vec<PastImport>, ImportError> {
        match &self.control {
            Some(control) => Ok(fold(&control.read_all()?.records)),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) fn say(&self, reason: &str, action: Action) -> Result<i64, LogError> {
        let record = ControlRecord {
            at_ms: self.environment.clock.now_ms(),
            who: self.environment.who.clone(),
            reason: reason.to_owned(),
            action,
        };
        let control = self.control.as_ref().expect("a rehearsal says nothing");
        block_on(control.append(&record))
    }

    /// Takes back an import that was not written to its end. Nobody counted anything of it, so only its topic goes.
    pub(crate) fn take_back(&self, id: &str, reason: &str) -> Result<(), LogError> {
        self.say(reason, Action::ImportUndo { id: id.to_owned() })?;
        self.environment.log.delete_topic(&import_topic(id))?;
        self.say(reason, Action::ImportUndone { id: id.to_owned() })?;
        Ok(())
    }

    /// Waits until no import of the site is being written, and takes back those that nobody writes any more. Says which.
    pub(crate) fn settle(&self, site: &str, stop: &Stop) -> Result<Vec<String>, ImportError> {
        let mut notes = Vec::new();
        let mut seen = (String::new(), 0);
        let mut since = Instant::now();
        let mut waiting: Option<Progress> = None;
        loop {
            let imports = self.imports()?;
            let Some(past) = history::unfinished(&imports, site).next() else { return Ok(notes) };
            let id = past.import.id.clone();
            let dead = past.state == State::UndoingUnfinished || {
                let now = (id.clone(), self.records(&id)?);
                if now != seen {
                    if seen.0 != id {
                        tracing::info!(id, begun_by = past.who, "an import of this site is unfinished: waiting for it");
                        waiting = Some(Progress::waiting(format!(
                            "import {id}, begun by {}, is unfinished: waiting for it to end or to fall silent",
                            past.who
                        )));
                    }
                    (seen, since) = (now, Instant::now());
                }
                since.elapsed() >= self.environment.patience
            };
            if dead {
                drop(waiting.take());
                self.take_back(&id, "it was begun and not finished")?;
                notes.push(format!("import {id}, begun by {} and not finished, was taken back", past.who));
                continue;
            }
            if stop.stopped() {
                return Err(ImportError::Interrupted);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Records in an import's topic so far.
    fn records(&self, id: &str) -> Result<i64, LogError> {
        let (log, topic) = (&self.environment.log, import_topic(id));
        let count = || (0..log.partitions(&topic)?).map(|partition| Ok(log.bounds(&topic, partition)?.end)).sum();
        match count() {
            Err(LogError::UnknownTopic(_)) => Ok(0),
            counted => counted,
        }
    }

    /// Writes what was sorted, between its two control records. Fails without leaving anything, if the log lets it.
    pub(crate) fn write(
        &self,
        import: Import,
        parts: &[history::Part],
        sorter: Sorter,
        identity: &Identity,
        stop: &Stop,
        sort_error: &dyn Fn(std::io::Error) -> ImportError,
    ) -> Result<(), ImportError> {
        let (id, site) = (import.id.clone(), import.site.clone());
        if !stop.begin_writing() {
            return Err(ImportError::Interrupted);
        }
        let offset = self.say("", Action::ImportBegun { import })?;
        let written = self.alone(&id, &site, offset, parts).and_then(|()| {
            let events = sorter.len();
            let topic = import_topic(&id);
            let target = Target {
                log: &self.environment.log,
                clock: &self.environment.clock,
                topic: &topic,
                partitions: write::partitions_of(events),
                collector: identity.collector,
                site: &site,
            };
            target.log.create_topic(&topic, &TopicKind::Import { partitions: target.partitions })?;
            let mut sorted = sorter.sorted().map_err(sort_error)?;
            let written = write::write(&target, &mut sorted, stop, &Progress::writing(events), sort_error)?;
            assert_eq!(written.events, events, "what was sorted is what was read");
            Ok((written, target.partitions))
        });
        let (written, partitions) = match written {
            Ok(written) => written,
            Err(cause) => return Err(self.failed(id, cause)),
        };
        let written = Action::ImportWritten {
            id: id.clone(),
            events: written.events,
            partitions,
            first_ms: written.first_ms,
            last_ms: written.last_ms,
        };
        self.say("", written).map_err(|error| self.failed(id.clone(), error.into()))?;
        let state = self.imports()?.iter().find(|past| past.import.id == id).map(|past| past.state);
        if state == Some(State::Written) {
            return Ok(());
        }
        // A broker that makes topics by itself may have made it once more.
        self.environment.log.delete_topic(&import_topic(&id))?;
        Err(ImportError::TakenBack(id))
    }

    /// Whether no other import of the site is being written, and none was written or taken back since `parts` were read.
    fn alone(&self, id: &str, site: &str, offset: i64, parts: &[history::Part]) -> Result<(), ImportError> {
        let imports = self.imports()?;
        if let Some(other) = history::unfinished(&imports, site).find(|other| other.offset < offset) {
            return Err(ImportError::Busy { site: site.to_owned(), id: other.import.id.clone() });
        }
        let now = history::parts(&imports, site);
        let differs = now.iter().find(|part| !parts.contains(part)).or(parts.iter().find(|part| !now.contains(part)));
        match differs {
            Some(part) => Err(ImportError::Overtaken { site: site.to_owned(), id: part.id.clone() }),
            None if imports.iter().any(|past| past.import.id == id && past.state == State::Unfinished) => Ok(()),
            None => Err(ImportError::TakenBack(id.to_owned())),
        }
    }

    fn failed(&self, id: String, cause: ImportError) -> ImportError {
        match self.take_back(&id, "it failed, or was interrupted, before its end") {
            // These say themselves that nothing was imported.
            Ok(()) if matches!(cause, ImportError::Busy { .. } | ImportError::Overtaken { .. }) => cause,
            Ok(()) => ImportError::Failed { id, cause: Box::new(cause) },
            Err(taking_back) => {
                ImportError::Unfinished { id, cause: Box::new(cause), taking_back: Box::new(taking_back) }
            }
        }
    }
}
