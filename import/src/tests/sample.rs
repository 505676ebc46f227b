use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use expect_test::expect;
use weir_schemas::{Kind, rules::Rules};

use super::support::{Place, sample};
use crate::Class;

#[path = "../../../tests/support/awk.rs"]
mod awk;

#[test]
fn days_and_pages_are_those_that_awk_finds() {
    let place = Place::new();
    let rules = Rules::version(1).unwrap();
    let (days, pages) = awk::page_views(&sample());

    let summary = place.import(&[&sample().display().to_string()]).unwrap();
    let said: BTreeMap<String, u64> = summary.days.iter().map(|day| (day.day.clone(), day.page_views)).collect();
    assert_eq!(said, days);
    assert_eq!(summary.page_views, days.values().sum::<u64>());

    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let (mut views, mut downloads, mut of_bots) = (0, 0, 0);
    for event in place.events(&summary.id.unwrap()) {
        match (rules.agent(&event.user_agent).bot, event.kind) {
            (true, _) => of_bots += 1,
            (false, Kind::Download) => downloads += 1,
            (false, _) => {
                views += 1;
                *written.entry(event.page).or_default() += 1;
            }
        }
    }
    assert_eq!((views, downloads, of_bots), (summary.page_views, summary.downloads, summary.bots));
    // What browsers write in a path may be spelt in another way; here nothing among the pages is.
    let top = |pages: &BTreeMap<String, u64>| {
        let mut all: Vec<_> = pages.iter().map(|(page, count)| (*count, page.clone())).collect();
        all.sort_by(|a, b| b.cmp(a));
        all.truncate(100);
        all
    };
    assert_eq!(top(&written), top(&pages));
}

#[test]
fn every_line_of_the_sample_is_in_one_class() {
    let place = Place::new();
    let summary = place.import(&["--dry-run", &sample().display().to_string()]).unwrap();
    assert_eq!(summary.lines, 10_000);
    assert_eq!(summary.classes.values().sum::<u64>(), summary.lines);
    assert_eq!(summary.classes.len(), Class::ALL.len());
    expect![[r#"
        {
            PageViews: 1710,
            Downloads: 69,
            Bots: 2229,
            StaticFiles: 5572,
            Errors: 220,
            Redirects: 163,
            OtherMethods: 36,
            OtherStatuses: 0,
            Malformed: 1,
        }
    "#]]
    .assert_debug_eq(&summary.classes);
}

#[test]
fn nothing_of_an_address_reaches_the_log_and_a_visitor_is_one_for_a_day() {
    let place = Place::new();
    let summary = place.import(&[&sample().display().to_string()]).unwrap();
    let batches = place.batches(summary.id.as_deref().unwrap());
    let log = fs::read_to_string(sample()).unwrap();
    let addresses: BTreeSet<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    for address in addresses {
        let finder = memchr::memmem::Finder::new(address);
        assert!(batches.iter().flatten().all(|batch| finder.find(batch).is_none()), "{address}");
    }
    let events = place.events(&summary.id.unwrap());
    let mut of_day: BTreeMap<i64, BTreeSet<u64>> = BTreeMap::new();
    for event in &events {
        of_day.entry(event.time_ms.div_euclid(86_400_000)).or_default().insert(event.visitor);
    }
    let days: Vec<_> = of_day.values().collect();
    assert!(days.len() == 4 && days.iter().all(|day| day.len() > 100));
    assert!(days.windows(2).all(|pair| pair[0].is_disjoint(pair[1])), "nobody is followed over days");
}
