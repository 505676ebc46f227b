//! The outage drill, as short as it can be: part of every test run.

mod support;

use support::Drilled;

#[test]
fn a_broker_and_a_clickhouse_that_are_away_for_ten_seconds_are_not_noticed_by_who_sends_hits() {
    let drilled = Drilled::of(&["outage", "--seconds", "10"]);
    assert_eq!(drilled.number("kills"), 2, "{}", drilled.report);
    drilled.all_hold(&["answered_at_once"]);
    assert!(drilled.number("spooled_batches") > 0, "{}", drilled.report);
    assert!(drilled.number("queries_while_away") > 0, "{}", drilled.report);
    assert!(drilled.status.success(), "{}: {}", drilled.status, drilled.report);
}
