//! Puts together the jobs for all databases, beside those that are there.

use std::collections::BTreeSet;

use super::decide::{self, Does, LeftOut, Proposal};
use super::facts::Contents;
use super::names::{free, slug};
use crate::pg::table::with_schema;
use crate::run::covered::{is_backed_up_by, is_made_from_backups, is_only_scratch};
use crate::run::job::Job;

/// The pattern that stands for all databases.
pub const ALL: &str = "*";

/// A database that gets jobs, or all of them.
pub struct Target {
    /// Its name in the configuration, or the pattern.
    pub name: String,
    pub contents: Contents,
}

/// Returns the jobs that are not there yet, each with a name of its own. `taken` are names of files that are there.
pub fn all(targets: &[Target], known: &[Job], mut taken: BTreeSet<String>) -> (Vec<Proposal>, Vec<LeftOut>) {
    let (mut proposals, mut left_out) = (Vec::new(), Vec::new());
    let without = |has: &dyn Fn(&Target) -> bool| -> Vec<String> {
        targets.iter().filter(|target| !has(target)).map(|target| target.name.clone()).collect()
    };
    let backup = |Target { name, contents }: &Target| {
        let is_scratch = !contents.has_objects && is_only_scratch(known, name);
        // One that is new has not run yet, and would refuse to replace a database that is backed up.
        let is_made = is_made_from_backups(known, name, |_| true);
        known.iter().any(|job| is_backed_up_by(job, name)) || is_made || is_scratch
    };
    let audit = |Target { name, .. }: &Target| {
        let audits = |job: &Job| job.task.kind() == "audit" && job.runs_on(name);
        known.iter().any(audits)
    };
    for (does, name, databases, why) in [
        (Does::Backup { restores: true }, "backup-nightly", without(&backup), "A dump of each database, as one set"),
        (Does::Audit, "audit-monthly", without(&audit), "Problems before they hurt, each with the statement that ends it"),
    ] {
        if !databases.is_empty() {
            proposals.push(Proposal { does, name: name.to_owned(), databases, why: why.to_owned() });
        }
    }
    for target in targets {
        let (of_tables, not_proposed) = decide::for_tables(&target.name, &target.contents);
        let is_new = |proposal: &Proposal| !known.iter().any(|job| does_the_same(job, proposal));
        proposals.extend(of_tables.into_iter().filter(is_new).map(|proposal| match targets.len() {
            1 => proposal,
            _ => Proposal { name: format!("{}-{}", slug(&target.name), slug(&proposal.name)), ..proposal },
        }));
        left_out.extend(not_proposed);
    }
    for proposal in &mut proposals {
        proposal.name = free(slug(&proposal.name), &mut taken);
    }
    (proposals, left_out)
}

fn does_the_same(job: &Job, proposal: &Proposal) -> bool {
    let table = proposal.does.table().map(with_schema);
    let is_of_table = job.task.touched().iter().any(|touched| Some(with_schema(touched.table)) == table);
    job.task.kind() == proposal.does.kind() && is_of_table && proposal.databases.iter().all(|name| job.runs_on(name))
}
