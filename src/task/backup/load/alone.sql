-- Tables whose rows one session takes while no other does anything, by their oids. Their rows run code that may read another table: a function of a user, in
-- checks, in types, in generated columns, in keys of partitions (they follow ../calling.sql). Or they have what a dump makes only after all
-- rows, since an extension made it: triggers (foreign keys, too) and indexes.
, alone AS MATERIALIZED (
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
