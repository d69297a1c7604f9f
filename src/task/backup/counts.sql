-- The tables of a manifest as they are here; $1 schemas, $2 names.
SELECT w.number, c.oid::pg_catalog.int8 AS oid,
       EXISTS (SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e') AS of_extension,
       coalesce(NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.row_security_active(c.oid), false) AS unreadable,
       coalesce((SELECT pg_catalog.array_agg(a.relid::pg_catalog.oid::pg_catalog.int8 ORDER BY a.number DESC)
                 FROM ROWS FROM (pg_catalog.pg_partition_ancestors(c.oid)) WITH ORDINALITY a(relid, number)), '{}') AS ancestors
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY w(schema, name, number)
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
ORDER BY w.number
