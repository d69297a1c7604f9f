//! The folders of `src/` show the layers: an import runs down. And only one file tells the tasks apart.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_import_points_down_and_no_new_circle_appears() {
    let output = Command::new("scripts/layers").arg("--quiet").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What belongs to runs.
const BELOW_RUNS: [&str; 7] = ["src/pg", "src/store", "src/live", "src/members", "src/archive", "src/task", "src/run/runner"];

#[test]
fn every_subtask_and_thread_of_a_run_logs_in_the_span_of_the_run() {
    let found: Vec<String> = BELOW_RUNS
        .iter()
        .flat_map(|folder| sources(Path::new(folder)))
        .flat_map(|path| spawned_elsewhere(&fs::read_to_string(&path).unwrap(), &path))
        .collect();
    assert!(
        found.is_empty(),
        "spawn it by src/base/subtask.rs or src/base/thread.rs, so that its log lines are the run's:\n{}",
        found.join("\n")
    );
    // This test can fail.
    let example = "tokio::spawn(async {});\nset.spawn(work());\nset.spawn(in_span(work()));\nCommand::new(\"x\").spawn()?;\n\
                   tokio::task::spawn_blocking(|| 1);\nstd::thread::spawn(on_thread(work));\nsubtask::spawn_in_span(work());\n";
    assert_eq!(spawned_elsewhere(example, Path::new("x.rs")), ["x.rs:1", "x.rs:2", "x.rs:5"]);
}

/// The lines that start a task or a thread which does not log as the one that starts it.
fn spawned_elsewhere(source: &str, path: &Path) -> Vec<String> {
    let starts = |line: &str| {
        let of_tokio = line.contains("tokio::spawn(") || line.contains("task::spawn_blocking(");
        let of_a_set = line.contains(".spawn(") && !line.contains(".spawn()");
        of_tokio || of_a_set || line.contains("std::thread::spawn(") || line.contains("thread::Builder")
    };
    let is_in_span = |line: &str| line.contains("in_span(") || line.contains("on_thread(");
    let found = source.lines().enumerate().filter(|(_, line)| starts(line) && !is_in_span(line));
    found.map(|(number, _)| format!("{}:{}", path.display(), number + 1)).collect()
}

#[test]
fn only_the_list_of_tasks_tells_the_tasks_apart() {
    let list = fs::read_to_string("src/task/list.rs").unwrap();
    let tasks = tasks_of(&list);
    let found: Vec<String> = sources(Path::new("src"))
        .into_iter()
        .filter(|path| path != Path::new("src/task/list.rs"))
        .flat_map(|path| places(&fs::read_to_string(&path).unwrap(), &tasks, &path))
        .collect();
    assert!(
        found.is_empty(),
        "ask the task's `Entry` (src/work/entry.rs) in the place of a variant of `Task`:\n{}",
        found.join("\n")
    );
    // This test can fail: the list itself, written with names, is such a place.
    assert_eq!(tasks.len(), 9, "{tasks:?}");
    let example =
        "match task {\n    Task::Backup(_) => {}\n    task::Task::VectorIndex(index) => {}\n    Subtask::Sql(_) => {}\n}\n";
    assert_eq!(places(example, &tasks, Path::new("x.rs")), ["x.rs:2: Task::Backup", "x.rs:3: Task::VectorIndex"]);
}

#[test]
fn every_task_has_its_entry_its_example_and_its_page() {
    for kind in kinds_of(&fs::read_to_string("src/task/list.rs").unwrap()) {
        for path in
            [format!("src/task/{kind}/entry.rs"), format!("src/task/{kind}/keys.rs"), format!("docs/reference/tasks/{kind}.md")]
        {
            assert!(Path::new(&path).exists(), "{path}");
        }
        let examples: Vec<PathBuf> = fs::read_dir("jobs").unwrap().map(|entry| entry.unwrap().path()).collect();
        let has_table = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().any(|line| line == format!("[{kind}]"));
        assert!(examples.iter().any(has_table), "no job in jobs/ has [{kind}]");
    }
}

#[test]
fn the_page_on_adding_a_task_has_every_item_of_entry_and_no_other() {
    let entry = fs::read_to_string("src/work/entry.rs").unwrap();
    let inside = entry.split("pub trait Entry").nth(1).unwrap().split("\n}").next().unwrap();
    let items: BTreeSet<&str> = inside
        .lines()
        .filter_map(|line| line.strip_prefix("    fn ").or_else(|| line.strip_prefix("    const ")))
        .map(|item| item.split(['(', ':', '<']).next().unwrap())
        .collect();
    assert!(items.len() > 10, "{items:?}");
    let page = fs::read_to_string("docs/adding-a-task.md").unwrap();
    let table = page.split("| Item of `Entry` |").nth(1).unwrap().split("\n\n").next().unwrap();
    let first_cells = table.lines().skip(2).map(|row| row.split('|').nth(1).unwrap());
    let listed: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(listed, items);
}

/// Lines like `audit: Audit,` of the macro `each_task`: the kind, and the name in Rust.
fn entries(list: &str) -> Vec<(String, String)> {
    let inside = list.split("$then! {").nth(1).unwrap().split('}').next().unwrap();
    inside
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "))
        .map(|(kind, task)| (kind.to_owned(), task.to_owned()))
        .collect()
}

fn kinds_of(list: &str) -> Vec<String> {
    entries(list).into_iter().map(|(kind, _)| kind).collect()
}

fn tasks_of(list: &str) -> Vec<String> {
    entries(list).into_iter().map(|(_, task)| task).collect()
}

fn places(text: &str, tasks: &[String], path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("Task::") {
            let is_a_word = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let name: String = line[at + "Task::".len()..].chars().take_while(|c| c.is_alphanumeric()).collect();
            if is_a_word && tasks.contains(&name) {
                found.push(format!("{}:{}: Task::{name}", path.display(), number + 1));
            }
        }
    }
    found
}

/// The Rust files below a folder.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
