//! Reads inputs line by line: counts each line in one class, and gives those that count to the sorter.

use std::{collections::BTreeMap, io, sync::Arc};

use weir_log::Clock;
use weir_schemas::{CLOCK_BOUND_MS, Kind, control::ImportedFile};

use crate::{
    Class, Day, ImportError,
    class::{Verdict, verdict},
    event::Maker,
    history::{Part, goes_on_at},
    line::{self, Malformed},
    progress::Progress,
    rejects::Rejects,
    sort::Sorter,
    source::{Input, Lines, Next},
    stop::Stop,
};

/// Nobody browsed before: the first server was put up in 1990.
const FIRST_TIME_MS: i64 = 631_152_000_000;
/// How many lines pass between two looks at the terminal and at Ctrl-C.
const LINES_BETWEEN_LOOKS: u64 = 8_192;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) lines: u64,
    pub(crate) classes: [u64; Class::ALL.len()],
    /// Per day since the epoch (UTC): page views, downloads, those of bots.
    pub(crate) days: BTreeMap<i64, [u64; 3]>,
    pub(crate) combined: u64,
    pub(crate) common: u64,
    /// Times of the first and the last event, ms since the Unix epoch.
    pub(crate) span: Option<(i64, i64)>,
}

impl Tally {
    pub(crate) fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    /// Lines that become events.
    pub(crate) fn events(&self) -> u64 {
        self.of(Class::PageViews) + self.of(Class::Downloads) + self.of(Class::Bots)
    }

    /// Days with events, ascending.
    pub(crate) fn days(&self) -> Vec<Day> {
        let shown = |day: i64| crate::import::date(day).map_or(day.to_string(), |date| date.to_string());
        let day = |(day, [page_views, downloads, bots]): (&i64, &[u64; 3])| Day {
            day: shown(*day),
            page_views: *page_views,
            downloads: *downloads,
            bots: *bots,
        };
        self.days.iter().map(day).collect()
    }
}

/// Reads inputs one after the other.
pub(crate) struct Reading<'a> {
    pub(crate) maker: Maker<'a>,
    pub(crate) sorter: Sorter,
    pub(crate) rejects: Rejects,
    pub(crate) tally: Tally,
    /// Bytes at the beginnings of inputs that earlier imports hold.
    pub(crate) bytes_held: u64,
    /// Bytes behind last lines' ends.
    pub(crate) bytes_left: u64,
    /// Parts of files that earlier imports hold.
    pub(crate) parts: Vec<Part>,
    pub(crate) finished: bool,
    /// Only counts.
    pub(crate) rehearsal: bool,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) progress: Progress,
    pub(crate) stop: &'a Stop,
}

/// What reading one input came to.
pub(crate) enum Came {
    Read(ImportedFile),
    /// Everything in it is held by the imports of these ids.
    NothingNew {
        ids: String,
    },
}

/// Stands for the import under way in the list of those that hold a part of a file.
const THIS_IMPORT: &str = "this import";

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Reading<'_> {
    /// Reads `input` from where earlier imports of the site ended.
    pub(crate) fn read(&mut self, input: &Input) -> Result<Came, ImportError> {
        let name = input.name();
        let failed = |cause| ImportError::Read { input: name.clone(), cause };
        let gap = |id| ImportError::Gap { input: name.clone(), id };
        let last_time_ms = self.clock.now_ms() + CLOCK_BOUND_MS;
        // A file is looked through first, to begin where it goes on. Stdin cannot be: what was read of it is thrown
        // away when it turns out to be known.
        let parts = self.parts.clone();
        let mut found = match input {
            Input::File(_) => held_in(input, &parts, self.stop).map_err(failed)?,
            Input::Stdin => Vec::new(),
        };
        let mut began_at = goes_on_at(&found).map_err(gap)?;
        let mut held = Held::new(&parts);
        let mut lines = Lines::new(input.open(self.progress.taken.clone()).map_err(failed)?, self.finished);
        let mut line_number = 0;
        loop {
            let next = lines.next().map_err(failed)?;
            if let Next::End { left } = next {
                self.bytes_left += if held.before >= began_at { left } else { 0 };
                break;
            }
            line_number += 1;
            if line_number % LINES_BETWEEN_LOOKS == 0 {
                self.progress.lines(line_number);
                if self.stop.stopped() {
                    return Err(ImportError::Interrupted);
                }
            }
            // `next` borrows the lines, so what lies before is known by its end only after it was looked at.
            if held.before >= began_at {
                match next {
                    Next::Line(line) => self.line(&name, line_number, line, last_time_ms)?,
                    Next::TooLong(line) => self.malformed(&name, line_number, Malformed::LineTooLong, line)?,
                    Next::End { .. } => unreachable!("looked at before"),
                }
            }
            if held.look(&mut lines) && *input == Input::Stdin {
                let at = goes_on_at(&held.found).unwrap_or(began_at);
                if at == lines.bytes() {
                    began_at = at;
                    self.forget()?;
                }
            }
        }
        if *input == Input::Stdin {
            found = held.found;
            goes_on_at(&found).map_err(gap)?;
        }
        self.bytes_held += began_at;
        if lines.bytes() <= began_at && began_at > 0 {
            let ids: Vec<&str> = found.iter().map(|part| &*part.id).collect();
            return Ok(Came::NothingNew { ids: ids.join(", ") });
        }
        let file = ImportedFile { name, began_at, bytes: lines.bytes(), blake3: lines.blake3() };
        // The same content, named twice in one command, counts once.
        let part = Part { id: THIS_IMPORT.to_owned(), began_at, bytes: file.bytes, blake3: file.blake3.clone() };
        self.parts.push(part);
        self.parts.sort_by_key(|part| part.bytes);
        Ok(Came::Read(file))
    }

    fn line(&mut self, input: &str, line_number: u64, line: &[u8], last_time_ms: i64) -> Result<(), ImportError> {
        match self.class(line, last_time_ms) {
            Ok(class) => {
                self.count(class?);
                Ok(())
            }
            Err(malformed) => self.malformed(input, line_number, malformed, line),
        }
    }

    /// The class of a line, which is given to the sorter if it counts. The inner error is the sorter's.
    fn class(&mut self, line: &[u8], last_time_ms: i64) -> Result<Result<Class, ImportError>, Malformed> {
        let line = line::parse(line)?;
        if line.time_ms < FIRST_TIME_MS {
            return Err(Malformed::BeforeTheWeb);
        }
        if line.time_ms > last_time_ms {
            return Err(Malformed::InTheFuture);
        }
        let class = match (verdict(&line)?, &line.request) {
            (Verdict::Not(class), _) => class,
            (Verdict::Hit(_), None) => return Err(Malformed::BadRequest),
            (Verdict::Hit(kind), Some(request)) => {
                let made = self.maker.make(&line, request, kind)?;
                let (class, measure) = match (made.bot, kind) {
                    (true, _) => (Class::Bots, 2),
                    (false, Kind::Download) => (Class::Downloads, 1),
                    (false, _) => (Class::PageViews, 0),
                };
                if !self.rehearsal
                    && let Err(cause) = self.sorter.push(line.time_ms, |out| made.write(out))
                {
                    return Ok(Err(ImportError::Sort { dir: self.sorter.dir().into(), cause }));
                }
                let (first_ms, last_ms) = self.tally.span.unwrap_or((line.time_ms, line.time_ms));
                self.tally.span = Some((first_ms.min(line.time_ms), last_ms.max(line.time_ms)));
                self.tally.days.entry(line.time_ms.div_euclid(DAY_MS)).or_default()[measure] += 1;
                class
            }
        };
        match line.browser {
            Some(_) => self.tally.combined += 1,
            None => self.tally.common += 1,
        }
        Ok(Ok(class))
    }

    fn malformed(&mut self, input: &str, line_number: u64, reason: Malformed, line: &[u8]) -> Result<(), ImportError> {
        self.count(Class::Malformed);
        self.rejects.add(input, line_number, reason, line).map_err(|cause| self.rejects_error(cause))
    }

    fn count(&mut self, class: Class) {
        self.tally.lines += 1;
        self.tally.classes[class as usize] += 1;
    }

    /// Everything that was read so far is known from earlier imports.
    fn forget(&mut self) -> Result<(), ImportError> {
        self.tally = Tally::default();
        self.sorter.clear();
        self.rejects.clear().map_err(|cause| self.rejects_error(cause))
    }

    fn rejects_error(&self, cause: io::Error) -> ImportError {
        ImportError::Rejects { path: self.rejects.place().into(), cause }
    }
}

/// Which of the known parts the input begins with.
fn held_in(input: &Input, parts: &[Part], stop: &Stop) -> io::Result<Vec<Part>> {
    let mut held = Held::new(parts);
    if held.next_at() == u64::MAX {
        return Ok(held.found);
    }
    let mut lines = Lines::new(input.open(Arc::default())?, true);
    while !stop.stopped() && held.next_at() != u64::MAX && !matches!(lines.next()?, Next::End { .. }) {
        held.look(&mut lines);
    }
    Ok(held.found)
}

/// Compares what was read of an input with parts that are known, whenever it is as long as one.
struct Held<'a> {
    /// Shortest first; those that are longer than what was read.
    parts: &'a [Part],
    found: Vec<Part>,
    /// Bytes of the lines before the next.
    before: u64,
}

impl<'a> Held<'a> {
    fn new(parts: &'a [Part]) -> Self {
        Self { parts, found: Vec::new(), before: 0 }
    }

    fn next_at(&self) -> u64 {
        self.parts.first().map_or(u64::MAX, |part| part.bytes)
    }

    /// Looks after each line; whether what was read is a known part.
    fn look<R: io::Read>(&mut self, lines: &mut Lines<R>) -> bool {
        self.before = lines.bytes();
        let found_before = self.found.len();
        while self.before >= self.next_at() {
            let (part, rest) = self.parts.split_first().expect("there is a next one");
            self.parts = rest;
            if part.bytes == self.before && part.blake3 == lines.blake3() {
                self.found.push(part.clone());
            }
        }
        self.found.len() > found_before
    }
}
