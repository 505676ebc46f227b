//! `weir doctor`: looks at everything weir stands on, and says what to do about what is wrong.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::bail;
use weir_log::{Clock, ControlLog, Log, SystemClock};
use weir_schemas::{World, control::EVENTS_TOPIC};
use weir_sink::{Target, server::ANALYST};

use crate::{config::Config, generation::Generation, serve};

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Makes missing topics, sets those that are configured wrongly, and makes the analyst of a ClickHouse given by URL
    #[arg(long)]
    fix: bool,
}

/// Free space under `data_dir` below which something is said: a day of small sites, and ClickHouse's merges.
const DISK_FREE_MIN_BYTES: u64 = 2 << 30;

/// A clock this far from ours makes stamps and claims disagree; the design bounds it at a minute.
const CLOCK_APART_MAX_MS: i64 = 5_000;

/// Findings in the order they are looked for.
#[derive(Default)]
struct Report {
    wrong: usize,
}

impl Report {
    fn good(&mut self, what: &str, found: impl std::fmt::Display) {
        println!("ok     {what}: {found}");
    }

    fn wrong(&mut self, what: &str, found: impl std::fmt::Display) {
        self.wrong += 1;
        println!("WRONG  {what}: {found}");
    }

    fn take<T: std::fmt::Display, E: std::fmt::Display>(&mut self, what: &str, found: Result<T, E>) {
        match found {
            Ok(found) => self.good(what, found),
            Err(error) => self.wrong(what, error),
        }
    }
}

/// Exit code 1 when anything is wrong.
pub(crate) async fn main(config: &Config, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    look_at_disk(&config.data_dir, &mut report);
    if let Some(mmdb) = &config.ingest.mmdb {
        report.take("countries", weir_ingest::Countries::open(mmdb).map(|_| mmdb.display().to_string()));
    }
    let (log_config, events) = (config.log_config(), config.events_kind());
    let (fix, of) = (args.fix, config.clone());
    report = tokio::task::spawn_blocking(move || {
        // Without --fix nothing is made.
        let open = if fix { weir_log::open } else { weir_log::open_existing };
        match open(&log_config, Arc::new(SystemClock)) {
            Ok(log) => {
                look_at_log(log.as_ref(), &events, fix, &mut report);
                report.take("schema", schema(&of, log).map_err(|error| format!("{error:#}")));
            }
            Err(error) => {
                report.wrong("log", error);
                report.take("schema", of.schema_version().map(|version| format!("version {}", version.number)));
            }
        }
        report
    })
    .await?;
    look_at_clickhouse(config, fix, &mut report).await;
    println!();
    match report.wrong {
        0 => println!("all is well"),
        wrong => println!("{wrong} thing{} to see to", if wrong == 1 { "" } else { "s" }),
    }
    Ok(if report.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look_at_disk(data_dir: &Path, report: &mut Report) {
    let place = place_of(data_dir);
    match free_bytes(place) {
        Ok(free) if free < DISK_FREE_MIN_BYTES => report
            .wrong("disk", format!("{} MiB free at {} (free some, or move data_dir)", free >> 20, place.display())),
        Ok(free) => report.good("disk", format!("{} GiB free at {}", free >> 30, place.display())),
        Err(error) => report.wrong("disk", format!("{}: {error}", place.display())),
    }
}

/// The version that is configured. Errors: it is none, or not the one that is used.
fn schema(config: &Config, log: Arc<dyn Log>) -> anyhow::Result<String> {
    let configured = config.schema_version()?;
    let records = ControlLog::look(log)?.map(|control| control.read_all()).transpose()?;
    let records = records.into_iter().flat_map(|all| all.records).map(|(_, record)| record);
    let world = World::of(&records.collect::<Vec<_>>());
    match Generation::not_configured(config, &world)? {
        None => Ok(format!("version {}", configured.number)),
        Some(why) => bail!(why),
    }
}

/// The folder, or the one in which it will be made.
pub(crate) fn place_of(data_dir: &Path) -> &Path {
    data_dir.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."))
}

pub(crate) fn free_bytes(place: &Path) -> std::io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(place.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `stat` is room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: statvfs answered 0, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail * stat.f_frsize)
}

fn look_at_log(log: &dyn Log, events: &weir_log::TopicKind, fix: bool, report: &mut Report) {
    let mut stamped = false;
    for (topic, kind) in serve::topics(events) {
        let there = log.topics().map(|topics| topics.iter().any(|name| name == topic));
        let found = match there {
            Ok(_) if fix => log.repair_topic(topic, &kind),
            Ok(true) => log.create_topic(topic, &kind),
            Ok(false) => Err(weir_log::LogError::UnknownTopic(topic.to_owned())),
            Err(error) => Err(error),
        };
        stamped |= topic == EVENTS_TOPIC && found.is_ok();
        report.take(&format!("topic {topic}"), found.map(|()| "as weir needs it"));
    }
    // One that is missing or wrong has been told; an append might make it.
    if !stamped {
        return;
    }
    // A tick is a record like any: time moves by the log, and the stamp that it gets is the log's clock.
    let sent_ms = SystemClock.now_ms();
    let tick = weir_schemas::wire::tick_record(sent_ms).into();
    match futures::executor::block_on(log.append(EVENTS_TOPIC, 0, tick, None)) {
        Ok(appended) if (appended.stamp_ms - sent_ms).abs() > CLOCK_APART_MAX_MS => report.wrong(
            "clocks",
            format!("the log's is {} ms off ours (run NTP on both machines)", appended.stamp_ms - sent_ms),
        ),
        Ok(appended) => report.good("clocks", format!("the log's is {} ms off ours", appended.stamp_ms - sent_ms)),
        Err(error) => report.wrong("clocks", error),
    }
}

async fn look_at_clickhouse(config: &Config, fix: bool, report: &mut Report) {
    let target = match config.target() {
        Ok(target) => target,
        Err(error) => return report.wrong("ClickHouse", format!("{error:#}")),
    };
    if let Err(error) = target.ping().await {
        return report.wrong("ClickHouse", error);
    }
    report.good("ClickHouse", format!("answers at {}", target.url));
    // A ClickHouse of ours has its analyst from its configuration; of somebody else's it must be made.
    let password = &config.clickhouse.analyst_password;
    let statements = weir_sink::analyst_sql(&target.database, password);
    let shown = weir_sink::analyst_sql(&target.database, "…");
    if fix && !config.clickhouse.url.is_empty() {
        for (sql, shown) in statements.iter().zip(&shown) {
            if let Err(error) = target.client().query_raw(sql).execute().await {
                // A server may quote the statement, or its end.
                let mut error = error.to_string().replace(sql, shown);
                if !password.is_empty() {
                    error = error.replace(password.as_str(), "…");
                }
                report.wrong("analyst", format!("cannot be made: {error} ({shown})"));
            }
        }
    }
    let analyst = Target { user: ANALYST.to_owned(), password: password.clone(), ..target };
    match weir_sink::analyst_faults(&analyst).await {
        Ok(faults) if faults.is_empty() => report.good("analyst", "reads the public views, and nothing else"),
        Ok(faults) => report.wrong(
            "analyst",
            format!("{} (drop the user, and make it as docs/operating/clickhouse.md says)", faults.join(", ")),
        ),
        Err(error) => {
            report.wrong(
                "analyst",
                format!("{error} (set clickhouse.analyst_password; `weir doctor --fix` makes the user:)"),
            );
            shown.iter().for_each(|sql| println!("         {sql};"));
        }
    }
}
