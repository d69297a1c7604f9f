//! The folders above files, up to the root: whoever may write to one of them may put another file in the place of one below. And the owners of all.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::finding::{Finding, State};
use super::modes::{Access, Use};
use crate::base::units;

/// Names the folders to which others may write, each once. One of the paths may be a folder that was judged already.
pub fn of_folders(paths: &[&Path]) -> Vec<Finding> {
    let judged: BTreeSet<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let folders = folders(paths);
    folders
        .iter()
        .filter(|(folder, _)| !judged.contains(*folder))
        .filter_map(|(folder, below)| of_folder(folder, below))
        .collect()
}

/// Names the users besides root and this one who own a file or a folder above it, each once.
pub fn of_owners(paths: &[&Path]) -> Vec<Finding> {
    let me = geteuid().as_raw();
    let mut owned: BTreeMap<u32, Vec<PathBuf>> = BTreeMap::new();
    for path in paths.iter().map(|path| path.to_path_buf()).chain(folders(paths).into_keys()) {
        let owner = path.metadata().map_or(me, |found| found.uid());
        if owner != me && owner != 0 {
            owned.entry(owner).or_default().push(path);
        }
    }
    let said = owned.iter().map(|(owner, paths)| {
        let unless = if me == 0 { ", unless pgtend runs as that user: then run this as it, too" } else { "" };
        let said = format!(
            "{} to user {owner}, who can make pgtend run other statements: chown it to the user of pgtend, or to root{unless}",
            belong(paths)
        );
        Finding::new(State::Warning, "files", said)
    });
    said.collect()
}

/// Each folder above one of these paths, with the paths below. Where a path leads through a link, those of the link and those of its target.
fn folders<'p>(paths: &[&'p Path]) -> BTreeMap<PathBuf, Vec<&'p Path>> {
    let mut folders: BTreeMap<PathBuf, Vec<&Path>> = BTreeMap::new();
    for path in paths {
        let ways = [std::path::absolute(path).ok(), path.canonicalize().ok()];
        let above: BTreeSet<PathBuf> =
            ways.iter().flatten().flat_map(|way| way.ancestors().skip(1)).map(Path::to_path_buf).collect();
        for folder in above {
            folders.entry(folder).or_default().push(path);
        }
    }
    folders
}

fn of_folder(folder: &Path, below: &[&Path]) -> Option<Finding> {
    let access = Access::of(folder)?;
    let too_much = access.too_much(Use::Above);
    let may = access.in_words(too_much)?;
    let (first, more) = below.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", units::count(more.len() as u64)) };
    let shown = folder.display().to_string();
    let remedy = access.remedy(Use::Above, too_much, &shown);
    let said = format!("the folder {shown}: {may}, and so replace {}{more}: {remedy}", first.display());
    Some(Finding::new(State::Warning, "files", said))
}

fn belong(paths: &[PathBuf]) -> String {
    match paths {
        [one] => format!("{} belongs", one.display()),
        [first, more @ ..] => format!("{} and {} more belong", first.display(), units::count(more.len() as u64)),
        [] => String::new(),
    }
}
