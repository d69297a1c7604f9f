-- A table, its vector column, and what bears on building an index. $1: oid, $2: the column.
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       -- As the planner does it: rows a block when it was last analyzed, times the blocks of now.
       CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::int) ELSE 0 END::float8 AS rows,
       pg_relation_size(c.oid) / current_setting('block_size')::int AS pages,
       pg_table_size(c.oid) AS bytes,
       t.typname::text AS type_name, tn.nspname::text AS type_schema, a.atttypmod AS dimensions, a.attnum,
       pg_has_role(c.relowner, 'USAGE') AS is_owner,
       has_schema_privilege(n.oid, 'CREATE') AS may_create,
       has_database_privilege(current_database(), 'TEMPORARY') AS may_copy,
       has_table_privilege(c.oid, 'SELECT') AS may_read,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       row_security_active(c.oid) AS row_security,
       c.relpersistence = 't' AS is_temporary,
       (SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid AND c.relkind <> 'p' ORDER BY 1 LIMIT 1) AS inherited_by,
       pg_size_bytes(current_setting('maintenance_work_mem'))::bigint AS maintenance_work_mem,
       current_setting('max_parallel_maintenance_workers')::int AS parallel_workers,
       current_setting('dynamic_shared_memory_type') AS shared_memory
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_namespace tn ON tn.oid = t.typnamespace
WHERE c.oid = $1::bigint::oid
