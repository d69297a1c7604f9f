//! What `make test` does with less, and `make campaigns` with all: versions between the oldest and the newest, an audit after each fix on the oldest one,
//! statistics at full size. One at a time: some measure time.

use crate::alone::vector_index_tuning;
use crate::audit::{AtOnce, every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other};
use crate::audit_drift::every_changed_fact_is_reported_and_ended_by_its_fix;
use crate::audit_peers::every_planted_fault_is_found_and_ended_by_its_fix;
use crate::vector_index_stays::{self, ASKED};

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_one_by_one_on_14() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(14, AtOnce::One);
}

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_on_15() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(15, AtOnce::OneOfEachCheck);
}

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_on_17() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(17, AtOnce::OneOfEachCheck);
}

#[test]
fn every_changed_fact_is_reported_and_ended_by_its_fix_on_16() {
    every_changed_fact_is_reported_and_ended_by_its_fix(16);
}

#[test]
fn every_changed_fact_is_reported_and_ended_by_its_fix_on_17() {
    every_changed_fact_is_reported_and_ended_by_its_fix(17);
}

#[test]
fn every_planted_fault_is_found_and_ended_by_its_fix_on_15() {
    every_planted_fault_is_found_and_ended_by_its_fix(15);
}

#[test]
fn every_planted_fault_is_found_and_ended_by_its_fix_on_16() {
    every_planted_fault_is_found_and_ended_by_its_fix(16);
}

#[test]
fn every_planted_fault_is_found_and_ended_by_its_fix_on_17() {
    every_planted_fault_is_found_and_ended_by_its_fix(17);
}

#[test]
fn nothing_slower_and_less_complete_is_swapped_in() {
    vector_index_stays::nothing_slower_and_less_complete_is_swapped_in([&ASKED, &ASKED, &ASKED]);
}

#[test]
fn recall_is_what_a_brute_force_outside_says_and_the_target_is_reached_for_100_000_by_128() {
    vector_index_tuning::recall_is_what_a_brute_force_outside_says_and_the_target_is_reached(100_000);
}

#[test]
fn with_auto_hnsw_is_compared_and_what_was_measured_decides_without_clusters() {
    vector_index_tuning::with_auto_hnsw_is_compared_and_what_was_measured_decides_of(&[(18, "", false)]);
}
