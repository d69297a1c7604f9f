-- The needs of a dump by this role, of database and server. $1: schemas that are dumped (none: all); $2 and $3: schemas and names of
-- tables that are not; $4 and $5: of tables whose rows are not; all as regular expressions. $6: the dump takes large objects. $7: schemas of the
-- login's own search_path, for patterns without one.
WITH me AS (
    SELECT rolsuper, rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user
), rel AS (
    SELECT c.oid, c.relkind, c.relnamespace, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
           NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[])) AS x (schema, name)
                       WHERE c.relname ~ x.name
                         AND CASE WHEN x.schema IS NULL THEN n.nspname = ANY ($7::text[]) ELSE n.nspname ~ x.schema END) AS with_rows,
           e.objid IS NOT NULL AS of_extension
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend e ON e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e'
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
      -- With `schemas`, pg_dump leaves extensions out, and what belongs to them.
      AND (pg_catalog.cardinality($1::text[]) = 0
           OR e.objid IS NULL AND EXISTS (SELECT FROM pg_catalog.unnest($1::text[]) AS s (schema) WHERE n.nspname ~ s.schema))
      AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS x (schema, name)
                      WHERE c.relname ~ x.name
                        AND CASE WHEN x.schema IS NULL THEN n.nspname = ANY ($7::text[]) ELSE n.nspname ~ x.schema END)
), lo AS (
    SELECT l.oid, l.lomowner FROM pg_catalog.pg_largeobject_metadata l
    WHERE $6 AND NOT pg_catalog.current_setting('lo_compat_privileges')::boolean AND NOT (SELECT rolsuper FROM me)
      AND NOT pg_catalog.pg_has_role(l.lomowner, 'USAGE')
      -- Since 19 (commit d98197602).
      AND NOT (pg_catalog.current_setting('server_version_num')::integer >= 190000 AND pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
      AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(l.lomacl) a
                      WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
)
SELECT pg_catalog.quote_ident(current_user) AS role,
       pg_catalog.quote_ident(pg_catalog.current_database()) AS database,
       pg_catalog.current_setting('server_version_num')::integer AS version_num,
       ARRAY(SELECT name FROM rel
             WHERE NOT (pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
                        AND CASE WHEN relkind <> 'S' THEN pg_catalog.has_table_privilege(oid, 'SELECT')
                                 ELSE NOT with_rows OR pg_catalog.has_sequence_privilege(oid, 'SELECT') END)
             ORDER BY 1) AS unreadable,
       ARRAY(SELECT name FROM rel
             WHERE relkind = 'r' AND with_rows AND pg_catalog.row_security_active(oid)
               AND (NOT of_extension OR EXISTS (SELECT FROM pg_catalog.pg_extension WHERE rel.oid = ANY (extconfig)))
             ORDER BY 1) AS row_security,
       (SELECT count(*) FROM lo) AS unreadable_large_objects,
       (SELECT min(oid)::bigint FROM lo) AS a_large_object,
       ARRAY(SELECT DISTINCT pg_catalog.quote_ident(r.rolname) FROM lo JOIN pg_catalog.pg_roles r ON r.oid = lo.lomowner
             WHERE NOT r.rolsuper ORDER BY 1) AS large_object_owners,
       -- pg_dump holds a lock on each to its end.
       (SELECT count(*) FROM rel) AS locks_needed,
       pg_catalog.current_setting('max_locks_per_transaction')::bigint AS locks_per_transaction,
       -- As the server reckons: all processes that may hold locks, and prepared transactions (lock.c, NLOCKENTS).
       (SELECT sum(setting::bigint)::bigint + 1 FROM pg_catalog.pg_settings
        WHERE name IN ('max_connections', 'max_prepared_transactions', 'max_worker_processes', 'max_wal_senders')
           OR name = CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 180000
                          THEN 'autovacuum_worker_slots' ELSE 'autovacuum_max_workers' END) AS lock_holders,
       -- The numbers of the patterns in $1 that no schema has.
       ARRAY(SELECT s.number FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS s (schema, number)
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname ~ s.schema)) AS schemas_without_match,
       EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') AS has_pg_cron
