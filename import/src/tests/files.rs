//! Which part of which file is imported.

use std::fs;

use super::support::{Place, sample, view};
use crate::{ImportError, State};

fn pages(place: &Place, id: &Option<String>) -> Vec<String> {
    place.events(id.as_deref().unwrap()).into_iter().map(|event| event.page).collect()
}

#[test]
fn the_same_file_is_refused_unless_asked_for() {
    let place = Place::new();
    let file = place.file("a.log", view(1, "/a"));
    let first = place.import(&[&file]).unwrap();
    let error = place.import(&[&file]).unwrap_err();
    assert!(matches!(&error, ImportError::Again { ids, .. } if *ids == first.id.clone().unwrap()), "{error}");
    // Under another name, and packed, it is the same content.
    let packed = place.gz("b.gz", view(1, "/a"));
    assert!(matches!(place.import(&[&packed]), Err(ImportError::Again { .. })));
    let again = place.import(&["--again", &file]).unwrap();
    assert_ne!(again.id, first.id);
    assert_eq!(pages(&place, &again.id), ["/a"]);
    assert!(matches!(place.import(&[&file]), Err(ImportError::Again { .. })));
}

#[test]
fn a_file_that_has_grown_goes_on_where_the_last_import_ended() {
    let place = Place::new();
    let mut content = view(5, "/a");
    place.import(&[&place.file("a.log", &content)]).unwrap();
    content += &view(3, "/b");
    let second = place.import(&[&place.file("a.log", &content)]).unwrap();
    assert_eq!((second.lines, pages(&place, &second.id)), (1, vec!["/b".to_owned()]));
    content += &view(9, "/c");
    content += "nonsense\n";
    // Rotated and packed meanwhile.
    let third = place.import(&[&place.gz("a.log.1.gz", &content)]).unwrap();
    assert_eq!((third.lines, pages(&place, &third.id)), (2, vec!["/c".to_owned()]));
    let rejects = fs::read_to_string(third.rejects.unwrap()).unwrap();
    assert!(rejects.contains("a.log.1.gz\t4\tno time in brackets\tnonsense\n"), "numbers are the file's: {rejects}");
    assert!(matches!(place.import(&[&place.file("a.log", &content)]), Err(ImportError::Again { .. })));
}

#[test]
fn a_file_of_other_content_is_a_new_one() {
    let place = Place::new();
    place.import(&[&place.file("a.log", view(1, "/a") + &view(2, "/b"))]).unwrap();
    let rotated = place.import(&[&place.file("a.log", view(3, "/c"))]).unwrap();
    assert_eq!(pages(&place, &rotated.id), ["/c"]);
    let longer = place.import(&[&place.file("a.log", view(1, "/x") + &view(2, "/b") + &view(3, "/c"))]).unwrap();
    assert_eq!(longer.lines, 3);
}

#[test]
fn a_line_without_an_end_is_left_until_it_has_one() {
    let place = Place::new();
    let (first, second) = (view(1, "/a"), view(2, "/b"));
    let content = format!("{first}{}", second.trim_end());
    let begun = place.import(&[&place.file("a.log", &content)]).unwrap();
    assert_eq!((begun.lines, begun.bytes_left), (1, second.len() as u64 - 1));
    let ended = place.import(&[&place.file("a.log", format!("{first}{second}"))]).unwrap();
    assert_eq!(pages(&place, &ended.id), ["/b"]);

    let place = Place::new();
    let whole = place.import(&["--finished", &place.file("a.log", &content)]).unwrap();
    assert_eq!((pages(&place, &whole.id), whole.bytes_left), (vec!["/a".to_owned(), "/b".to_owned()], 0));
    assert!(matches!(place.import(&[&place.file("a.log", &content)]), Err(ImportError::Again { .. })));
}

#[test]
fn another_sites_imports_do_not_matter() {
    let place = Place::new();
    let file = place.file("a.log", view(1, "/a"));
    place.import(&[&file]).unwrap();
    let other = crate::import::Identity { key: [1; 32], collector: [1; 16] };
    let args = super::support::args(&["--site", "other.example", &file]);
    let summary = crate::import::import_until(&args, &place.environment, &other, &Default::default()).unwrap();
    let event = place.events(&summary.id.unwrap()).remove(0);
    assert_eq!((&*event.site, &*event.host), ("other.example", "other.example"));
}

#[test]
fn what_was_taken_back_is_imported_again_and_a_gap_is_refused() {
    let place = Place::new();
    let undone = |id: &str| {
        let history = crate::control::History::open(&place.environment, false).unwrap();
        history.take_back(id, "").unwrap();
    };
    let (short, long) = (view(1, "/a"), view(1, "/a") + &view(2, "/b"));
    let first = place.import(&[&place.file("a.log", &short)]).unwrap().id.unwrap();
    let second = place.import(&[&place.file("a.log", &long)]).unwrap().id.unwrap();
    undone(&first);
    let error = place.import(&[&place.file("a.log", &long)]).unwrap_err();
    assert!(matches!(&error, ImportError::Gap { id, .. } if *id == second), "{error}");
    undone(&second);
    let whole = place.import(&[&place.file("a.log", &long)]).unwrap();
    assert_eq!(pages(&place, &whole.id), ["/a", "/b"]);
    let states: Vec<State> = crate::list(&place.environment).unwrap().iter().map(|past| past.state).collect();
    assert_eq!(states, [State::Undone, State::Undone, State::Written]);
}

#[test]
fn several_files_are_one_import_in_the_order_of_time_and_none_counts_twice() {
    let place = Place::new();
    let new = place.file("a.log", view(30, "/new"));
    let old = place.gz("a.log.1.gz", view(10, "/old"));
    let same = place.file("same.log", view(30, "/new"));
    let summary = place.import(&[&new, &old, &same]).unwrap();
    assert_eq!(pages(&place, &summary.id), ["/old", "/new"]);
    assert!(summary.notes.iter().any(|note| note.contains("same.log has nothing new")), "{:?}", summary.notes);
    let past = crate::list(&place.environment).unwrap().remove(0);
    assert_eq!(past.import.files.len(), 2);
}

#[test]
fn packed_and_plain_give_the_same_batches() {
    let (plain, packed) = (Place::new(), Place::new());
    let content = fs::read(sample()).unwrap();
    let a = plain.import(&[&sample().display().to_string()]).unwrap();
    let b = packed.import(&[&packed.gz("x", content)]).unwrap();
    assert_eq!(a.classes, b.classes);
    assert_eq!(plain.batches(&a.id.unwrap()), packed.batches(&b.id.unwrap()));
}

#[test]
fn little_memory_gives_the_same_batches_as_much() {
    let mut content = String::new();
    let mut random = 1u64;
    for line in 0..300_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content += &view((random >> 33) as u32 % 3_600, &format!("/{}", line % 977));
    }
    let (little, much) = (Place::new(), Place::new());
    let a = little.import(&["--memory-mb", "1", &little.file("a.log", &content)]).unwrap();
    let b = much.import(&["--memory-mb", "2048", &much.file("a.log", &content)]).unwrap();
    assert_eq!(a.events, 300_000);
    let batches = little.batches(&a.id.unwrap());
    assert_eq!(batches.len(), 2, "it is large enough for a second partition");
    assert!(batches == much.batches(&b.id.unwrap()));
}

#[test]
fn a_packed_file_that_is_cut_leaves_nothing() {
    let place = Place::new();
    let whole = place.gz("whole.gz", view(1, "/a").repeat(1_000));
    let bytes = fs::read(whole).unwrap();
    let cut = place.file("cut.gz", &bytes[..bytes.len() - 20]);
    let error = place.import(&[&cut]).unwrap_err();
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    assert!(place.actions().is_empty() && place.import_topics().is_empty());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::new();
    let error = place.import(&["/nowhere/a.log"]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/a.log: "), "{error}");
    let error = place.import(&["-", "/nowhere/a.log"]).unwrap_err();
    assert!(matches!(error, ImportError::StdinNotAlone), "{error}");
}
