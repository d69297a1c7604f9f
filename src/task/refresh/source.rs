//! Finds where the sets of a job are. Pure.

use super::keys::Refresh;
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::did_you_mean;
use crate::work::{Does, Other};

/// Where the sets of a backup job are: the folder `DATABASE/JOB/` of each store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The nearest first: one at least.
    pub stores: Vec<String>,
    /// The name in the configuration that made the sets.
    pub database: String,
    pub job: String,
}

impl Source {
    /// `STORE:DATABASE/JOB`
    pub fn shown(&self, store: &str) -> String {
        format!("{store}:{}/{}", self.database, self.job)
    }
}

/// What the keys leave out is what the job says, if this configuration has it.
pub fn source(keys: &Refresh, jobs: &[Other]) -> Result<Source, Fault> {
    let backups: Vec<(&Other, &[String])> = jobs.iter().filter_map(|job| Some((job, stores_of(job)?))).collect();
    let job = backups.iter().find(|(job, _)| job.name == keys.from);
    let refused = |message: String| Fault::new(Kind::Configuration, message);
    let unknown = |key: &str| {
        let hint = did_you_mean(&keys.from, backups.iter().map(|(job, _)| job.name.as_str()));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        refused(format!(
            "this configuration has no [backup] job `{}`{hint}; for sets of another host, say `{key}`, too",
            keys.from
        ))
    };
    let stores = match (&keys.store, job) {
        (Some(store), _) => vec![store.clone()],
        (None, Some((_, stores))) => stores.to_vec(),
        (None, None) => return Err(unknown("store")),
    };
    let database = match (&keys.from_database, job) {
        (Some(database), _) => database.clone(),
        (None, None) => return Err(unknown("from_database")),
        (None, Some((job, _))) => match &job.databases[..] {
            [one] => one.clone(),
            several => {
                let message =
                    format!("job `{}` backs up several databases: say from_database = one of {}", job.name, several.join(", "));
                return Err(refused(message));
            }
        },
    };
    Ok(Source { stores, database, job: keys.from.clone() })
}

/// The stores of a job that makes backups, the nearest first.
pub fn stores_of(job: &Other) -> Option<&[String]> {
    match &job.does {
        Does::Backup { stores } => Some(stores),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::keys;
    use super::*;

    fn backup(name: &str, databases: &[&str]) -> Other {
        let databases = databases.iter().map(|name| (*name).to_owned()).collect();
        Other {
            name: name.into(),
            databases,
            enabled: true,
            does: Does::Backup { stores: vec!["local".into(), "offsite".into()] },
        }
    }

    #[test]
    fn what_the_keys_leave_out_is_what_the_job_says() {
        let jobs =
            [backup("nightly", &["app"]), backup("all", &["app", "shop"]), Other { does: Does::Else, ..backup("sql", &["app"]) }];
        let of = |from: &str, store: Option<&str>, database: Option<&str>| {
            let keys =
                Refresh { from: from.into(), store: store.map(Into::into), from_database: database.map(Into::into), ..keys() };
            source(&keys, &jobs)
                .map(|found| format!("{}:{}/{}", found.stores.join(","), found.database, found.job))
                .map_err(|fault| fault.message)
        };
        assert_eq!(of("nightly", None, None).unwrap(), "local,offsite:app/nightly");
        assert_eq!(of("nightly", Some("offsite"), None).unwrap(), "offsite:app/nightly");
        assert_eq!(of("all", None, Some("shop")).unwrap(), "local,offsite:shop/all");
        assert_eq!(of("elsewhere", Some("offsite"), Some("app")).unwrap(), "offsite:app/elsewhere");
        for (from, store, database, said) in [
            ("all", None, None, "say from_database = one of app, shop"),
            ("nightli", None, None, "nightly"),
            ("sql", None, None, "no [backup] job `sql`"),
            ("elsewhere", Some("offsite"), None, "say `from_database`, too"),
            ("elsewhere", None, Some("app"), "say `store`, too"),
        ] {
            let error = of(from, store, database).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
