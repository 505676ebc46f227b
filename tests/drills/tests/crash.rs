//! The crash drill, as short as it can be: part of every test run.

mod support;

use support::Drilled;

#[test]
fn a_minute_of_kills_loses_no_event_and_counts_none_twice() {
    let drilled = Drilled::of(&["crash", "--minutes", "1"]);
    assert!(drilled.number("kills") >= 6, "{}", drilled.report);
    assert!(drilled.status.success(), "{}: {}", drilled.status, drilled.report);
}
