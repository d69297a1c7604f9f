-- Tables whose rows sessions of ours read as pg_dump would; it reads the others itself. $1: schemas that are dumped (none: all); $2 and $3:
-- schemas and names of tables that are not; $4 and $5: of tables whose rows are not; all as regular expressions. $6: schemas of the login's own
-- search_path, for patterns without one. $7: only these tables; NULL: any. $8: bytes above which a table is large. $9: at most so many.
WITH RECURSIVE calls AS MATERIALIZED (
    -- Constraints, types and partition keys that call a function of a user: neither PostgreSQL's own nor an IMMUTABLE one of an extension.
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend d
    WHERE d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
      AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
      AND NOT (EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
               -- What a type's own functions are declared as does not matter: they are in C.
               AND (d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass OR d.refclassid = 'pg_catalog.pg_opclass'::pg_catalog.regclass
                    OR 'i' = (SELECT p.provolatile FROM pg_catalog.pg_proc p
                              WHERE p.oid = CASE d.refclassid WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN d.refobjid
                                                 ELSE (SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid = d.refobjid) END)))
    -- Functions of PostgreSQL that read tables, sequences or large objects (ts_rewrite, query_to_xml, pg_sequence_last_value, lo_get): pg_depend does not
    -- have them, and the stored expressions do. Most are VOLATILE.
    UNION
    SELECT x.classid, x.objid FROM (
        SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, oid, conbin::pg_catalog.text FROM pg_catalog.pg_constraint
        WHERE conbin IS NOT NULL AND oid >= 16384
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, partrelid, partexprs::pg_catalog.text FROM pg_catalog.pg_partitioned_table
        WHERE partexprs IS NOT NULL
    ) x (classid, objid, expression)
    WHERE EXISTS (SELECT FROM pg_catalog.regexp_matches(x.expression, ':(?:op)?funcid ([0-9]+)', 'g') f (ids)
                  JOIN pg_catalog.pg_proc p ON p.oid = f.ids[1]::pg_catalog.oid
                  WHERE p.oid < 16384 AND (p.proname ~ '_to_xml(schema|_and_xmlschema)?$'
                                           OR p.provolatile = 'v' AND p.proname NOT IN ('clock_timestamp', 'gen_random_uuid', 'pg_sleep', 'random', 'timeofday')))
), part_of (part, type) AS (
    -- A value of the type has one of the part, or is checked with one.
    SELECT t.typbasetype, t.oid FROM pg_catalog.pg_type t WHERE t.typbasetype <> 0
    UNION ALL SELECT t.typelem, t.oid FROM pg_catalog.pg_type t WHERE t.typelem <> 0
    UNION ALL SELECT a.atttypid, c.reltype FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
              WHERE c.reltype <> 0 AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT r.rngsubtype, r.rngtypid FROM pg_catalog.pg_range r
    UNION ALL SELECT r.rngtypid, r.rngmultitypid FROM pg_catalog.pg_range r
    UNION ALL SELECT d.refobjid, k.contypid FROM pg_catalog.pg_constraint k
              JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
               AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
              WHERE k.contypid <> 0
), calling_type (oid) AS (
    SELECT coalesce(k.contypid, r.objid)
    FROM calls r LEFT JOIN pg_catalog.pg_constraint k ON r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = r.objid
    WHERE r.classid = 'pg_catalog.pg_type'::pg_catalog.regclass OR k.contypid <> 0
    UNION
    SELECT p.type FROM calling_type c JOIN part_of p ON p.part = c.oid
), calling AS MATERIALIZED (
    -- The constraints and partition keys among them, also through a type that they cast to.
    SELECT classid, objid FROM calls
    UNION
    SELECT d.classid, d.objid FROM calling_type t
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = t.oid AND d.objsubid = 0
     AND d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
), eligible AS MATERIALIZED (
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
