-- Tables whose rows sessions of ours read as pg_dump would; it reads the others itself. $1: schemas that are dumped (none: all); $2 and $3:
-- schemas and names of tables that are not; $4 and $5: of tables whose rows are not; all as regular expressions. $6: schemas of the login's own
-- search_path, for patterns without one. $7: only these tables; NULL: any. $8: bytes above which a table is large. $9: at most so many.
-- They follow ../calling.sql.
, eligible AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'heap'
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND ($7::bigint[] IS NULL OR c.oid::bigint = ANY ($7::bigint[]))
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
      AND NOT c.relrowsecurity
      -- Rows of an extension's table are dumped by conditions of its own.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
      AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '')
      -- Partitions by the hash of an enum are loaded by their root (getPartitioningInfo in pg_dump.c).
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a
                      JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid
                      JOIN pg_catalog.pg_opclass o ON o.oid = ANY (p.partclass)
                      JOIN pg_catalog.pg_am h ON h.oid = o.opcmethod
                      WHERE o.opcname = 'enum_ops' AND o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace AND h.amname = 'hash')
      -- What runs for each row, and calls a function of a user, may read other tables: pg_dump writes these rows later.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                      JOIN calling r ON r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND r.objid = k.oid
                      WHERE k.contype = 'c' AND k.conrelid = c.oid)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN calling_type t ON t.oid = a.atttypid
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a
                      JOIN calling r ON r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND r.objid = a.relid)
      AND (pg_catalog.cardinality($1::text[]) = 0
           OR EXISTS (SELECT FROM pg_catalog.unnest($1::text[]) AS s (schema) WHERE n.nspname ~ s.schema))
      AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::text[] || $4::text[]), pg_catalog.unnest($3::text[] || $5::text[])) AS x (schema, name)
                      WHERE c.relname ~ x.name
                        AND CASE WHEN x.schema IS NULL THEN n.nspname = ANY ($6::text[]) ELSE n.nspname ~ x.schema END)
), sized AS MATERIALIZED (
    -- NULL where it was dropped meanwhile.
    SELECT *, pg_catalog.pg_relation_size(oid) AS heap_bytes, pg_catalog.pg_table_size(oid) AS bytes FROM eligible
)
SELECT oid::bigint AS oid, nspname::text AS schema, relname::text AS name,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = sized.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
       -- quote_ident quotes what pg_dump quotes (fmtId): all sessions have quote_all_identifiers off (the contract).
       pg_catalog.format('%I.%I', nspname, relname) AS shown,
       (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = sized.oid AND a.attnum > 0 AND NOT a.attisdropped) AS shown_columns,
       heap_bytes / pg_catalog.current_setting('block_size')::bigint AS pages, bytes
FROM sized WHERE bytes > $8 ORDER BY bytes DESC, oid LIMIT $9
