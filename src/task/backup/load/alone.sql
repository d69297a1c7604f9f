-- Tables whose rows one session takes while no other does anything, by their oids. Their rows run code that is not PostgreSQL's own, which could read another
-- table: in checks, in domains, in generated columns, in keys of partitions. Or they have what a dump makes only after all rows, since an extension
-- made it: triggers (foreign keys, too) and indexes.
WITH RECURSIVE code AS (
    -- Expressions that call a function or an operator of a user or an extension.
    SELECT DISTINCT d.classid, d.objid
    FROM pg_catalog.pg_depend d
    WHERE d.refobjid >= 16384
      AND d.classid IN ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
      AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
), holds AS (
    -- A type, and one that is in it or in its checks.
    SELECT t.oid AS outside, t.typbasetype AS inside FROM pg_catalog.pg_type t WHERE t.typbasetype >= 16384
    UNION ALL SELECT t.oid, t.typelem FROM pg_catalog.pg_type t WHERE t.typelem >= 16384
    UNION ALL SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngsubtype >= 16384
    UNION ALL SELECT r.rngmultitypid, r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngtypid >= 16384
    UNION ALL SELECT c.reltype, a.atttypid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    WHERE c.reltype >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
    UNION ALL SELECT k.contypid, d.refobjid FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
    WHERE k.contypid >= 16384 AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid >= 16384
), types AS (
    SELECT x.oid FROM (
        SELECT k.contypid AS oid FROM pg_catalog.pg_constraint k
        JOIN code c ON c.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.objid = k.oid WHERE k.contypid <> 0
        UNION SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngcanonical >= 16384
    ) x
    UNION SELECT h.outside FROM types t JOIN holds h ON h.inside = t.oid
), expressions AS (
    SELECT c.classid, c.objid FROM code c
    UNION SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN types t ON t.oid = d.refobjid
    WHERE d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
), tables AS (
    SELECT c.oid FROM pg_catalog.pg_class c
    WHERE c.oid >= 16384 AND c.relkind IN ('v', 'f') OR c.oid >= 16384 AND c.relkind IN ('r', 'p') AND (c.relhastriggers OR c.relhasindex OR c.relrowsecurity)
    UNION SELECT d.objid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
    UNION SELECT e.objid FROM expressions e WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION SELECT k.conrelid FROM pg_catalog.pg_constraint k
    JOIN expressions e ON e.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND e.objid = k.oid
    UNION SELECT f.adrelid FROM pg_catalog.pg_attrdef f
    JOIN expressions e ON e.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.objid = f.oid
    -- A dump's COPY names all columns that are not generated: their defaults are not computed.
    JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
    UNION SELECT a.attrelid FROM pg_catalog.pg_attribute a JOIN types t ON t.oid = a.atttypid WHERE a.attnum > 0 AND NOT a.attisdropped
), trees AS (
    -- Rows that come to the root of a tree of partitions go down to others, and a partition asks for the keys of those above it.
    SELECT pg_catalog.pg_partition_root(c.oid::pg_catalog.regclass)::pg_catalog.oid AS oid
    FROM tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid WHERE c.relispartition OR c.relkind = 'p'
    -- pg_partition_tree would lock all of them.
    UNION SELECT i.inhrelid FROM trees r JOIN pg_catalog.pg_inherits i ON i.inhparent = r.oid
)
SELECT t.oid::pg_catalog.int8 FROM tables t WHERE t.oid <> 0 UNION SELECT r.oid::pg_catalog.int8 FROM trees r
