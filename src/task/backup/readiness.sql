-- What a dump by this role needs of database and server.
WITH me AS (
    SELECT rolsuper, rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user
), rel AS (
    SELECT c.oid, c.relkind, c.relnamespace, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
), lo AS (
    SELECT l.oid FROM pg_catalog.pg_largeobject_metadata l
    WHERE NOT pg_catalog.current_setting('lo_compat_privileges')::boolean AND NOT (SELECT rolsuper FROM me)
      AND NOT pg_catalog.pg_has_role(l.lomowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(l.lomacl) a
                      WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
)
SELECT current_user::text AS role,
       (SELECT rolsuper OR rolcreatedb FROM me) AS may_create_databases,
       ARRAY(SELECT name FROM rel
             WHERE NOT (pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
                        AND CASE WHEN relkind = 'S' THEN pg_catalog.has_sequence_privilege(oid, 'SELECT')
                                 ELSE pg_catalog.has_table_privilege(oid, 'SELECT') END)
             ORDER BY 1) AS unreadable,
       ARRAY(SELECT name FROM rel WHERE relkind IN ('r', 'p') AND pg_catalog.row_security_active(oid) ORDER BY 1) AS row_security,
       (SELECT count(*) FROM lo) AS unreadable_large_objects,
       (SELECT min(oid)::bigint FROM lo) AS a_large_object,
       -- pg_dump holds a lock on each to its end.
       (SELECT count(*) FROM rel) AS locks_needed,
       pg_catalog.current_setting('max_locks_per_transaction')::bigint AS locks_per_transaction,
       -- As the server reckons: all processes that may hold locks, and prepared transactions (lock.c, NLOCKENTS).
       (SELECT sum(setting::bigint)::bigint + 1 FROM pg_catalog.pg_settings
        WHERE name IN ('max_connections', 'max_prepared_transactions', 'max_worker_processes', 'max_wal_senders')
           OR name = CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 180000
                          THEN 'autovacuum_worker_slots' ELSE 'autovacuum_max_workers' END) AS lock_holders,
       EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') AS has_pg_cron
