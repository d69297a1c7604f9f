-- Tables whose rows one session takes while no other does anything, by their oids. Their rows run code that may read another table: a function of a user, in
-- checks, in types, in generated columns, in keys of partitions (wide/tables.sql asks the same of a source). Or they have what a dump makes only after all
-- rows, since an extension made it: triggers (foreign keys, too) and indexes.
WITH RECURSIVE calls AS MATERIALIZED (
    -- Expressions and types that call a function of a user: neither PostgreSQL's own nor an IMMUTABLE one of an extension.
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend d
    WHERE d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
                        'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
      AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
      AND NOT (EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
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
        UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid, adbin::pg_catalog.text FROM pg_catalog.pg_attrdef WHERE oid >= 16384
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
    -- The expressions among them, also through a type that they cast to.
    SELECT classid, objid FROM calls
    UNION
    SELECT d.classid, d.objid FROM calling_type t
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = t.oid AND d.objsubid = 0
     AND d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
), alone AS MATERIALIZED (
    SELECT c.oid FROM pg_catalog.pg_class c
    WHERE c.oid >= 16384 AND (c.relkind IN ('v', 'f') OR c.relkind IN ('r', 'p') AND (c.relhastriggers OR c.relhasindex OR c.relrowsecurity))
    UNION SELECT d.objid FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
    -- Keys of partitions.
    UNION SELECT r.objid FROM calling r WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION SELECT k.conrelid FROM pg_catalog.pg_constraint k
    JOIN calling r ON r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND r.objid = k.oid WHERE k.conrelid <> 0
    UNION SELECT f.adrelid FROM pg_catalog.pg_attrdef f
    JOIN calling r ON r.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND r.objid = f.oid
    -- A dump's COPY names all columns that are not generated: their defaults are not computed.
    JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
    UNION SELECT a.attrelid FROM pg_catalog.pg_attribute a JOIN calling_type t ON t.oid = a.atttypid WHERE a.attnum > 0 AND NOT a.attisdropped
), trees (oid) AS (
    -- Rows that come to the root of a tree of partitions go down to others, and a partition asks for the keys of those above it.
    SELECT pg_catalog.pg_partition_root(c.oid::pg_catalog.regclass)::pg_catalog.oid
    FROM alone a JOIN pg_catalog.pg_class c ON c.oid = a.oid WHERE c.relkind IN ('r', 'p', 'f') AND (c.relispartition OR c.relkind = 'p')
    -- pg_partition_tree would lock all of them.
    UNION SELECT i.inhrelid FROM trees r JOIN pg_catalog.pg_inherits i ON i.inhparent = r.oid
)
SELECT oid::pg_catalog.int8 FROM alone UNION SELECT oid::pg_catalog.int8 FROM trees
