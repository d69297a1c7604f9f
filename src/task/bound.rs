//! What objects are bound to that are made again from their texts.
//!
//! The catalog has bound each name of a view, a default or a policy by its oid. A text that is read again is bound anew: a function that fits its arguments
//! better is called in the place of the one that was meant, and whoever may CREATE in that one's schema can make such a function: everybody in `public` before
//! PostgreSQL 15. And some texts do not say the schema of an operator (bound.sql). So what an object is bound to is read with its text, and compared in the transaction that makes it
//! again, which fails where anything differs.
//! A name may also mean another object by then: whoever owns the schema of a view may rename it at any time, and make another of its name, in which CREATE OR
//! REPLACE VIEW makes a view of the session's role, with whatever its default privileges give. So objects with a schema of their own are held where they were read, and
//! at the end all that was read must be there again: views as the same objects, of the same owners.
//! The comparison proves what is made; that reading a text runs nobody's code meanwhile is the affair of [`super::remade`].

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::failure::MOVED;
use crate::pg::schemas::hold_schemas;
use crate::pg::{self, literal};

const FOUND: &str = include_str!("bound.sql");

/// Objects of a relation that are made from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Those that read it.
    View,
    Trigger,
    Default,
    Policy,
    Statistics,
    Check,
    ForeignKey,
    Index,
}

impl Kind {
    /// Returns its name in bound.sql and remade.sql.
    fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Trigger => "trigger",
            Self::Default => "default",
            Self::Policy => "policy",
            Self::Statistics => "statistics",
            Self::Check => "check",
            Self::ForeignKey => "foreign key",
            Self::Index => "index",
        }
    }
}

/// Returns the elements of an SQL array of these kinds.
pub fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| literal(kind.name())).collect::<Vec<_>>().join(", ")
}

/// What objects of a relation were bound to when their texts were read.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    kinds: Vec<Kind>,
    same: Vec<i64>,
    /// The schemas of `same`: what takes the relation's place is in one of them.
    schemas: Vec<i64>,
    objects: Vec<Object>,
}

#[derive(Clone, Debug, sqlx::FromRow)]
struct Object {
    kind: String,
    name: String,
    /// Its own schema, where it has one: its oid.
    schema: Option<i64>,
    /// Which object it is.
    identity: String,
    bound: Vec<String>,
}

/// Reads what the objects of a relation are bound to. `same`: further relations that stand for it, as a partition does for its table.
pub async fn read(connection: &mut PgConnection, relation: i64, same: &[i64], kinds: &[Kind]) -> Result<Bound> {
    let same: Vec<i64> = [relation].iter().chain(same).copied().collect();
    let sql = format!(
        "WITH {} SELECT kind, name, schema::bigint AS schema, identity, bound FROM found",
        found(&format!("{relation}::pg_catalog.oid"), &oids(&same), kinds)
    );
    let objects = pg::fetch_all_as(connection, sql).await?;
    let schemas: Vec<(i64,)> = pg::fetch_all_as(
        connection,
        format!("SELECT DISTINCT c.relnamespace::bigint FROM pg_catalog.pg_class c WHERE c.oid IN ({})", oids(&same)),
    )
    .await?;
    Ok(Bound { kinds: kinds.to_vec(), objects, same, schemas: schemas.into_iter().map(|(oid,)| oid).collect() })
}

/// Returns whether the condition of a partial index, by its oid, says all operators by which it compares. Otherwise its text, in a search or in another index, means
/// other rows, and nothing compares it afterwards.
pub async fn names_its_operators(connection: &mut PgConnection, index: i64) -> Result<bool> {
    let sql = r"SELECT NOT EXISTS (
        SELECT FROM pg_catalog.pg_index i, LATERAL pg_catalog.regexp_matches(i.indpred::text,
            '[{](?:DISTINCTEXPR|NULLIFEXPR) :opno ([0-9]+)|[{]OPEXPR :opno ([0-9]+) [^{}]*[{](?:RELABELTYPE :arg [{])?CASETESTEXPR ', 'g') AS m(found)
        WHERE i.indexrelid = $1::bigint::pg_catalog.oid AND coalesce(m.found[1], m.found[2])::bigint >= 16384)";
    sqlx::query_scalar(sql).bind(index).fetch_one(connection).await.map_err(pg::in_its_own_words)
}

impl Bound {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Returns a statement that holds the names of the schemas of these objects until the transaction ends, where the session's role may, and fails where one
    /// of them is not where it was read any more, or is another object. It belongs behind the locks on them. None where none has a schema of its own.
    pub fn held(&self) -> Option<String> {
        let relation = self.same.first()?;
        let placed: Vec<&Object> = self.objects.iter().filter(|object| object.schema.is_some()).collect();
        let mut schemas: Vec<i64> = placed.iter().filter_map(|object| object.schema).collect();
        schemas.sort_unstable();
        schemas.dedup();
        if schemas.is_empty() {
            return None;
        }
        let kinds = self.kinds_with(&placed);
        let body = format!(
            "-- Holds the schemas of views and statistics, and fails if one of these is another object by now.
             DECLARE said text;
             BEGIN
             {hold}said := (WITH {found}, had (kind, name, identity, bound) AS (VALUES {had}) {GONE});
             {raise}END",
            hold = hold_schemas(&schemas),
            found = found(&format!("{relation}::pg_catalog.oid"), &oids(&self.same), &kinds),
            had = rows(&placed),
            raise = raise_gone(),
        );
        Some(format!("DO {}", literal(&body)))
    }

    /// Returns a statement that fails where one of these objects is not found on `made`, a relation as SQL names it, is another object there than the one that was
    /// read, or is bound to anything else than it was. It belongs at the end of the transaction that has made them. None where there were none.
    pub fn proof(&self, made: &str) -> Option<String> {
        self.proof_of(made, true)
    }

    /// Does the same where `made` gets some of the objects only.
    pub fn proof_of_some(&self, made: &str) -> Option<String> {
        self.proof_of(made, false)
    }

    fn kinds_with(&self, objects: &[&Object]) -> Vec<Kind> {
        self.kinds.iter().copied().filter(|kind| objects.iter().any(|object| object.kind == kind.name())).collect()
    }

    fn proof_of(&self, made: &str, all: bool) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let relation = format!("pg_catalog.to_regclass({})::pg_catalog.oid", literal(made));
        let objects: Vec<&Object> = self.objects.iter().collect();
        let kinds = self.kinds_with(&objects);
        let had = rows(&objects);
        let found = found(&relation, &format!("{}, {relation}", oids(&self.same)), &kinds);
        let are_all_there = match all {
            true => {
                format!("said := (WITH {found}, had (kind, name, identity, bound) AS (VALUES {had}) {GONE}); {}", raise_gone())
            }
            false => String::new(),
        };
        let body = format!(
            "-- Fails if an object was bound to anything else when it was made again from its text.
             DECLARE said text;
             BEGIN
             IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = {relation} AND c.relnamespace IN ({schemas})) THEN
                 RAISE EXCEPTION USING MESSAGE = {elsewhere}, ERRCODE = '{MOVED}'; END IF;
             {are_all_there}IF NOT EXISTS (
             WITH had (kind, name, identity, bound) AS (VALUES {had}), {found} SELECT FROM found n
             WHERE EXISTS (SELECT FROM had o WHERE o.kind = n.kind AND o.name = n.name)
               AND NOT EXISTS (SELECT FROM had o WHERE o.kind = n.kind AND o.name = n.name AND o.bound = n.bound)) THEN RETURN; END IF;
             said := (WITH had (kind, name, identity, bound) AS (VALUES {had}), {found},
             part AS (
                 SELECT DISTINCT n.name, x.is_new, p.word, pg_catalog.split_part(p.word, '/', 1)::pg_catalog.oid AS classid, pg_catalog.split_part(p.word, '/', 2)::pg_catalog.oid AS objid
                 FROM found n JOIN LATERAL (SELECT h.bound FROM had h WHERE h.kind = n.kind AND h.name = n.name ORDER BY h.bound LIMIT 1) h ON true,
                 LATERAL (SELECT true AS is_new, pg_catalog.unnest(n.bound) AS word UNION ALL SELECT false, pg_catalog.unnest(h.bound)) x,
                 LATERAL (SELECT x.word WHERE x.word <> ALL (CASE WHEN x.is_new THEN h.bound ELSE n.bound END)) p
                 WHERE NOT EXISTS (SELECT FROM had o WHERE o.kind = n.kind AND o.name = n.name AND o.bound = n.bound)
             ), named AS (
                 -- The bootstrap superuser owns what pg_shdepend has no owner of.
                 SELECT p.name, p.is_new, pg_catalog.string_agg(pg_catalog.format('%s of %I', coalesce(pg_catalog.pg_describe_object(p.classid, p.objid, 0), p.word), o.owner), ', ' ORDER BY p.word) AS parts
                 FROM part p, LATERAL (SELECT pg_catalog.pg_get_userbyid(coalesce((
                     SELECT s.refobjid FROM pg_catalog.pg_shdepend s WHERE s.classid = p.classid AND s.objid = p.objid AND s.deptype = 'o'
                       AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())), 10::pg_catalog.oid)) AS owner) o
                 GROUP BY 1, 2
             ) SELECT pg_catalog.string_agg(CASE WHEN lost.name IS NULL AND new.name IS NULL THEN
                       pg_catalog.format('%s would use what it uses in other places of its text when it is made again from it', n.name)
                   ELSE pg_catalog.format('%s uses %s, and made again from its text it would use %s',
                       n.name, coalesce(lost.parts, 'nothing else'), coalesce(new.parts, 'nothing in its place')) END, '; ' ORDER BY n.name)
                   || CASE WHEN EXISTS (SELECT FROM part p WHERE p.is_new AND p.objid >= 16384::pg_catalog.oid) THEN {remedy} ELSE {ambiguous} END
               FROM (SELECT DISTINCT n.name FROM found n WHERE EXISTS (SELECT FROM had o WHERE o.kind = n.kind AND o.name = n.name)
                     AND NOT EXISTS (SELECT FROM had o WHERE o.kind = n.kind AND o.name = n.name AND o.bound = n.bound)) n
               LEFT JOIN named lost ON lost.name = n.name AND NOT lost.is_new LEFT JOIN named new ON new.name = n.name AND new.is_new);
             RAISE EXCEPTION USING MESSAGE = said, ERRCODE = 'insufficient_privilege'; END",
            schemas = oids(&self.schemas),
            elsewhere = literal(&format!("{made} is in another schema than before, {CHANGED}")),
            remedy = literal(REMEDY),
            ambiguous = literal(AMBIGUOUS),
        );
        Some(format!("DO {}", literal(&body)))
    }

    /// Adds to an error of making these objects the functions and operators of other roles that have the names of those that they use: one that fits as well
    /// makes a name ambiguous, and one that fits better may return another type.
    pub async fn explained(&self, connection: &mut PgConnection, error: anyhow::Error) -> anyhow::Error {
        let is_of_a_name = pg::sql_state(&error).is_some_and(|state| state.starts_with("42") && state != "42501");
        if !is_of_a_name {
            return error;
        }
        let words: Vec<&str> = self.objects.iter().flat_map(|object| object.bound.iter().map(String::as_str)).collect();
        let beside: Result<Option<String>, sqlx::Error> = sqlx::query_scalar(BESIDE).bind(words).fetch_one(connection).await;
        match beside {
            Ok(Some(beside)) => error.context(format!(
                "beside what an object of the table uses there is {beside}, and its text could mean either: let its owner drop that, or REVOKE CREATE on its schema and drop it"
            )),
            _ => error,
        }
    }
}

impl Object {
    fn row(&self) -> String {
        let words: Vec<String> = self.bound.iter().map(|word| literal(word)).collect();
        format!(
            "({}, {}, {}, ARRAY[{}]::pg_catalog.text[])",
            literal(&self.kind),
            literal(&self.name),
            literal(&self.identity),
            words.join(", ")
        )
    }
}

/// Returns the rows of `had` in SQL.
fn rows(objects: &[&Object]) -> String {
    objects.iter().map(|object| object.row()).collect::<Vec<_>>().join(", ")
}

/// SQL after `had` and `found`: those that are missing, or others than they were. NULL where there are none.
const GONE: &str = "SELECT pg_catalog.string_agg(h.name, ', ' ORDER BY h.name) FROM had h
    WHERE NOT EXISTS (SELECT FROM found n WHERE n.kind = h.kind AND n.name = h.name AND n.identity = h.identity)";

const CHANGED: &str = "as another session has changed something while this one worked: nothing was done; run the command again";

fn raise_gone() -> String {
    let why = format!(
        " is not what it was any more: it was renamed, moved, dropped or given to another role, or its schema was renamed, {CHANGED}"
    );
    format!("IF said IS NOT NULL THEN RAISE EXCEPTION USING MESSAGE = said || {}, ERRCODE = '{MOVED}'; END IF; ", literal(&why))
}

const REMEDY: &str = ": nothing was done. Drop what it would use, or move it to another schema, and REVOKE CREATE on its schema from those who may \
    put code there (before PostgreSQL 15 everybody may in public); then run it again";
/// Where it would use nothing new but what is PostgreSQL's own.
const AMBIGUOUS: &str = ": nothing was done. Drop that object, and create it again afterwards: its text alone does not say what it means \
    (IS DISTINCT FROM, NULLIF, CASE x WHEN and JOIN USING do not name the schema of their operator)";

/// Functions and operators of other roles, beside those of $1 (words of bound.sql), of the same name in the same schema.
const BESIDE: &str = "SELECT pg_catalog.string_agg(DISTINCT b.what, ', ') FROM (
        SELECT pg_catalog.format('function %s of %I', p.oid::pg_catalog.regprocedure, pg_catalog.pg_get_userbyid(p.proowner)) AS what
        FROM pg_catalog.pg_proc h JOIN pg_catalog.pg_proc p ON p.proname = h.proname AND p.pronamespace = h.pronamespace AND p.oid <> h.oid AND p.proowner <> h.proowner
        WHERE pg_catalog.format('%s/%s', 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, h.oid) = ANY ($1)
        UNION ALL
        SELECT pg_catalog.format('operator %s of %I', p.oid::pg_catalog.regoperator, pg_catalog.pg_get_userbyid(p.oprowner))
        FROM pg_catalog.pg_operator h JOIN pg_catalog.pg_operator p ON p.oprname = h.oprname AND p.oprnamespace = h.oprnamespace AND p.oid <> h.oid AND p.oprowner <> h.oprowner
        WHERE pg_catalog.format('%s/%s', 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid, h.oid) = ANY ($1)) b";

/// `relation` and `same` are SQL.
fn found(relation: &str, same: &str, kinds: &[Kind]) -> String {
    let text = &FOUND[FOUND.find("same AS").unwrap_or(0)..];
    text.replace("{relation}", relation).replace("{same}", same).replace("{kinds}", &names(kinds))
}

fn oids(relations: &[i64]) -> String {
    relations.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}
