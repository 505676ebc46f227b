//! The pause drill, as short as it can be: part of every test run.

mod support;

use support::Drilled;

#[test]
fn a_maintenance_of_half_a_minute_fails_no_request_and_leaves_the_table_of_an_undisturbed_run() {
    let drilled = Drilled::of(&["pause", "--minutes", "1"]);
    assert_eq!(drilled.number("kills"), 4, "{}", drilled.report);
    drilled.all_hold(&["stood_still", "gap_filled"]);
    // How soon exactly is promised of a machine that is not busy with other tests: `./dev drill pause` looks at that.
    let to_present = drilled.seconds("seconds_to_present");
    assert!(to_present < 30.0, "{}", drilled.report);
    // So short a gap may be filled before anything could be said of when: the longer drill must have said it.
    let told = !drilled.report["eta_error_seconds"].is_null();
    assert_eq!(drilled.status.success(), told && to_present <= drilled.seconds("seconds_promised"));
}
