-- What runs for each row and may read other tables, as `calling`, and types that do, as `calling_type`. A statement about tables follows.
WITH RECURSIVE calls AS MATERIALIZED (
    -- Expressions and types that call a function of a user: neither PostgreSQL's own nor an IMMUTABLE one of an extension.
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend d
    WHERE d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
                        'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
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
)
