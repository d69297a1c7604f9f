//! Whether the rules of a bucket, its lock and the jobs' `keep` fit together. Pure.

use crate::base::units;
use crate::config;
use crate::run::job::Job;
use crate::store::Expiry;
use crate::store::s3::Archiving;
use crate::task::backup::Backup;

/// Says what does not fit, a sentence for each job.
pub fn unfit(
    store: &str,
    configured: &config::Store,
    (expiry, archiving): (Option<&Expiry>, Option<&Archiving>),
    jobs: &[Job],
) -> Vec<String> {
    let lock_days = match configured {
        config::Store::S3(s3) => s3.lock.map(|lock| u32::try_from(lock.span.0.as_secs() / 86_400).unwrap_or(u32::MAX)),
        config::Store::Dir { .. } | config::Store::Cloud(_) => None,
    };
    let mut unfit = Vec::new();
    for job in jobs {
        let kept = job.task.as_a::<Backup>().and_then(|backup| backup.stores().find(|kept| kept.store == store));
        let Some(kept) = kept else { continue };
        let kept_days = kept.keep.map(|keep| keep.longest_days());
        unfit.extend(expiry.and_then(|expiry| goes_early(&job.name, expiry, kept_days)));
        unfit.extend(archiving.and_then(|archiving| is_archived(&job.name, archiving, kept_days)));
        unfit.extend(lock_days.and_then(|lock_days| stays_late(&job.name, lock_days, kept_days)));
    }
    unfit
}

/// Says where the bucket's rules do not go by the tags of a store with `tag_proved`. `moves_tagged`: whether one does; None where they may not be read.
pub fn unused_tags(archiving: Option<&Archiving>, moves_tagged: Option<bool>) -> Vec<String> {
    let moves_all = archiving.map(|Archiving { rule, .. }| {
        format!(
            "the bucket's lifecycle rule `{rule}` also moves sets that are not proved, and all manifests: let it take only what has the tag pgtend-proved"
        )
    });
    let moves_none = match moves_tagged {
        Some(true) => None,
        Some(false) => Some("tag_proved, and no lifecycle rule of the bucket moves what has the tag pgtend-proved: no set moves".to_owned()),
        None => Some("tag_proved, and the bucket's lifecycle rules cannot be read (s3:GetLifecycleConfiguration): whether they go by the tags is not known".to_owned()),
    };
    moves_all.into_iter().chain(moves_none).collect()
}

/// `kept_days`: None, the job keeps all sets.
fn goes_early(job: &str, Expiry { rule, days }: &Expiry, kept_days: Option<u32>) -> Option<String> {
    let keeps = match kept_days {
        None => "keeps all sets".to_owned(),
        Some(kept) if kept > *days => format!("keeps sets for {kept} days"),
        Some(_) => return None,
    };
    Some(format!(
        "the bucket's lifecycle rule `{rule}` deletes objects here after {days} days, and job `{job}` {keeps}: change one of them"
    ))
}

/// Sets that are kept after that: what reads them must wait for a thaw.
fn is_archived(job: &str, Archiving { rule, days, class }: &Archiving, kept_days: Option<u32>) -> Option<String> {
    let keeps = match kept_days {
        None => "keeps all sets".to_owned(),
        Some(kept) if kept > *days => format!("keeps sets for {kept} days"),
        Some(_) => return None,
    };
    let hours = class.thaws_in_hours();
    let proof = match days {
        0 | 1 => "; a run may find its set there before it has read it back",
        _ => "",
    };
    Some(format!(
        "the bucket's lifecycle rule `{rule}` moves objects here to {class} after {}, and job `{job}` {keeps}: to restore one of those, or to prove it, \
         takes a thaw of up to {hours} hours first{proof}",
        units::plural(*days, "day")
    ))
}

fn stays_late(job: &str, lock_days: u32, kept_days: Option<u32>) -> Option<String> {
    let kept = kept_days.filter(|kept| (1..lock_days).contains(kept))?;
    Some(format!(
        "`lock` is {lock_days} days, and `keep` of job `{job}` ends after {kept}: what it no longer keeps stays, locked, until then"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::archived::Class;

    #[test]
    fn a_rule_that_takes_sets_earlier_than_keep_and_a_lock_that_outlives_it_are_named() {
        let expiry = Expiry { rule: "tidy".to_owned(), days: 30 };
        assert!(goes_early("nightly", &expiry, Some(365)).unwrap().contains("`tidy` deletes objects here after 30 days"));
        assert!(goes_early("nightly", &expiry, None).unwrap().contains("keeps all sets"));
        assert_eq!(goes_early("nightly", &expiry, Some(30)), None);
        let archiving = Archiving { rule: "cold".to_owned(), days: 30, class: Class::DeepArchive };
        let said = is_archived("nightly", &archiving, Some(365)).unwrap();
        assert!(said.contains("to DEEP_ARCHIVE after 30 days") && said.contains("a thaw of up to 12 hours first"), "{said}");
        assert_eq!(is_archived("nightly", &archiving, Some(30)), None);
        assert!(
            is_archived("nightly", &Archiving { days: 0, ..archiving }, None).unwrap().contains("before it has read it back")
        );
        assert!(stays_late("nightly", 30, Some(7)).unwrap().contains("ends after 7"));
        assert_eq!(
            (stays_late("nightly", 30, Some(30)), stays_late("nightly", 30, None), stays_late("nightly", 30, Some(0))),
            (None, None, None)
        );
    }
}
