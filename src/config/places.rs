//! Places: what runs, locks, rows of the ledger and sets are named after. A place is a database, or one schema of it: DATABASE:SCHEMA. As with SERVER.DATABASE, the
//! name says all that is needed; a list is only needed to know which there are.

use std::borrow::Cow;

use super::{Config, Database, servers};

/// The runs at once on all schemas of a database that has no `max_concurrent`.
const AT_ONCE: u32 = 1;

/// How many runs there may be at once, and with what they share that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: u32,
    pub with: Shared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// All databases of a group: of a server, or those whose entries say so.
    Group(String),
    /// The runs on this database, and on its schemas.
    Database(String),
}

impl Config {
    /// Returns a database by its name ([`Config::database`]), or the database of a schema by DATABASE:SCHEMA, with that schema. Whether the database has it
    /// shows when one connects.
    pub fn place(&self, name: &str) -> Option<Cow<'_, Database>> {
        if let Some(database) = self.database(name) {
            return Some(database);
        }
        let (database, schema) = parts(name)?;
        Some(Cow::Owned(Database { schema: Some(schema), ..self.database(database)?.into_owned() }))
    }

    /// Returns the name of a place's database.
    pub fn database_of<'n>(&self, place: &'n str) -> &'n str {
        match parts(place) {
            Some((database, _)) if self.database(place).is_none() => database,
            _ => place,
        }
    }

    /// Returns how many runs there may be at once on a place. Without `max_concurrent`, the schemas of a database are taken one after another: hundreds of
    /// them are due in one moment.
    pub fn limit(&self, place: &str) -> Option<Limit> {
        let configured = self.place(place)?;
        let database = self.database_of(place);
        match (configured.max_concurrent, &configured.group) {
            (Some(most), Some(group)) => Some(Limit { most, with: Shared::Group(group.clone()) }),
            (Some(most), None) => Some(Limit { most, with: Shared::Database(database.to_owned()) }),
            (None, _) if configured.schema.is_some() => {
                Some(Limit { most: AT_ONCE, with: Shared::Group(format!("schemas of database {database}")) })
            }
            (None, _) => None,
        }
    }
}

/// Returns the name of a schema as a place. Its own name is written as that of a found database is ([`servers::name_of`]).
pub fn name_of(database: &str, schema: &str) -> String {
    format!("{database}:{}", servers::encode(schema))
}

/// Returns the database and the schema's own name. A name in another spelling than that of [`name_of`] is none.
pub fn parts(name: &str) -> Option<(&str, String)> {
    let (database, encoded) = name.rsplit_once(':')?;
    let schema = servers::decode(encoded)?;
    (!database.is_empty()).then_some((database, schema))
}

/// Returns whether a schema is the system's, and no tenant's.
pub fn is_of_the_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
[databases.app]
url = \"postgres://me@db1/app\"
[databases.busy]
url = \"postgres://me@db1/busy\"
max_concurrent = 3
[databases.grouped]
url = \"postgres://me@db1/grouped\"
max_concurrent = 4
group = \"db1\"
[databases.\"odd:name\"]
url = \"postgres://me@db1/odd\"
[servers.main]
url = \"postgres://me@db2\"
[ledger]
database = \"app\"
";

    #[test]
    fn the_name_of_a_schema_leads_back_to_it_whatever_it_is_called() {
        for (database, schema, name) in [
            ("app", "tenant_7", "app:tenant_7"),
            ("main.shop", "tenant_7", "main.shop:tenant_7"),
            ("app", "a/b", "app:a.2Fb"),
            ("app", "a.2Fb", "app:a.2E2Fb"),
            ("app", "a:b", "app:a.3Ab"),
            ("app", "..", "app:.2E.2E"),
            ("app", "T\"x*?.$\n", "app:T.22x.2A.3F.2E.24.0A"),
            ("app", "ü", "app:.C3.BC"),
            ("odd:name", "x", "odd:name:x"),
        ] {
            assert_eq!(name_of(database, schema), name);
            assert_eq!(parts(name), Some((database, schema.to_owned())), "{name}");
        }
        for none in ["app", "app:", ":x", "app:a/b", "app:.2f", "app:.61", "app:.FF", "app:ü", "app:a b"] {
            assert_eq!(parts(none), None, "{none}");
        }
    }

    #[test]
    fn a_place_is_a_database_or_one_schema_of_it() {
        let config = Config::for_tests(CONFIG);
        let schema = |name: &str| config.place(name).map(|place| place.schema.clone());
        assert_eq!(schema("app"), Some(None));
        assert_eq!(schema("app:tenant_7"), Some(Some("tenant_7".to_owned())));
        assert_eq!(schema("main.shop:a.2Fb"), Some(Some("a/b".to_owned())));
        assert_eq!(schema("odd:name"), Some(None), "an entry of that name is no schema of another");
        assert_eq!(schema("odd:name:x"), Some(Some("x".to_owned())));
        for none in ["nobody:x", "app:x:y", "app:", "main.shop/a:x"] {
            assert_eq!(schema(none), None, "{none}");
        }
        let of_server = config.place("main.shop:tenant_7").unwrap().settings().unwrap();
        assert_eq!((of_server.server().as_str(), of_server.database()), ("db2:5432", "shop"));
        for (place, database) in
            [("app", "app"), ("app:x", "app"), ("odd:name", "odd:name"), ("odd:name:x", "odd:name"), ("main.a:b", "main.a")]
        {
            assert_eq!(config.database_of(place), database);
        }
    }

    #[test]
    fn the_schemas_of_a_database_share_its_limit_and_without_one_are_taken_one_after_another() {
        let config = Config::for_tests(CONFIG);
        let group = |name: &str| Shared::Group(name.to_owned());
        for (place, limit) in [
            ("app", None),
            ("app:a", Some((1, group("schemas of database app")))),
            ("busy", Some((3, Shared::Database("busy".to_owned())))),
            ("busy:a", Some((3, Shared::Database("busy".to_owned())))),
            ("grouped:a", Some((4, group("db1")))),
            ("main.shop:a", Some((2, group("server main")))),
            ("nobody:a", None),
        ] {
            assert_eq!(config.limit(place).map(|Limit { most, with }| (most, with)), limit, "{place}");
        }
    }
}
