//! Drawn histories hold; and each planted bug is found.

use weir_simulation::{Bug, Drawn, Failure, History, history_of, run};

/// As many as `./dev test` lives through.
const RUNS: u64 = 200;

/// What is in so many histories, however they are drawn.
const HAPPEN: [&str; 51] = [
    "INSERTs killed, and done",
    "INSERTs killed, not done",
    "acknowledgements lost",
    "answers lost",
    "batches done",
    "batches drained again",
    "batches looked up",
    "batches spooled",
    "chunks inserted",
    "collectors killed",
    "copies",
    "copies of the tables",
    "crashes of the server",
    "cuts by retention",
    "errors after all",
    "gaps filled",
    "kills",
    "late events",
    "live after all",
    "live first",
    "mutations killed",
    "old claims",
    "orders cut",
    "orders to ask again",
    "orders to give up",
    "partitions added under a process",
    "parts rewritten",
    "pauses",
    "processes refused",
    "ranges left",
    "ranges lost",
    "records cut",
    "records forgotten",
    "records that are not weir's",
    "refusals",
    "refusals without owners",
    "restored",
    "restores cut",
    "rows doubled by hand",
    "rows taken out by hand",
    "runs on disk",
    "second processes",
    "shutdowns",
    "stamps that leap",
    "statements late",
    "statements lost",
    "statements twice",
    "stops",
    "whole copies",
    "windows given up",
    "windows taken back",
];

/// A seed that nobody has chosen, printed so that the same histories can be had again.
fn seed() -> u64 {
    rand::random()
}

#[test]
fn drawn_histories_hold() {
    let seed = seed();
    println!("{}", Drawn::of(seed, RUNS, None));
    let summary = run(seed, RUNS, None, |_| false);
    assert!(summary.failures.is_empty(), "./dev simulate --runs {RUNS} --seed {seed}: {:?}", summary.failures);
    // Histories in which nothing happens would hold, too.
    assert!(summary.events > 20 * RUNS && summary.late > RUNS && summary.ticks > RUNS, "{summary:?}");
    assert!(summary.statements > 50 * RUNS && summary.processes > 2 * RUNS, "{summary:?}");
    for what in HAPPEN {
        assert!(summary.happened.contains_key(what), "seed {seed}: no history had {what}: {:?}", summary.happened);
    }
}

#[test]
fn a_history_is_the_same_each_time() {
    let seed = seed();
    for nth in 0..6 {
        let history = History::new(history_of(seed, nth), None);
        assert_eq!(history.live(), history.live(), "./dev simulate --history {}", history.number);
    }
}

/// A bug is found within as many histories as `./dev test` lives through, by a property that it breaks.
fn found(bug: Bug) {
    let seed = seed();
    println!("{}", Drawn::of(seed, RUNS, Some(bug)));
    let misfits = weir_pipeline_planted::MISFITS;
    assert!(
        !misfits.contains(&format!("{bug:?}").as_str()),
        "{bug:?} does not fit the pipeline's sources any more (mend tests/simulation/planted/build.rs)"
    );
    let breaks = |failure: &Failure| failure.breaks(bug.breaks());
    let summary = run(seed, RUNS, Some(bug), breaks);
    let Some(found) = summary.failures.iter().find(|failure| breaks(failure)) else {
        let others: Vec<&str> = summary.failures.iter().map(|failure| failure.wrong.as_str()).collect();
        panic!(
            "{bug:?} breaks {:?}; none of them failed in {RUNS} histories of seed {seed}, {} others did: {others:?}",
            bug.breaks(),
            others.len()
        );
    };
    println!("found after {} histories: {}", summary.passed + summary.failures.len() as u64, found.wrong);
}

#[test]
fn answers_that_are_believed_without_asking_are_found() {
    found(Bug::BelievedAnswers);
}

#[test]
fn a_batch_that_is_done_before_it_is_inserted_is_found() {
    found(Bug::DoneBeforeInsert);
}

#[test]
fn statements_without_their_owner_are_found() {
    found(Bug::WithoutOwner);
}

#[test]
fn an_owner_that_is_raised_only_at_the_start_is_found() {
    found(Bug::RaisedOnce);
}

#[test]
fn statements_that_are_left_running_are_found() {
    found(Bug::NothingEnded);
}

#[test]
fn what_is_left_without_its_owner_is_found() {
    found(Bug::LeftWithoutOwner);
}

#[test]
fn a_spool_that_does_not_look_up_what_is_in_doubt_is_found() {
    found(Bug::NothingLookedUp);
}

#[test]
fn what_is_taken_back_without_raising_first_is_found() {
    found(Bug::TakenBackUnraised);
}

#[test]
fn what_is_taken_back_without_an_owner_is_found() {
    found(Bug::TakenBackUnfenced);
}

#[test]
fn what_is_taken_back_while_something_runs_is_found() {
    found(Bug::TakenBackNotEnded);
}

#[test]
fn rows_that_are_given_up_before_their_record_are_found() {
    found(Bug::GivenUpRowsFirst);
}

#[test]
fn a_rest_that_is_recorded_anew_without_a_comparison_is_found() {
    found(Bug::RestBelieved);
}

#[test]
fn a_copy_that_takes_the_rows_first_is_found() {
    found(Bug::RowsFirst);
}

#[test]
fn a_restore_that_leaves_everything_open_is_found() {
    found(Bug::RestoreOpen);
}

#[test]
fn lateness_by_the_merged_watermark_is_found() {
    found(Bug::MergedWatermark);
}

#[test]
fn a_dropped_tick_is_found() {
    found(Bug::DroppedTick);
}

#[test]
fn arrival_time_without_its_running_maximum_is_found() {
    found(Bug::NoRunningMaximum);
}

#[test]
fn a_horizon_of_zero_is_found() {
    found(Bug::HorizonOfZero);
}

#[test]
fn a_copy_that_must_itself_have_counted_is_found() {
    found(Bug::CopyMustCount);
}

#[test]
fn a_new_partition_that_a_run_does_not_wait_for_is_found() {
    found(Bug::NewPartition);
}

#[test]
fn rows_that_depend_on_where_a_batch_is_cut_are_found() {
    found(Bug::RowsByBatch);
}

#[test]
fn rows_that_are_ordered_by_interned_number_are_found() {
    found(Bug::OrderedByInterned);
}
