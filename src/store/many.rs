//! Many folders in few listings: a page of a bucket's list has up to 1,000 keys in their order, and so answers for all folders that are small and stand together.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::object::{Listed, Object};

/// Folders that are listed together, from the first to the last.
pub(super) struct Walk<'f> {
    folders: &'f BTreeSet<String>,
    found: HashMap<String, Listed>,
    /// The next page begins after this key.
    after: String,
}

impl<'f> Walk<'f> {
    /// Returns `None` where there is no folder.
    pub fn of(folders: &'f BTreeSet<String>) -> Option<Self> {
        let after = folders.first()?.clone();
        Some(Self { folders, found: folders.iter().map(|folder| (folder.clone(), Listed::default())).collect(), after })
    }

    pub fn after(&self) -> &str {
        &self.after
    }

    /// Takes the objects of a page, which began after that key. Returns false where they are not in the order of their keys: then what was not seen may be
    /// there all the same.
    pub fn take(&mut self, page: impl Iterator<Item = Object>) -> bool {
        for object in page {
            if object.key <= self.after {
                return false;
            }
            self.after.clone_from(&object.key);
            if let Some(listed) = self.folder_of(&object.key).and_then(|folder| self.found.get_mut(folder)) {
                listed.objects.push(object);
            }
        }
        true
    }

    /// Goes on after a page that was not the last: what is in none of the folders is passed over. Returns false when all were seen.
    pub fn go_on(&mut self) -> bool {
        if self.folder_of(&self.after).is_some() {
            return true;
        }
        let next = self.folders.range::<str, _>((Bound::Excluded(self.after.as_str()), Bound::Unbounded)).next();
        let Some(next) = next else { return false };
        self.after.clone_from(next);
        true
    }

    pub fn found(self) -> HashMap<String, Listed> {
        self.found
    }

    fn folder_of(&self, key: &str) -> Option<&'f String> {
        let folder = self.folders.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(folder.as_str()).then_some(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over a bucket with so many keys on a page. Returns what was found, and how many pages were read.
    fn walked(bucket: &[&str], folders: &[&str], page: usize) -> (Vec<(String, Vec<String>)>, usize) {
        let (folders, mut pages) = (folders.iter().map(ToString::to_string).collect(), 0);
        let mut walk = Walk::of(&folders).unwrap();
        loop {
            pages += 1;
            let left: Vec<&str> = bucket.iter().copied().filter(|key| *key > walk.after()).collect();
            assert!(walk.take(left.iter().take(page).map(|key| object(key))));
            if left.len() <= page || !walk.go_on() {
                break;
            }
        }
        let keys = |listed: Listed| listed.objects.into_iter().map(|object| object.key).collect();
        let mut found: Vec<_> = walk.found().into_iter().map(|(folder, listed)| (folder, keys(listed))).collect();
        found.sort();
        (found, pages)
    }

    fn object(key: &str) -> Object {
        Object { key: key.to_owned(), bytes: 1, modified_at: None }
    }

    #[test]
    fn each_folder_has_what_is_in_it_whatever_stands_between_them() {
        let bucket = ["0", "a-b/1", "a/1", "a/2", "a/3", "b/1", "c/1", "c/2", "c0", "e/1", "z"];
        let of = |folder: &str, keys: &[&str]| (folder.to_owned(), keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = vec![of("a/", &["a/1", "a/2", "a/3"]), of("c/", &["c/1", "c/2"]), of("d/", &[])];
        for page in 1..=bucket.len() {
            assert_eq!(walked(&bucket, &["a/", "c/", "d/"], page).0, expected, "{page} keys on a page");
        }
        assert_eq!(walked(&bucket, &["c/", "d/"], 4).1, 1, "what is before them is not read");
    }

    #[test]
    fn what_is_between_the_folders_is_passed_over() {
        let others: Vec<String> = (0..1000).map(|number| format!("m/{number:04}")).collect();
        let bucket: Vec<&str> = ["a/1"].into_iter().chain(others.iter().map(String::as_str)).chain(["z/1"]).collect();
        let (found, pages) = walked(&bucket, &["a/", "z/"], 10);
        assert_eq!((found[1].1.len(), pages), (1, 2));
    }

    #[test]
    fn a_server_that_lists_in_another_order_is_not_believed() {
        let folders = ["a/", "b/"].map(str::to_owned).into();
        for page in [["b/1", "a/1"], ["A/1", "a/1"], ["a/1", "a/1"]] {
            let mut walk = Walk::of(&folders).unwrap();
            assert!(!walk.take(page.into_iter().map(object)), "{page:?}");
        }
    }
}
