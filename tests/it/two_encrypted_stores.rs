//! Tests of what goes wrong with a backup, once more with each set in two encrypted stores: the most telling ones. `make stores` runs all of them so.

use crate::support::stores::on_two_encrypted_stores;

/// Each is the test of that name in that module.
macro_rules! once_more {
    ($($module:ident::$test:ident,)*) => { $(
        #[test]
        fn $test() {
            on_two_encrypted_stores(crate::$module::$test);
        }
    )* };
}

once_more! {
    backup_faults::a_pg_dump_that_dies_midway_makes_no_set,
    backup_faults::a_pg_dump_that_is_cut_short_and_claims_success_makes_no_set,
    backup_faults::a_server_that_stops_midway_exits_with_69_and_makes_no_set,
    backup_faults::pgtend_killed_midway_leaves_no_set_and_the_next_run_cleans_up,
    backup_faults::pgtend_killed_midway_leaves_an_upload_that_the_next_run_aborts,
    backup_faults::a_signal_stops_a_run_cleanly_with_143,
    backup_sets::a_set_with_a_flipped_byte_is_found_out_and_never_restored,
    backup_sets::a_dump_cut_at_a_member_boundary_is_not_restored,
    backup_sets::a_set_without_its_manifest_is_no_set,
    backup_sets::prune_keeps_the_configured_number_of_verified_sets_and_stays_in_its_prefix,
    backup_series::a_dump_that_lost_a_table_holds_the_set_before_it,
    backup_series::a_deletion_that_was_killed_left_a_set_or_what_the_next_run_sweeps,
    backup_series::a_clock_that_was_ahead_costs_no_set_and_is_said_everywhere,
    restore_stream::a_damaged_last_member_leaves_no_large_object_behind,
}
