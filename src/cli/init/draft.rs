//! What would be written, put together from what was found and what was chosen.

use std::collections::BTreeSet;

use anyhow::Result;

use super::decide::{Does, LeftOut, Proposal};
use super::names::free;
use super::propose::{self, ALL, Target};
use super::prove::{self, Lack};
use super::text::Choices;
use crate::config::Config;
use crate::run::fleet::Found;
use crate::run::job::Job;

/// Jobs that may be written, what is left out, and what has to be done before the first run.
pub struct Draft {
    pub proposals: Vec<Proposal>,
    pub left_out: Vec<LeftOut>,
    pub to_do: Vec<String>,
}

/// Proposes jobs, and keeps those that pass every check, on their databases, too.
pub async fn make(
    (config, found): (&Config, &Found),
    targets: &[Target],
    known: &[Job],
    taken: &BTreeSet<String>,
    choices: &Choices,
) -> Result<Draft> {
    let (proposals, mut left_out) = propose::all(targets, known, taken.clone());
    let jobs = prove::jobs(config, &proposals, choices)?;
    let lacks = prove::lacks(config, &prove::on_examples(&jobs, found, config)).await;
    let (mut kept, mut to_do) = (Vec::new(), Vec::new());
    for proposal in proposals {
        let (unknown, of_it): (Vec<&Lack>, Vec<&Lack>) =
            lacks.iter().filter(|lack| lack.job == proposal.name).partition(|lack| lack.is_unreachable);
        to_do.extend(unknown.iter().map(|lack| lack.in_words()));
        match &proposal.does {
            Does::Backup { .. } if !of_it.is_empty() => {
                // What one database of a fleet lacks, others will.
                let is_lacking = |name: &String| name == ALL || of_it.iter().any(|lack| lack.database == *name);
                let (unable, able): (Vec<String>, Vec<String>) = proposal.databases.iter().cloned().partition(is_lacking);
                let reasons: BTreeSet<&str> = of_it.iter().map(|lack| lack.why.as_str()).collect();
                let why = reasons.into_iter().collect::<Vec<_>>().join("; ");
                let mut taken: BTreeSet<String> = taken.clone();
                if !able.is_empty() {
                    taken.insert(proposal.name.clone());
                    kept.push(Proposal { databases: able, ..proposal.clone() });
                }
                let name = free(proposal.name.clone(), &mut taken);
                let why = format!("{}. verify = \"restore\" is not possible yet: {why}", proposal.why);
                kept.push(Proposal { does: Does::Backup { restores: false }, name, databases: unable, why });
            }
            _ if proposal.does.is_enabled() || of_it.is_empty() => {
                to_do.extend(of_it.iter().map(|lack| lack.in_words()));
                kept.push(proposal);
            }
            does => {
                let what =
                    format!("[{}] of {} in {}", does.kind(), does.table().unwrap_or_default(), proposal.databases.join(", "));
                left_out.push(LeftOut { what, why: of_it[0].why.clone() });
            }
        }
    }
    // What was changed is read again; a backup that is only read back may still lack something.
    let jobs = prove::jobs(config, &kept, choices)?;
    let only_read: Vec<Job> = jobs
        .into_iter()
        .filter(|job| kept.iter().any(|proposal| proposal.name == job.name && proposal.does == Does::Backup { restores: false }))
        .collect();
    for lack in prove::lacks(config, &prove::on_examples(&only_read, found, config)).await {
        to_do.push(lack.in_words());
    }
    Ok(Draft { proposals: kept, left_out, to_do })
}
