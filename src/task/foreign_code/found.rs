//! A piece of foreign code, and the sentence that names it.

use std::fmt;

use crate::pg::identifier;

/// One piece of such code, once for each function that it calls.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ForeignCode {
    /// "trigger", "index" and the like; for an owner "table", "schema", "type", "server", or "extension" and "operators" for the owner of their schema;
    /// "living" and "place" for what a restored part uses, and its schema; "path" for a schema of the search_path, or the database that sets it; for a
    /// role that owns nothing of it the privilege: "TRIGGER", "REFERENCES", or "CREATE" on its schema or, without `name`, on the database.
    pub kind: String,
    /// Quoted; None for a partition key and for a table. For "CREATE" the schema.
    pub name: Option<String>,
    /// With its schema, quoted.
    pub table: String,
    /// None for a rule and for a table.
    pub function: Option<String>,
    /// None is PUBLIC.
    pub owner: Option<String>,
    /// The login role of the session: RESET ROLE gives its rights.
    pub runs_as: String,
    /// The login is a superuser, or may become one.
    pub is_superuser: bool,
    pub is_superuser_itself: bool,
    /// What the login has and the owner lacks: "rights" in this database or in the whole server, or only the run "history" in the schema
    /// pgtend, or only something "elsewhere", in other databases of the server.
    pub gains: String,
    /// It is at the table that was searched or below it, so that any query of that table computes its code.
    #[sqlx(default)]
    pub is_queried: bool,
}

impl ForeignCode {
    /// Returns whether it names an owner, with or without code that was found.
    pub fn is_an_owner(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "table" | "schema" | "type" | "server" | "extension" | "operators" | "living" | "place" | "path"
        ) && self.function.is_none()
    }

    /// Returns whether it names a role that may put code there, with or without code that was found.
    pub fn is_a_holder(&self) -> bool {
        matches!(self.kind.as_str(), "TRIGGER" | "REFERENCES" | "CREATE")
    }

    pub fn owner(&self) -> String {
        self.owner.as_deref().map_or_else(|| "PUBLIC".to_owned(), identifier)
    }

    /// Returns the statement that takes the privilege of such a role away.
    pub fn revoke(&self) -> String {
        let from = self.owner();
        match (self.kind.as_str(), &self.name) {
            ("CREATE", None) => format!("REVOKE CREATE ON DATABASE {} FROM {from}", self.table),
            ("CREATE", Some(schema)) => format!("REVOKE CREATE ON SCHEMA {schema} FROM {from}"),
            (kind, _) => format!("REVOKE {kind} ON {} FROM {from}", self.table),
        }
    }

    /// Leaves out what says the same as another piece: the same line, or the same role with the same schema.
    pub fn once(found: Vec<Self>) -> Vec<Self> {
        let mut once: Vec<Self> = Vec::new();
        for code in found {
            let is_of_schema = matches!(code.kind.as_str(), "CREATE" | "place" | "path") && code.name.is_some();
            let says_the_same = |known: &Self| {
                let kinds = [(&*known.kind, &*code.kind), (&*code.kind, &*known.kind)];
                let is_same_kind =
                    known.kind == code.kind || kinds.contains(&("schema", "place")) || kinds.contains(&("schema", "path"));
                is_of_schema && is_same_kind && (&known.name, &known.owner) == (&code.name, &code.owner)
                    || known.to_string() == code.to_string()
            };
            if !once.iter().any(says_the_same) {
                once.push(code);
            }
        }
        once
    }

    /// Returns whether the login has nothing more in this database than the run history. A login for several databases, or one that keeps the
    /// history here, always has such rights.
    pub fn is_beside_the_tables(&self) -> bool {
        self.gains != "rights"
    }

    /// Says what the code may do that its owner may not.
    pub fn gains(&self) -> String {
        let owner = self.owner();
        match (self.is_superuser, self.gains.as_str()) {
            (true, _) if self.is_superuser_itself => "a superuser".to_owned(),
            (true, _) => "which may become a superuser".to_owned(),
            (false, "history") => "which may read and change the run history (schema pgtend)".to_owned(),
            (false, "elsewhere") => format!("which has rights in other databases that {owner} lacks"),
            (false, _) => format!("with rights that {owner} lacks"),
        }
    }
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, table, .. } = self;
        let (owner, runs_as, gains) = (self.owner(), identifier(&self.runs_as), self.gains());
        let name = self.name.as_deref().unwrap_or_default();
        match (kind.as_str(), &self.function) {
            ("TRIGGER" | "REFERENCES" | "CREATE", _) => {
                let may = match kind.as_str() {
                    "TRIGGER" => format!("add triggers to {table}"),
                    "REFERENCES" => format!("add foreign keys to {table}, with triggers of their own"),
                    _ if self.name.is_none() => format!("create schemas of the search_path in the database {table}"),
                    _ if table.is_empty() => format!("create objects in the schema {name}"),
                    _ => format!("create tables in the schema {name} of {table}"),
                };
                let who = if self.owner.is_none() { "everyone (PUBLIC)" } else { &owner };
                write!(f, "{who} may {may} (privilege {kind}): such code can run as {runs_as}, {gains}")
            }
            ("event trigger", Some(function)) => {
                write!(f, "event trigger {name} calls {function}, code of {owner}, which may run as {runs_as}, {gains}")
            }
            ("table", _) => write!(
                f,
                "{table} belongs to {owner}: code that {owner} adds to it or to its types and functions can run as {runs_as}, {gains}"
            ),
            ("schema", _) => write!(
                f,
                "the schema {name} of {table} belongs to {owner}, who can put another table in its place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("living", _) => write!(
                f,
                "the part uses {table}, which is there already and belongs to {owner}: code that {owner} puts into it can run as {runs_as}, {gains}"
            ),
            ("place", _) => write!(
                f,
                "the schema {name}, which the part goes into or names, belongs to {owner}, who can put other objects in the place of those there: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("path", _) if name.is_empty() => write!(
                f,
                "sessions for rows find names by a search_path that {owner} sets, the owner of the database {table}: code that {owner} puts where they look first can run as {runs_as}, {gains}; ALTER ROLE {runs_as} SET search_path comes before it"
            ),
            ("path", _) => write!(
                f,
                "sessions for rows find names in the schema {name} of the search_path, which belongs to {owner}: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("type", None) => write!(
                f,
                "a column of {table} has the type {name}, which belongs to {owner}: code that {owner} adds to it can run as {runs_as}, {gains}"
            ),
            ("server", _) => write!(
                f,
                "the rows of {table} come from the foreign server {name}, which belongs to {owner}: what {owner} sends can run as {runs_as}, {gains}"
            ),
            ("extension", _) => write!(
                f,
                "the schema of the extension {name} belongs to {owner}, who can put operators of other code in its place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("operators", _) => write!(
                f,
                "the schema {name} of operators that compare keys of {table} belongs to {owner}, who can put operators of other code in their place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            (_, function) => {
                write!(f, "{kind} ")?;
                if !name.is_empty() {
                    write!(f, "{name} ")?;
                }
                match function {
                    Some(function) => write!(f, "of {table} calls {function}, code of {owner}, ")?,
                    None => write!(f, "of {table} is code of {owner} ")?,
                }
                write!(f, "which may run as {runs_as}, {gains}")
            }
        }
    }
}
