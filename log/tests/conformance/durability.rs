//! A writer is killed in the middle of its appends: what it was told is there, is there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, executor::block_on, future::join_all, stream::FuturesOrdered};
use weir_log::{EmbeddedLog, KafkaLog, Log, SystemClock, TopicKind};

use crate::fixture::{Fixture, append, fresh, read, read_from};

/// Set for a child process: the log's address, a space, and the topic.
const CHILD: &str = "WEIR_TEST_APPEND_UNTIL_KILLED";
/// Appends that the child has under way at once.
const UNDER_WAY: usize = 64;

pub(crate) fn sigkill(fixture: &dyn Fixture) {
    let log = fixture.log();
    let topic = fresh("events");
    log.create_topic(&topic, &TopicKind::Events { partitions: 1, retention: Duration::from_secs(3600) }).unwrap();
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut tail = log.reader(&topic).unwrap();
        tail.assign(0, log.bounds(&topic, 0).unwrap().end).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["durability::appends_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, format!("{} {topic}", fixture.address()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = Vec::new();
        // Kill it after some hundred answers, with appends under way; what it still said counts too.
        for line in lines {
            if let Some(answer) = line.unwrap().strip_prefix("acknowledged ") {
                let (number, offset) = answer.split_once(' ').unwrap();
                answered.push((number.parse::<u64>().unwrap(), offset.parse::<i64>().unwrap()));
            }
            if answered.len() == 300 {
                // Another process's appends are seen while it lives.
                assert_eq!(read(&mut *tail, 300)[299].payload, payload(answered[299].0));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(answered.len() >= 300, "the writer stopped by itself after {} answers", answered.len());

        let end = append(&*log, &topic, 0, "mark").offset;
        let records = read_from(&*log, &topic, 0, 0, end as usize + 1);
        for (offset, record) in records.iter().enumerate() {
            assert_eq!(record.offset, offset as i64, "the records are not contiguous");
        }
        for (number, offset) in &answered {
            assert_eq!(records[*offset as usize].payload, payload(*number), "acknowledged, and not there");
        }
        acknowledged += answered.len();
    }
    assert!(acknowledged >= 900);
}

/// A process that is killed while it is given a record has pages pinned; whoever opens the log next frees them.
#[test]
fn a_killed_reader_does_not_make_the_file_grow_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let kind = TopicKind::Events { partitions: 1, retention: Duration::from_secs(3600) };
    {
        let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
        log.create_topic("events", &kind).unwrap();
        append(&log, "events", 0, "held");
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["durability::is_given_a_record_and_keeps_it_until_it_is_killed", "--exact", "--nocapture"])
        .env(CHILD, format!("embedded {} events", dir.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("given")), "the reader was given nothing");
    child.kill().unwrap();
    child.wait().unwrap();

    let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
    for _ in 0..20 {
        let appends = (0..100).map(|_| log.append("events", 0, vec![7; 50_000].into(), None));
        for appended in block_on(join_all(appends)) {
            appended.unwrap();
        }
        log.trim("events", 0, i64::MAX).unwrap();
    }
    // 5 MB a round, 100 MB in all.
    let file = std::fs::metadata(dir.path().join("data.mdb")).unwrap().len();
    assert!(file < 40 << 20, "what was deleted is not used again: {file} bytes");
}

/// What that child runs.
#[test]
fn is_given_a_record_and_keeps_it_until_it_is_killed() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let words: Vec<_> = child.split(' ').collect();
    let [_, address, topic] = words[..] else { panic!("{child}") };
    let log = EmbeddedLog::open(address, Arc::new(SystemClock)).unwrap();
    let mut reader = log.reader(topic).unwrap();
    reader.assign(0, 0).unwrap();
    reader
        .poll(1, Duration::from_secs(60), &mut |_| {
            println!("given");
            std::thread::park();
        })
        .unwrap();
}

fn payload(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(500)
}

/// Not a test of its own: what the child process runs. Without the variable there is nothing to do.
#[test]
fn appends_until_it_is_killed() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let words: Vec<_> = child.split(' ').collect();
    let [kind, address, topic] = words[..] else { panic!("{child}") };
    let log: Arc<dyn Log> = match kind {
        "embedded" => Arc::new(EmbeddedLog::open(address, Arc::new(SystemClock)).unwrap()),
        _ => Arc::new(KafkaLog::connect(address, &BTreeMap::new()).unwrap()),
    };
    block_on(async {
        let mut under_way = FuturesOrdered::new();
        let mut answered = 0;
        for number in 0_u64.. {
            under_way.push_back(log.append(topic, 0, payload(number).into(), None));
            if under_way.len() >= UNDER_WAY {
                let appended = under_way.next().await.unwrap().unwrap();
                println!("acknowledged {answered} {}", appended.offset);
                std::io::stdout().flush().unwrap();
                answered += 1;
            }
        }
    });
}
