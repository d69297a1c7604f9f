//! Resolves the keys of a job's file: it looks names up in the configuration, and reports mistakes at their places.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::Spanned;

use super::{Config, NamedFile, Names, Secret, checked_http_url, places};
use crate::base::pattern::Pattern;
use crate::base::toml_file::{Problem, Source, did_you_mean};

/// Resolves the names in one job's file, with each problem at its place.
pub struct Checker<'a> {
    pub source: &'a Source,
    pub config: &'a Config,
    /// The folder of the job's file: other files are named relative to it.
    pub folder: &'a Path,
    /// True when the file has had mistakes already: a key that is missing may be one of those.
    pub damaged: bool,
    pub problems: &'a mut Vec<Problem>,
    /// The files that keys have named so far.
    pub files: Vec<NamedFile>,
}

impl Checker<'_> {
    pub fn problem<T>(&mut self, at: &Spanned<T>, message: impl Into<String>, hint: impl Into<Option<String>>) {
        // It may follow from a mistake in a part of the same value.
        if !self.problems.iter().any(|problem| problem.is_within(&at.span())) {
            self.problems.push(self.source.problem(Some(at.span()), message, hint.into()));
        }
    }

    pub fn missing(&mut self, message: &str, hint: &str) {
        if !self.damaged {
            self.problems.push(self.source.problem(None, message, Some(hint.to_owned())));
        }
    }

    /// Checks that the configuration has a store or database of this name.
    pub fn known(&mut self, kind: &str, name: &Spanned<String>) -> bool {
        let names: Vec<&str> = match kind {
            "store" => self.config.stores.keys().map(String::as_str).collect(),
            _ => self.config.databases.keys().map(String::as_str).collect(),
        };
        let is_of_server = kind != "store" && self.config.database(name.get_ref()).is_some();
        if names.contains(&name.get_ref().as_str()) || is_of_server {
            return true;
        }
        if self.config.may_have(kind, name.get_ref()) {
            return false;
        }
        // A URL or a login in the place of a name is not repeated.
        if name.get_ref().contains("://") || name.get_ref().contains('@') {
            let hint = format!("name one of [{kind}s.NAME] in {}; its URL or place stands there", self.config.path.display());
            self.problem(name, format!("this is no name of a {kind}"), hint);
            return false;
        }
        if kind == "database"
            && let Some((database, schema)) =
                places::parts(name.get_ref()).filter(|(database, _)| self.config.database(database).is_some())
        {
            let hint = format!("write database = {database:?} and, above [backup], schemas = [{schema:?}]");
            self.problem(name, format!("`{}` is a schema of database `{database}`", name.get_ref()), hint);
            return false;
        }
        let hint = did_you_mean(name.get_ref(), names.iter().copied()).unwrap_or_else(|| {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            if name.get_ref().contains("${") || name.get_ref().starts_with('$') {
                return "write the name itself: variables of the environment are not put in; `url_env` and its like name one"
                    .to_owned();
            }
            format!("{} has: {known}; add [{kind}s.{}]", self.config.path.display(), as_key(name.get_ref()))
        });
        self.problem(name, format!("the configuration has no {kind} `{}`", name.get_ref()), hint);
        false
    }

    /// Returns the databases that the file names, and the patterns that choose further ones.
    pub fn databases(&mut self, one: Option<Spanned<String>>, several: Option<Spanned<Names>>) -> (Vec<String>, Vec<Pattern>) {
        let named = match (one, several) {
            (Some(one), None) => vec![one],
            (None, Some(several)) => self.several(several),
            (Some(one), Some(_)) => {
                self.problem(
                    &one,
                    "both `database` and `databases` are set",
                    "keep one of them: `database` for one, `databases` for several".to_owned(),
                );
                Vec::new()
            }
            (None, None) => {
                self.missing("no database", "add database = \"NAME\", with [databases.NAME] in the configuration");
                Vec::new()
            }
        };
        // A database may be called `*`, as in the first release.
        let is_pattern =
            |name: &Spanned<String>| Pattern::is_one(name.get_ref()) && !self.config.databases.contains_key(name.get_ref());
        let (patterns, named): (Vec<_>, Vec<_>) = named.into_iter().partition(is_pattern);
        let patterns = patterns.iter().map(|pattern| Pattern::new(pattern.get_ref())).collect();
        let mut names: Vec<String> = Vec::new();
        for name in named {
            if names.contains(name.get_ref()) {
                self.problem(
                    &name,
                    format!("database `{}` is named twice", name.get_ref()),
                    "name it once: each has one run".to_owned(),
                );
            } else if self.known("database", &name) {
                names.push(name.into_inner());
            }
        }
        (names, patterns)
    }

    fn several(&mut self, several: Spanned<Names>) -> Vec<Spanned<String>> {
        let span = several.span();
        match several.get_ref() {
            Names::Several(texts) if texts.is_empty() => {
                self.problem(&several, "`databases` is empty", "name at least one: databases = [\"app\"]".to_owned());
            }
            Names::One(text) if !Pattern::is_one(text) => {
                // A URL or a login in the place of a name is not repeated.
                let is_private = text.contains("://") || text.contains('@');
                let shown = if is_private { "NAME" } else { text.as_str() };
                let found = if is_private { "a text".to_owned() } else { format!("the text {text:?}") };
                let hint = format!("write databases = [{shown:?}], or database = {shown:?}");
                self.problem(&several, format!("found {found}, expected a list of texts"), hint);
            }
            Names::One(_) | Names::Several(_) => {
                return match several.into_inner() {
                    Names::One(text) => vec![Spanned::new(span, text)],
                    Names::Several(texts) => texts,
                };
            }
        }
        Vec::new()
    }

    /// Returns the names of places for messages, each of which the configuration has.
    pub fn places_for_messages(&mut self, written: Vec<Spanned<String>>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in written {
            if self.config.notify.has(name.get_ref()) {
                names.push(name.into_inner());
                continue;
            }
            if self.config.may_have("notify", name.get_ref()) {
                continue;
            }
            let known: Vec<&str> = self.config.notify.names().collect();
            let hint = did_you_mean(name.get_ref(), known.iter().copied()).unwrap_or_else(|| match known.is_empty() {
                true => format!("add [notify.NAME] to {}: kind = \"slack\", url_file = \"/path\"", self.config.path.display()),
                false => format!("{} has: {}", self.config.path.display(), known.join(", ")),
            });
            // A URL in the place of a name is not repeated.
            let is_private = name.get_ref().contains("://") || name.get_ref().contains('@');
            let shown = if is_private { "…" } else { name.get_ref() };
            self.problem(&name, format!("the configuration has no place for messages `{shown}`"), hint);
        }
        names
    }

    /// Returns the path of a file with SQL that a key names, and notes it.
    pub fn file_with_sql(&mut self, key: &str, written: &Path) -> PathBuf {
        let path = self.folder.join(written);
        self.files.push(NamedFile { key: format!("`{key}`"), path: path.clone(), is_secret: false });
        path
    }

    pub fn http_url(&mut self, secret: Secret<'_>) -> Option<SecretString> {
        let (of, key) = (secret.of, secret.key);
        self.files.extend(secret.named_file(self.folder));
        let (url, place) = secret.read(self.source, self.folder, self.problems)?;
        checked_http_url(url, place, &format!("`{key}` of {of}"), self.source, self.problems)
    }
}

/// Writes a name as TOML wants it in the header of a table.
fn as_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    if is_bare { name.to_owned() } else { format!("{name:?}") }
}
