//! An import is counted as a whole or not at all.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::FutureExt;
use weir_log::{Log, LogError, TopicKind};
use weir_schemas::control::{Action, CONTROL_TOPIC, Import, import_topic};

use super::{
    hooked::{Hook, Hooked},
    support::{Days, Place, args, sample, view},
};
use crate::{Environment, ImportError, State, control::History, list, stop::Stop, undo};

fn hooked(place: &Place, hook: Hook) -> Environment {
    let log: Arc<dyn Log> = Arc::new(Hooked { inner: place.environment.log.clone(), hook });
    Environment { log, ..place.environment.clone() }
}

/// Begins an import as a process does that then dies.
fn leave_unfinished(place: &Place, id: &str) {
    let history = History::open(&place.environment, false).unwrap();
    let import = Import { id: id.into(), site: "blog".into(), files: Vec::new() };
    history.say("", Action::ImportBegun { import }).unwrap();
    place.environment.log.create_topic(&import_topic(id), &TopicKind::Import { partitions: 1 }).unwrap();
}

fn states(place: &Place) -> Vec<State> {
    list(&place.environment).unwrap().iter().map(|past| past.state).collect()
}

fn append(place: &Place, topic: &str) {
    let payload = bytes::Bytes::from_static(b"x");
    futures::executor::block_on(place.environment.log.append(topic, 0, payload, Some(1))).unwrap();
}

#[test]
fn the_control_log_says_what_is_written_before_and_after() {
    let place = Place::new();
    let file = sample().display().to_string();
    let summary = place.import(&[&file]).unwrap();
    let [Action::ImportBegun { import }, Action::ImportWritten { id, events, partitions, first_ms, last_ms }] =
        &place.actions()[..]
    else {
        panic!("{:?}", place.actions())
    };
    assert_eq!((Some(&import.id), Some(id)), (summary.id.as_ref(), summary.id.as_ref()));
    assert_eq!((*events, *partitions), (summary.events, 1));
    let written = place.events(id);
    assert_eq!((written[0].time_ms, written.last().unwrap().time_ms), (*first_ms, *last_ms));
    let content = std::fs::read(sample()).unwrap();
    let [part] = &import.files[..] else { panic!("one file") };
    assert_eq!((&*part.name, part.began_at, part.bytes), (&*file, 0, content.len() as u64));
    assert_eq!(part.blake3, blake3::hash(&content).to_hex().to_string());
}

#[test]
fn a_failed_import_is_taken_back_and_can_be_begun_anew() {
    let place = Place::new();
    let appends = AtomicU32::new(0);
    let environment = hooked(
        &place,
        Box::new(move |topic, _| {
            let fails = topic != CONTROL_TOPIC && appends.fetch_add(1, Ordering::SeqCst) == 1;
            let topic = topic.to_owned();
            fails.then(|| {
                let unclear = LogError::Unclear { topic, partition: 0, cause: "drawn".into() };
                async { Err(unclear) }.boxed()
            })
        }),
    );
    let file = sample().display().to_string();
    let error = place.import_with(&[&file], &environment, &Stop::default()).unwrap_err();
    assert!(matches!(&error, ImportError::Failed { .. }), "{error}");
    assert_eq!(states(&place), [State::Undone]);
    assert!(place.import_topics().is_empty());
    assert!(place.import(&[&file]).unwrap().events > 0);
}

#[test]
fn an_unfinished_import_of_the_site_is_taken_back_first() {
    let place = Place::new();
    leave_unfinished(&place, "dead");
    let summary = place.import(&[&place.file("a.log", view(1, "/a"))]).unwrap();
    assert!(summary.notes.iter().any(|note| note.contains("import dead") && note.contains("was taken back")));
    assert_eq!(states(&place), [State::Undone, State::Written]);
    assert_eq!(place.import_topics(), [import_topic(&summary.id.unwrap())]);
}

#[test]
fn an_import_waits_for_one_that_is_being_written_and_sees_what_it_wrote() {
    let place = Arc::new(Place::new());
    let file = place.file("a.log", view(1, "/a"));
    let content = view(1, "/a");
    let history = History::open(&place.environment, false).unwrap();
    let part = weir_schemas::control::ImportedFile {
        name: "a".into(),
        began_at: 0,
        bytes: content.len() as u64,
        blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
    };
    let import = Import { id: "slow".into(), site: "blog".into(), files: vec![part] };
    history.say("", Action::ImportBegun { import }).unwrap();
    place.environment.log.create_topic(&import_topic("slow"), &TopicKind::Import { partitions: 1 }).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let second = thread::spawn({
        let (place, done) = (place.clone(), done.clone());
        move || {
            let imported = place.import(&[&file]);
            done.store(true, Ordering::SeqCst);
            imported
        }
    });
    // Three times its patience, and a sign of life more often than that.
    let begun = Instant::now();
    while begun.elapsed() < place.environment.patience * 3 {
        append(&place, &import_topic("slow"));
        thread::sleep(Duration::from_millis(20));
        assert!(!done.load(Ordering::SeqCst), "it waits");
    }
    let written = Action::ImportWritten { id: "slow".into(), events: 1, partitions: 1, first_ms: 1, last_ms: 1 };
    history.say("", written).unwrap();
    let error = second.join().unwrap().unwrap_err();
    assert!(matches!(&error, ImportError::Again { ids, .. } if ids == "slow"), "{error}");
    assert_eq!(states(&place), [State::Written]);
}

#[test]
fn of_two_that_begin_at_once_the_second_is_refused() {
    let place = Arc::new(Place::new());
    let once = AtomicBool::new(false);
    let other = place.clone();
    // The other one begins between our look and our own beginning.
    let environment = hooked(
        &place,
        Box::new(move |topic, _| {
            if topic == CONTROL_TOPIC && !once.swap(true, Ordering::SeqCst) {
                leave_unfinished(&other, "first");
            }
            None
        }),
    );
    let file = place.file("a.log", view(1, "/a"));
    let error = place.import_with(&[&file], &environment, &Stop::default()).unwrap_err();
    assert!(matches!(&error, ImportError::Busy { id, .. } if id == "first"), "{error}");
    assert_eq!(states(&place), [State::Unfinished, State::Undone]);
    assert_eq!(place.import_topics(), [import_topic("first")]);
}

#[test]
fn what_another_import_wrote_meanwhile_is_not_written_twice() {
    let place = Arc::new(Place::new());
    let file = place.file("a.log", view(1, "/a"));
    let once = AtomicBool::new(false);
    let (other, same) = (place.clone(), file.clone());
    let environment = hooked(
        &place,
        Box::new(move |topic, _| {
            if topic == CONTROL_TOPIC && !once.swap(true, Ordering::SeqCst) {
                other.import(&[&same]).unwrap();
            }
            None
        }),
    );
    let error = place.import_with(&[&file], &environment, &Stop::default()).unwrap_err();
    assert!(matches!(&error, ImportError::Overtaken { .. }), "{error}");
    assert_eq!(states(&place), [State::Written, State::Undone]);
}

#[test]
fn what_was_taken_back_while_it_was_written_says_so() {
    let place = Arc::new(Place::new());
    let other = place.clone();
    let environment = hooked(
        &place,
        Box::new(move |topic, payload| {
            // Taken for dead just before its last word.
            if topic == CONTROL_TOPIC && memchr::memmem::find(payload, b"import_written").is_some() {
                let history = History::open(&other.environment, false).unwrap();
                history.take_back(&list(&other.environment).unwrap()[0].import.id, "").unwrap();
            }
            None
        }),
    );
    let file = place.file("a.log", view(1, "/a"));
    let error = place.import_with(&[&file], &environment, &Stop::default()).unwrap_err();
    assert!(matches!(error, ImportError::TakenBack(_)), "{error}");
    assert_eq!(states(&place), [State::Undone]);
    assert!(place.import(&[&file]).unwrap().id.is_some());
}

#[test]
fn who_stops_it_while_it_writes_leaves_nothing() {
    let place = Place::new();
    let stop = Arc::new(Stop::default());
    let stopping = stop.clone();
    let environment = hooked(
        &place,
        Box::new(move |topic, _| {
            if topic != CONTROL_TOPIC {
                assert!(!stopping.stop(), "something was begun");
            }
            None
        }),
    );
    let content = (0..30_000).map(|line| view(line % 3_600, "/a")).collect::<String>();
    let error = place.import_with(&[&place.file("a.log", content)], &environment, &stop).unwrap_err();
    assert!(matches!(&error, ImportError::Failed { cause, .. } if matches!(**cause, ImportError::Stopped)), "{error}");
    assert_eq!(states(&place), [State::Undone]);
    assert!(place.import_topics().is_empty());
}

#[test]
fn who_stops_it_before_it_writes_leaves_no_word() {
    let place = Place::new();
    let stop = Stop::default();
    assert!(stop.stop());
    let file = place.file("a.log", view(1, "/a"));
    let error = place.import_with(&[&file], &place.environment, &stop).unwrap_err();
    assert!(matches!(error, ImportError::Interrupted), "{error}");
    assert!(place.actions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_writes_nothing_and_warns_of_live_traffic() {
    let mut place = Place::new();
    place.environment.live_days = Arc::new(Days(vec!["2015-05-18".parse().unwrap(), "2015-05-30".parse().unwrap()]));
    let file = sample().display().to_string();
    let rejects = place.path("rejects").display().to_string();
    // From an earlier time, for everybody to read.
    std::fs::write(&rejects, "old").unwrap();
    std::fs::set_permissions(&rejects, std::fs::Permissions::from_mode(0o644)).unwrap();
    let args = args(&["--site", "blog", "--rejects", &rejects, "--dry-run", &file]);
    let summary = crate::import(args, place.environment.clone()).await.unwrap();
    assert_eq!((summary.id.as_ref(), summary.dry_run), (None, true));
    assert!(summary.events > 1_000);
    let warned = "live traffic on 1 of these days, 2015-05-18 to 2015-05-18";
    assert!(summary.notes.iter().any(|note| note.contains(warned)), "{:?}", summary.notes);
    assert!(place.environment.log.topics().unwrap().is_empty());
    assert_eq!(
        std::fs::read_to_string(Path::new(&rejects)).unwrap().lines().count(),
        1,
        "but says what it cannot read"
    );
    let mode = std::fs::metadata(&rejects).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "to its owner");
    assert!(summary.to_text().contains("nothing was written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_taken_back_by_the_pipeline_when_asked() {
    let place = Arc::new(Place::new());
    let id = place.import(&[&place.file("a.log", view(1, "/a"))]).unwrap().id.unwrap();
    let error = undo(&id, Duration::ZERO, &place.environment).await.unwrap_err();
    assert!(matches!(error, ImportError::UndoPending { .. }), "{error}");
    assert_eq!(states(&place), [State::Undoing]);
    let pipeline = thread::spawn({
        let (place, id) = (place.clone(), id.clone());
        move || {
            let history = History::open(&place.environment, false).unwrap();
            history.say("", Action::ImportUndone { id }).unwrap();
        }
    });
    let undone = undo(&id, Duration::from_secs(60), &place.environment).await.unwrap();
    pipeline.join().unwrap();
    assert_eq!(undone.state, State::Undone);
    let asked = place.actions().iter().filter(|action| matches!(action, Action::ImportUndo { .. })).count();
    assert_eq!(asked, 1, "to ask again changes nothing");
    assert!(undo(&id, Duration::ZERO, &place.environment).await.is_ok());
    assert!(matches!(undo("none", Duration::ZERO, &place.environment).await, Err(ImportError::UnknownImport(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_import_is_taken_back_at_once() {
    let place = Place::new();
    leave_unfinished(&place, "dead");
    undo("dead", Duration::ZERO, &place.environment).await.unwrap();
    assert_eq!(states(&place), [State::Undone]);
    assert!(place.import_topics().is_empty());
}

#[test]
fn a_summary_says_it_all_in_a_table() {
    let place = Place::new();
    let mut summary = place.import(&["--dry-run", &place.file("a.log", view(1, "/") + "x\n")]).unwrap();
    summary.seconds = 0.5;
    summary.rejects = Some("a.rejects".into());
    expect_test::expect![[r#"
        +-------+------------+-------------------------------------------+
        | lines | what       | why                                       |
        +================================================================+
        |     1 | page views | counted: GET, 2xx or 304, no file, no bot |
        |-------+------------+-------------------------------------------|
        |     1 | malformed  | not counted: see the rejects file         |
        |-------+------------+-------------------------------------------|
        |     2 | together   |                                           |
        +-------+------------+-------------------------------------------+
        dry run for site blog: 1 events from 2015-05-17T10:00:01Z to 2015-05-17T10:00:01Z would be imported, nothing was written (0.5 s, 4 lines/s)
        malformed lines, each with its number and reason: a.rejects"#]].assert_eq(&summary.to_text());
    let json: serde_json::Value = serde_json::to_value(&summary).unwrap();
    assert_eq!((&json["page_views"], &json["classes"]["malformed"]), (&1.into(), &1.into()));
}
