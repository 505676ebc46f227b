//! One import from its first line to its last record.
//!
//! ```text
//!  settle ─▶ read, sort ─▶ ImportBegun ─▶ alone? ─▶ topic, batches, ends ─▶ ImportWritten ─▶ still ours?
//!    │                                      │ no             │ failed                          │ no
//!    ▼                                      ▼                ▼                                 ▼
//!  takes back what a dead import left     taken back       taken back                    said, not counted
//! ```

use std::{path::Path, sync::Arc, thread, time::Instant};

use anyhow::Context;
use futures::channel::oneshot;
use jiff::{Timestamp, civil::Date};
use weir_ingest::{Countries, IngestConfig, Sites};
use weir_schemas::control::Import;

use crate::{
    Class, Environment, ImportArgs, ImportError, Summary,
    control::History,
    event::{Maker, Subject},
    history,
    progress::Progress,
    read::{Came, Reading},
    rejects::Rejects,
    sort::Sorter,
    source::Input,
    stop::Stop,
};

/// Imports what `args` names, and says what came of it. Ctrl-C ends it; the error then says what state it left.
///
/// [`ImportError`], with what it left in the log: nothing, or what the next import takes back. Nothing is ever counted
/// in part.
pub async fn import(args: ImportArgs, environment: Environment) -> anyhow::Result<Summary> {
    let stop = Arc::new(Stop::default());
    let (site, dry_run) = (args.site.clone(), args.dry_run);
    let mut done = on_a_thread(args, environment.clone(), Identity::random(), stop.clone());
    let mut interrupted = false;
    let mut summary = loop {
        tokio::select! {
            done = &mut done => break done.context("the import's thread ended without a word")??,
            signal = tokio::signal::ctrl_c(), if !interrupted => {
                signal?;
                interrupted = true;
                if stop.stop() {
                    // The thread may wait for stdin for ever; it can begin nothing any more.
                    return Err(ImportError::Interrupted.into());
                }
                tracing::warn!("interrupted: taking back what was begun");
            }
        }
    };
    if dry_run && let (Some(first), Some(last)) = (summary.days.first(), summary.days.last()) {
        let (first, last): (Date, Date) = (first.day.parse()?, last.day.parse()?);
        match environment.live_days.live_days(&site, first, last).await {
            Ok(live) => summary.notes.extend(live_note(&site, &live, &summary)),
            Err(error) => {
                summary.notes.push(format!("whether the site has live traffic on those days is not known: {error:#}"))
            }
        }
    }
    Ok(summary)
}

/// What makes an import unlike any other.
pub(crate) struct Identity {
    pub(crate) key: [u8; 32],
    pub(crate) collector: [u8; 16],
}

impl Identity {
    pub(crate) fn random() -> Self {
        Self { key: rand::random(), collector: *uuid::Uuid::new_v4().as_bytes() }
    }
}

/// A thread, not a blocking task: a runtime that is dropped would wait for that, and so for stdin.
fn on_a_thread(
    args: ImportArgs,
    environment: Environment,
    identity: Identity,
    stop: Arc<Stop>,
) -> oneshot::Receiver<Result<Summary, ImportError>> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let done = import_until(&args, &environment, &identity, &stop);
        // Nobody listens any more after Ctrl-C.
        let _ = tell.send(done);
    });
    told
}

fn live_note(site: &str, live: &[Date], summary: &Summary) -> Option<String> {
    let both: Vec<&str> = summary
        .days
        .iter()
        .map(|day| &*day.day)
        .filter(|day| live.iter().any(|live| live.to_string() == **day))
        .collect();
    let (first, last) = (both.first()?, both.last()?);
    Some(format!(
        "site {site} has live traffic on {} of these days, {first} to {last}: an import counts beside it, so what both \
         saw would count twice",
        both.len()
    ))
}

/// The day (UTC) so many days after the epoch.
pub(crate) fn date(day: i64) -> Option<Date> {
    let at = Timestamp::from_second(day.checked_mul(86_400)?).ok()?;
    Some(at.to_zoned_datetime(jiff::tz::TimeZone::UTC).date())
}

/// The whole import, on the thread that calls; `stop` ends it.
pub(crate) fn import_until(
    args: &ImportArgs,
    environment: &Environment,
    identity: &Identity,
    stop: &Stop,
) -> Result<Summary, ImportError> {
    let begun = Instant::now();
    let sites = Sites::new(&IngestConfig {
        sites: environment.sites.clone(),
        accept_any_site: environment.accept_any_site,
        ..IngestConfig::default()
    });
    let known = sites.get(&args.site).ok_or_else(|| ImportError::UnknownSite(args.site.clone()))?;
    let inputs: Vec<Input> = args.files.iter().map(|path| Input::of(path)).collect();
    if inputs.len() > 1 && inputs.contains(&Input::Stdin) {
        return Err(ImportError::StdinNotAlone);
    }
    let countries = environment.mmdb.as_deref().map(Countries::open).transpose()?;
    let history = History::open(environment, args.dry_run)?;
    let mut notes = Vec::new();
    if !args.dry_run {
        notes.extend(history.settle(&args.site, stop)?);
    }
    let imports = history.imports()?;
    let parts = history::parts(&imports, &args.site);
    let host = host(args, environment);
    if host.is_empty() {
        notes.push(format!(
            "no host of site {} is known, so its own pages count as referrers (give `--host`, or `hosts` in the configuration)",
            args.site
        ));
    }
    let id = new_id(environment.clock.now_ms());
    let temp_dir = args.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let subject = Subject {
        site: &args.site,
        host: &host,
        known,
        rules: environment.rules,
        countries: countries.as_ref(),
        key: identity.key,
    };
    let mut reading = Reading {
        maker: Maker::new(subject),
        sorter: Sorter::new(&temp_dir, args.memory_mb as usize * (1 << 20)),
        rejects: Rejects::new(args.rejects.clone().unwrap_or_else(|| format!("import-{id}.rejects").into())),
        tally: Default::default(),
        bytes_held: 0,
        bytes_left: 0,
        parts: if args.again { Vec::new() } else { parts.clone() },
        finished: args.finished,
        rehearsal: args.dry_run,
        clock: &environment.clock,
        progress: Progress::reading(inputs.iter().map(Input::bytes).sum()),
        stop,
    };
    let mut files = Vec::new();
    let mut refused = None;
    for input in &inputs {
        match reading.read(input)? {
            Came::Read(file) => files.push(file),
            Came::NothingNew { ids } => {
                notes.push(format!("{} has nothing new: it is held by {ids}", input.name()));
                refused = Some(ImportError::Again { input: input.name(), ids });
            }
        }
    }
    if files.is_empty()
        && let Some(refused) = refused
    {
        return Err(refused);
    }
    let Reading { sorter, mut rejects, tally, bytes_held, bytes_left, progress, .. } = reading;
    drop(progress);
    rejects.flush().map_err(|cause| ImportError::Rejects { path: rejects.place().into(), cause })?;
    if bytes_held > 0 {
        notes.push(format!("{bytes_held} bytes at the beginning were imported before and are left out"));
    }
    if bytes_left > 0 {
        notes.push(format!(
            "the last {bytes_left} bytes are a line without an end: they are left for the next import (or give `--finished`)"
        ));
    }
    let sum: u64 = tally.classes.iter().sum();
    assert_eq!(sum, tally.lines, "each line is in exactly one class");
    let events = tally.events();
    assert_eq!(sorter.len(), if args.dry_run { 0 } else { events }, "every line that counts is to be written");
    let mut summary = Summary {
        id: None,
        site: args.site.clone(),
        dry_run: args.dry_run,
        lines: tally.lines,
        classes: Class::ALL.into_iter().map(|class| (class, tally.of(class))).collect(),
        page_views: tally.of(Class::PageViews),
        downloads: tally.of(Class::Downloads),
        bots: tally.of(Class::Bots),
        events,
        first: None,
        last: None,
        days: tally.days(),
        combined: tally.combined,
        common: tally.common,
        bytes_held,
        bytes_left,
        rejects: rejects.path().map(Path::to_owned),
        notes,
        seconds: 0.0,
    };
    if let Some((first_ms, last_ms)) = tally.span {
        (summary.first, summary.last) = (rfc3339(first_ms), rfc3339(last_ms));
    }
    if events > 0 && !args.dry_run {
        files.retain(|file| file.bytes > file.began_at);
        let import = Import { id: id.clone(), site: args.site.clone(), files };
        let sort_error = |cause| ImportError::Sort { dir: temp_dir.clone(), cause };
        history.write(import, &parts, sorter, identity, stop, &sort_error)?;
        summary.id = Some(id);
    }
    summary.seconds = begun.elapsed().as_secs_f64();
    Ok(summary)
}

fn rfc3339(at_ms: i64) -> Option<String> {
    Timestamp::from_millisecond(at_ms).ok().map(|at| at.to_string())
}

/// The host of the site's pages: as given, else its first in the configuration, else its name if that is a domain.
fn host(args: &ImportArgs, environment: &Environment) -> String {
    let given = args.host.as_deref().or_else(|| {
        let site = environment.sites.iter().find(|site| site.name == args.site)?;
        site.hosts.iter().map(|host| &**host).find(|host| !host.starts_with("*."))
    });
    let host = given.or_else(|| args.site.contains('.').then_some(&*args.site)).unwrap_or_default();
    let page = weir_ingest::Page::of_url(&format!("http://{host}/"), |_| false);
    page.map(|page| page.host).unwrap_or_default()
}

/// Says when it was made, to the second, and is made only once.
fn new_id(now_ms: i64) -> String {
    let at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    format!("{}-{:06x}", at.strftime("%Y%m%d-%H%M%S"), rand::random::<u32>() & 0xff_ffff)
}
