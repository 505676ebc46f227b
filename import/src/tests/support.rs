use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use flate2::{Compression, write::GzEncoder};
use futures::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use weir_log::{Clock, ControlLog, EmbeddedLog, Log};
use weir_schemas::{
    Kind,
    control::{Action, import_topic},
    rules::Rules,
    wire::{self, BatchView, Content, End},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Environment, ImportArgs, ImportCommand, ImportError, LiveDays, Summary,
    import::{Identity, import_until},
    stop::Stop,
};

/// 2026-03-01T12:00:00Z.
pub(super) const NOW_MS: i64 = 1_772_366_400_000;

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

/// Live traffic on these days.
pub(super) struct Days(pub(super) Vec<Date>);

impl LiveDays for Days {
    fn live_days<'a>(&'a self, _: &'a str, first: Date, last: Date) -> BoxFuture<'a, anyhow::Result<Vec<Date>>> {
        let within = self.0.iter().copied().filter(|day| (first..=last).contains(day)).collect();
        async move { Ok(within) }.boxed()
    }
}

/// A log and a directory for files.
pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) environment: Environment,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    command: ImportCommand,
}

pub(super) fn args(line: &[&str]) -> ImportArgs {
    let cli = Cli::try_parse_from([&["import"], line].concat()).unwrap();
    cli.command.files.unwrap()
}

/// An event as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) time_ms: i64,
    pub(super) kind: Kind,
    pub(super) visitor: u64,
    pub(super) site: String,
    pub(super) host: String,
    pub(super) page: String,
    pub(super) query: String,
    pub(super) referrer: String,
    pub(super) user_agent: String,
    pub(super) target: String,
    pub(super) country: String,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path().join("log"), Arc::new(Noon)).unwrap());
        let environment = Environment {
            log,
            clock: Arc::new(Noon),
            who: "ann@test".to_owned(),
            sites: Vec::new(),
            accept_any_site: true,
            mmdb: None,
            rules: Rules::version(1).unwrap(),
            live_days: Arc::new(Days(Vec::new())),
            patience: Duration::from_millis(300),
        };
        Self { dir, environment }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub(super) fn gz(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content.as_ref()).unwrap();
        self.file(name, encoder.finish().unwrap())
    }

    /// Imports into site `blog` of host `blog.example`, with what makes imports differ pinned.
    pub(super) fn import(&self, line: &[&str]) -> Result<Summary, ImportError> {
        self.import_with(line, &self.environment, &Stop::default())
    }

    pub(super) fn import_with(
        &self,
        line: &[&str],
        environment: &Environment,
        stop: &Stop,
    ) -> Result<Summary, ImportError> {
        let rejects = self.path("rejects").display().to_string();
        let temp = self.dir.path().display().to_string();
        let fixed = ["--site", "blog", "--host", "blog.example", "--rejects", &*rejects, "--temp-dir", &*temp];
        let identity = Identity { key: [7; 32], collector: [9; 16] };
        import_until(&args(&[&fixed, line].concat()), environment, &identity, stop)
    }

    pub(super) fn actions(&self) -> Vec<Action> {
        let control = ControlLog::open(self.environment.log.clone()).unwrap();
        control.read_all().unwrap().records.into_iter().map(|(_, record)| record.action).collect()
    }

    pub(super) fn import_topics(&self) -> Vec<String> {
        let all = self.environment.log.topics().unwrap();
        all.into_iter().filter(|topic| topic.starts_with("weir.import.")).collect()
    }

    /// The encoded batches of each partition, after a look at stamps, order and end records.
    pub(super) fn batches(&self, id: &str) -> Vec<Vec<Vec<u8>>> {
        batches(&*self.environment.log, id)
    }

    /// All events, by time, then as they were written.
    pub(super) fn events(&self, id: &str) -> Vec<Seen> {
        let mut all = Vec::new();
        for batch in self.batches(id).into_iter().flatten() {
            let record = wire::batch_record(0, &batch);
            let Content::Batch(view) = wire::decode(&record).unwrap().content else { panic!("no batch") };
            all.push((view.sequence, seen(&view)));
        }
        all.sort_by_key(|(sequence, _)| *sequence);
        all.into_iter().flat_map(|(_, events)| events).collect()
    }
}

fn batches(log: &dyn Log, id: &str) -> Vec<Vec<Vec<u8>>> {
    let topic = import_topic(id);
    let mut all = Vec::new();
    for partition in 0..log.partitions(&topic).unwrap() {
        let bounds = log.bounds(&topic, partition).unwrap();
        let mut reader = log.reader(&topic).unwrap();
        reader.assign(partition, bounds.start).unwrap();
        let (mut batches, mut read, mut said) = (Vec::new(), End { events: 0, last_ms: 0, digest: 0 }, None);
        let mut next = bounds.start;
        while next < bounds.end {
            reader
                .poll(100, Duration::from_secs(5), &mut |record| {
                    next = record.offset + 1;
                    assert!(said.is_none(), "nothing comes after the end");
                    let view = wire::decode(record.payload).unwrap();
                    assert_eq!(view.sent_ms, NOW_MS);
                    match view.content {
                        Content::Batch(batch) => {
                            assert!(batch.received_ms.is_sorted(), "sorted within a batch");
                            assert!(batch.received_ms[0] >= read.last_ms, "sorted over batches");
                            assert!(batch.claimed_ms.is_empty());
                            read.events += batch.events as u64;
                            read.last_ms = *batch.received_ms.last().unwrap();
                            read.digest = read.digest.wrapping_add(xxh3_64(batch.encoded));
                            assert_eq!(record.stamp_ms, read.last_ms, "stamped with its largest time");
                            batches.push(batch.encoded.to_vec());
                        }
                        Content::End(end) => said = Some(end),
                        Content::Tick => panic!("nobody ticks here"),
                    }
                })
                .unwrap();
        }
        assert_eq!(said, Some(read));
        assert!(read.events > 0, "no partition is empty");
        all.push(batches);
    }
    all
}

fn seen(batch: &BatchView) -> Vec<Seen> {
    let text = |column: &[u32], event: usize| column.get(event).map_or("", |at| batch.strings[*at as usize]).to_owned();
    (0..batch.events)
        .map(|event| Seen {
            time_ms: batch.received_ms[event],
            kind: Kind::from_wire(batch.kind.get(event).copied().unwrap_or(0)).unwrap(),
            visitor: batch.visitor.get(event).copied().unwrap_or(0),
            site: text(&batch.site, event),
            host: text(&batch.host, event),
            page: text(&batch.page, event),
            query: text(&batch.query, event),
            referrer: text(&batch.referrer, event),
            user_agent: text(&batch.user_agent, event),
            target: text(&batch.target, event),
            country: text(&batch.country, event),
        })
        .collect()
}

/// The project's sample: 10,000 lines of a real blog.
pub(super) fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blog-access.log")
}

/// A page view so many seconds after 2015-05-17T10:00:00Z.
pub(super) fn view(second: u32, page: &str) -> String {
    format!(
        "192.0.2.1 - - [17/May/2015:10:{:02}:{:02} +0000] \"GET {page} HTTP/1.1\" 200 1 \"-\" \"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\"\n",
        second / 60,
        second % 60
    )
}

/// A MaxMind database, written by hand as the format's specification says: 192.0.2.0/24 is in Germany.
pub(super) fn mmdb() -> Vec<u8> {
    let network = [192u8, 0, 2];
    let nodes = 24u32;
    let mut bytes = Vec::new();
    for bit in 0..nodes {
        let next = if bit + 1 == nodes { nodes + 16 } else { bit + 1 };
        let one = network[bit as usize / 8] >> (7 - bit % 8) & 1 == 1;
        for child in if one { [nodes, next] } else { [next, nodes] } {
            bytes.extend_from_slice(&child.to_be_bytes()[1..]);
        }
    }
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(b"\xe1\x4ccountry_code\x42DE");
    bytes.extend_from_slice(b"\xab\xcd\xefMaxMind.com\xe9");
    for (name, value) in [
        ("node_count", &[0xc1, 24][..]),
        ("record_size", &[0xa1, 24]),
        ("ip_version", &[0xa1, 4]),
        ("binary_format_major_version", &[0xa1, 2]),
        ("binary_format_minor_version", &[0xa0]),
        ("build_epoch", &[0x01, 0x02, 1]),
        ("database_type", b"\x41T"),
        ("description", &[0xe0]),
        ("languages", &[0x00, 0x04]),
    ] {
        bytes.push(0x40 | name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}
