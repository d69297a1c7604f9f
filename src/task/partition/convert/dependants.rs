//! Objects that refer to a table by its oid, and would stay with it when another table takes its name.

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::table::TableName;

/// Lists the objects that cannot follow, each with what to do. Plain views that this role can recreate are not among them: see [`crate::task::remade`].
pub async fn that_cannot_follow(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "WITH reading AS (
             SELECT DISTINCT r.oid, r.rulename, r.ev_class, v.relkind, v.relowner, v.relnamespace
             FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND r.ev_class <> d.refobjid
         ), own AS (
             SELECT $1::bigint::oid AS oid UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::bigint::oid
         )
         SELECT format('materialized view %s reads it: drop it first', ev_class::regclass) FROM reading WHERE relkind = 'm'
         UNION ALL SELECT format('view %s reads it and must be recreated, which only its owner %I may do, with CREATE on its schema', ev_class::regclass, pg_get_userbyid(relowner))
             FROM reading WHERE relkind = 'v' AND rulename = '_RETURN'
               AND NOT (pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE'))
         UNION ALL SELECT format('rule %I on %s %s refers to it: drop it first, and recreate it afterwards', rulename,
                                 CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END, ev_class::regclass)
             FROM reading WHERE rulename <> '_RETURN'
         UNION ALL SELECT format('its rule %I cannot follow: drop it first', rulename) FROM pg_rewrite WHERE ev_class = $1::bigint::oid AND rulename <> '_RETURN'
         UNION ALL SELECT format('constraint trigger %I on %s names it: drop it first', tgname, tgrelid::regclass) FROM pg_trigger
             WHERE tgconstrrelid = $1::bigint::oid AND NOT tgisinternal
         UNION ALL SELECT format('subscription %I writes into it: remove it from the publication there, and ALTER SUBSCRIPTION %1$I REFRESH PUBLICATION first', s.subname)
             FROM pg_subscription_rel t JOIN pg_subscription s ON s.oid = t.srsubid WHERE t.srrelid = $1::bigint::oid
         UNION ALL SELECT DISTINCT format('it has a security label of %s, which would be lost: set it to NULL first', provider) FROM pg_seclabel
             WHERE classoid = 'pg_class'::regclass AND (objoid = $1::bigint::oid OR objoid IN (
                 -- Sequences of identity columns are recreated.
                 SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = $1::bigint::oid AND deptype = 'i'))
         UNION ALL SELECT DISTINCT format('%s depends on it by more than its name', pg_describe_object(classid, objid, 0)) FROM pg_depend
             WHERE deptype = 'n' AND (refclassid = 'pg_class'::regclass AND refobjid = $1::bigint::oid
                     AND (classid = 'pg_proc'::regclass
                          OR classid = 'pg_policy'::regclass AND objid IN (SELECT oid FROM pg_policy WHERE polrelid NOT IN (SELECT oid FROM own))
                          OR classid = 'pg_attrdef'::regclass AND objid IN (SELECT oid FROM pg_attrdef WHERE adrelid NOT IN (SELECT oid FROM own))
                          OR classid = 'pg_constraint'::regclass AND objid IN (SELECT oid FROM pg_constraint WHERE contype = 'c' AND conrelid NOT IN (SELECT oid FROM own)))
                 OR refclassid = 'pg_type'::regclass AND refobjid IN (SELECT reltype FROM pg_class WHERE oid = $1::bigint::oid
                       UNION SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid))
         ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}
