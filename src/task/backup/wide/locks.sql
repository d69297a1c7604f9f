-- Tables that the pg_dumps of a dump lock, as far as this role may lock them. $1: schemas that are dumped (none: all); $2 and $3: schemas and names of
-- tables that are not; as regular expressions. $4: schemas of the login's own search_path, for patterns without one. None where they are more than $5,
-- or take more than a quarter of the server's lock table: a dump has three sessions that lock all.
WITH found AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
      AND (pg_catalog.cardinality($1::text[]) = 0
           OR EXISTS (SELECT FROM pg_catalog.unnest($1::text[]) AS s (schema) WHERE n.nspname ~ s.schema))
      AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS x (schema, name)
                      WHERE c.relname ~ x.name
                        AND CASE WHEN x.schema IS NULL THEN n.nspname = ANY ($4::text[]) ELSE n.nspname ~ x.schema END)
)
SELECT nspname::text, relname::text FROM found
WHERE (SELECT count(*) FROM found) <= least($5,
    (SELECT sum(setting::bigint)::bigint + 1 FROM pg_catalog.pg_settings WHERE name IN ('max_connections', 'max_prepared_transactions'))
    * pg_catalog.current_setting('max_locks_per_transaction')::bigint / 4)
ORDER BY oid
