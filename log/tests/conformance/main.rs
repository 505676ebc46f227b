//! One suite that every log passes: the embedded one, and Kafka on a real broker.
//!
//! Kafka's half needs `tools/kafka-broker`; where no broker can be started it says so loudly, and with
//! `WEIR_TEST_KAFKA=required` it fails.

mod cases;
mod durability;
mod embedded;
mod fixture;
mod kafka;

/// One test a case on the embedded log, and one for all of them on one Kafka broker.
macro_rules! suite {
    ($($case:path => $name:ident,)*) => {
        mod on_the_embedded_log {
            $(#[test] fn $name() { crate::embedded::with(|fixture| $case(fixture)) })*
        }

        #[test]
        fn the_same_holds_on_a_kafka_broker() {
            crate::kafka::run(&[$((stringify!($name), |fixture| $case(fixture)),)*]);
        }
    };
}

suite! {
    crate::cases::read_back => what_is_appended_is_read_back_in_order_with_its_stamps,
    crate::cases::order_of_calls => appends_of_one_handle_land_in_the_order_of_the_calls,
    crate::cases::many_writers => records_of_many_writers_are_contiguous_and_each_writers_in_order,
    crate::cases::offset_at => offset_at_is_the_first_record_stamped_at_or_after_however_the_clock_steps_back,
    crate::cases::bounds => bounds_are_those_of_the_records_and_an_empty_partition_has_none,
    crate::cases::below_start => reading_below_the_start_says_so,
    crate::cases::progress => progress_comes_back_to_another_handle_with_its_metadata,
    crate::cases::kept_for_ever => control_records_and_an_import_of_2015_outlive_the_retention_check,
    crate::cases::wrong_topic => a_wrongly_configured_topic_is_refused_with_the_setting,
    crate::cases::retention => retention_is_known,
    crate::cases::made_again => a_topic_that_is_made_again_has_another_id,
    crate::cases::deleted => a_deleted_topic_is_gone_and_a_new_one_of_its_name_is_empty,
    crate::cases::grow => a_topic_grows_and_keeps_its_records,
    crate::cases::hold => a_held_partition_gives_nothing_and_loses_nothing,
    crate::cases::tail => a_reader_begun_at_the_end_sees_what_comes_from_another_handle,
    crate::cases::wake => an_append_wakes_a_reader,
    crate::cases::too_large => a_record_that_is_too_large_is_refused_and_the_next_one_is_not,
    crate::cases::unknown => what_does_not_exist_is_refused,
    crate::cases::control => the_control_log_folds_follows_and_sets_aside_what_it_cannot_read,
    crate::cases::partitions_in_use => processes_that_start_at_once_agree_on_the_partitions_in_use,
    crate::cases::partitions_in_use_are_there => partitions_in_use_are_there_whoever_made_the_topic,
    crate::durability::sigkill => a_killed_writer_loses_nothing_that_was_acknowledged,
}
