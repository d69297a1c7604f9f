//! A file of a run's metrics for node_exporter.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::facts::Known;
use super::labels::labels;
use super::{Metrics, outcome_labels};
use crate::config::Config;
use crate::ledger::report::Outcome;

impl Metrics {
    /// Writes `pgtend_JOB.prom` to `[metrics] textfile_dir`, if set: completely or not at all, since node_exporter may read it at
    /// any moment. Series without a job are left out, since node_exporter refuses the same series in several files; it does not
    /// accept `# EOF` either.
    pub fn write_textfile(&self, config: &Config, job: &str) -> Result<()> {
        let Some(folder) = &config.metrics.textfile_dir else { return Ok(()) };
        let page = self.render()?;
        let kept = page.lines().filter(|line| {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            IN_TEXTFILES.iter().any(|family| name.strip_prefix("pgtend_").is_some_and(|name| name.starts_with(family)))
        });
        // Its parser knows a counter by the name of its sample.
        let text: String = kept
            .map(|line| match line.split(' ').nth(2).filter(|name| line.starts_with('#') && COUNTERS.contains(name)) {
                Some(name) => line.replacen(name, &format!("{name}_total"), 1) + "\n",
                None => format!("{line}\n"),
            })
            .collect();
        write_atomically(folder, &textfile(job), text.as_bytes()).with_context(|| folder.display().to_string())
    }

    /// Takes over the values of the job's last run from its textfile: a failed run must not erase its last success.
    pub fn load_textfile(&self, config: &Config, job: &str) {
        let Some(folder) = &config.metrics.textfile_dir else { return };
        // If there is no file yet, or not one of ours, a new one is written.
        let Ok(text) = std::fs::read_to_string(folder.join(textfile(job))) else { return };
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (Some(database), Ok(value)) = (label(series, "database"), value.parse::<f64>()) else { continue };
            // Of a job with patterns, the file says nothing about any one database.
            let is_of_one = self.fleets.label(job).is_none();
            if series.starts_with("pgtend_job_last_success_timestamp_seconds{") && value > 0.0 && is_of_one {
                self.last_success(job, &database, value);
            }
            if series.starts_with("pgtend_restore_seconds{") && is_of_one {
                self.know(job, &database, &Known { restore_seconds: Some(value), ..Known::default() });
            }
            if series.starts_with("pgtend_backup_proved_timestamp_seconds{") && value > 0.0 && is_of_one {
                self.know(job, &database, &Known { proved_at: Some(value), ..Known::default() });
            }
            if series.starts_with("pgtend_archived_rows_total{") {
                self.facts.archived(&labels(job, &database), value as u64);
            }
            let outcome = label(series, "outcome").and_then(|name| name.parse::<Outcome>().ok());
            if let Some(outcome) = outcome.filter(|_| series.starts_with("pgtend_job_runs_total{")) {
                self.runs.get_or_create(&outcome_labels(labels(job, &database), outcome)).inc_by(value as u64);
            }
        }
    }
}

/// The families whose series all name a job, and which still mean something after the process has ended: not an age.
const IN_TEXTFILES: [&str; 10] = [
    "job_runs",
    "job_run_duration_seconds",
    "job_last_success_timestamp_seconds",
    "backup_size_bytes",
    "restore_seconds",
    "backup_proved_timestamp_seconds",
    "backup_proved_sets",
    "archived_rows",
    "audit_findings",
    "partition_covered_until_timestamp_seconds",
];

/// Those that are counters.
const COUNTERS: [&str; 2] = ["pgtend_job_runs", "pgtend_archived_rows"];

fn textfile(job: &str) -> String {
    format!("pgtend_{job}.prom")
}

/// Returns a label's value, unescaped.
fn label(series: &str, name: &str) -> Option<String> {
    let (_, rest) = series.split_once(&format!("{name}=\""))?;
    let (mut value, mut rest) = (String::new(), rest.chars());
    loop {
        match rest.next()? {
            '"' => return Some(value),
            '\\' => value.push(rest.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped })?),
            other => value.push(other),
        }
    }
}

fn write_atomically(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    // The folder may belong to another user, who puts links there: its name is random, and it is made by O_EXCL.
    let mut partial = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(folder)?;
    partial.write_all(content)?;
    // node_exporter's user reads it; there are no secrets in it.
    partial.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    partial.persist(folder.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_a_folder_of_another_user_lead_nowhere() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        std::fs::write(&victim, "a secret").unwrap();
        let names = [format!(".pgtend_s.prom.{}", std::process::id()), "pgtend_s.prom".to_owned()];
        for name in &names {
            std::os::unix::fs::symlink(&victim, folder.path().join(name)).unwrap();
        }
        write_atomically(folder.path(), "pgtend_s.prom", b"metrics").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "a secret");
        let written = folder.path().join("pgtend_s.prom");
        assert_eq!(std::fs::read_to_string(&written).unwrap(), "metrics");
        let about = std::fs::symlink_metadata(&written).unwrap();
        assert!(about.is_file());
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o644);
    }
}
