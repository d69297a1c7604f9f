//! `schemas` of a job: a run, and a set, for each schema of its databases.

use toml::Spanned;

use crate::base::pattern::Pattern;
use crate::config::checker::Checker;
use crate::config::{Names, places};
use crate::task::Task;
use crate::task::backup::Backup;

/// Returns the patterns, and reports what is wrong with them, or with them beside this task.
pub fn resolve(written: &Spanned<Names>, task: Option<&Task>, checker: &mut Checker<'_>) -> Vec<Pattern> {
    let texts: Vec<String> = written.get_ref().texts().into_iter().map(str::to_owned).collect();
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        let hint = "name schemas or patterns of names: schemas = \"tenant_*\"; \"*\" stands for all".to_owned();
        checker.problem(written, "`schemas` is empty, or one of its texts is", hint);
    }
    if let Some(text) = texts.iter().find(|text| places::is_of_the_system(text)) {
        let hint = "name the schemas of tenants; those of the system are in every database".to_owned();
        checker.problem(written, format!("`{text}` is a schema of the system, and is not backed up"), hint);
    }
    if let Some(task) = task {
        beside(task, written, checker);
    }
    ambiguous_names(written, checker);
    texts.iter().map(|text| Pattern::new(text)).collect()
}

fn beside(task: &Task, written: &Spanned<Names>, checker: &mut Checker<'_>) {
    if !task.has_schemas() {
        let hint =
            format!("[{}] works on whole databases: remove `schemas`, and name schemas in the keys of its table", task.kind());
        checker.problem(written, "`schemas` is of [backup] alone: a set for each schema", hint);
    } else if task.as_a::<Backup>().is_some_and(|backup| !backup.filters.schemas.is_empty()) {
        let hint =
            "keep one of them: above, it makes a set for each schema; in [backup], it limits one set to these schemas".to_owned();
        checker.problem(written, "`schemas` stands above [backup] and in it", hint);
    }
}

/// The sets of an entry and of a schema would be in one folder.
fn ambiguous_names(written: &Spanned<Names>, checker: &mut Checker<'_>) {
    let config = checker.config;
    let is_of_schema = |name: &&String| places::parts(name).is_some_and(|(database, _)| config.database(database).is_some());
    if let Some(name) = config.databases.keys().find(is_of_schema) {
        let hint = format!("give that entry another name, without a colon, in {}", config.path.display());
        checker.problem(written, format!("[databases.\"{name}\"] has a name that a schema of a database may have"), hint);
    }
}
