-- The collations that each index depends on: (index, collation, is_certain). 0 stands for any: what is not PostgreSQL's own may compare as it likes.
-- A partition key is among them, with the oid of its table in the place of the index. `in_ranges`: tables that a collation divides.
-- `own_version` is what the library has for the database's own collation.
-- Objects below 12000 are pinned: PostgreSQL's own (FirstUnpinnedObjectId). The walk through types ends since UNION keeps each pair once.
WITH RECURSIVE own_version AS (
    -- 15 tells it by a function of its own, which 14 lacks: so it stands in a text. 14 records no version.
    SELECT CASE WHEN to_jsonb(d) ->> 'datcollversion' IS NULL THEN NULL WHEN current_setting('server_version_num')::int >= 160000 THEN pg_collation_actual_version(100)
                ELSE substring(query_to_xml(format('SELECT pg_catalog.pg_database_collation_actual_version(%s) AS v', d.oid), false, false, '')::text FROM '<v>(.*)</v>') END AS actual
    FROM pg_database d WHERE d.datname = current_database()
), own AS (
    SELECT i.indexrelid AS index, i.indrelid, i.indkey, i.indclass, i.indcollation, i.indnkeyatts, i.indexprs, i.indpred, m.amname
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am m ON m.oid = x.relam
    WHERE x.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
    UNION ALL
    SELECT p.partrelid, p.partrelid, p.partattrs, p.partclass, p.partcollation, p.partnatts, p.partexprs, NULL, 'partition key' FROM pg_partitioned_table p
), extended AS (
    -- Extensions whose types and operator classes use no collation but that of the column.
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname IN ('btree_gin', 'btree_gist', 'cube', 'hstore', 'intarray', 'isn', 'postgis', 'seg', 'vector')
), key_columns AS (
    SELECT o.index, o.indrelid, o.amname, k.attnum, k.class FROM own o CROSS JOIN LATERAL unnest((o.indkey::int2[])[0:o.indnkeyatts - 1], o.indclass::oid[]) k(attnum, class)
), depends AS (
    SELECT o.index, d.refclassid, d.refobjid, d.refobjsubid FROM own o JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = o.index AND d.objsubid = 0
    WHERE o.indexprs IS NOT NULL OR o.indpred IS NOT NULL
    UNION
    -- A whole row is in no dependency.
    SELECT o.index, 'pg_class'::regclass, o.indrelid, 0 FROM own o WHERE concat(o.indexprs::text, o.indpred::text) LIKE '%:varattno 0 %'
), used_columns AS (
    SELECT d.index, a.atttypid, a.attcollation FROM depends d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum > 0 AND d.refobjsubid IN (a.attnum, 0) AND NOT a.attisdropped WHERE d.refclassid = 'pg_class'::regclass
), key_types AS (
    -- GIN and hash compare strings of jsonb by their bytes; its B-tree does so in the order of the database.
    SELECT k.index, a.atttypid AS type, true AS is_certain FROM key_columns k JOIN pg_attribute a ON a.attrelid = k.indrelid AND a.attnum = k.attnum
    WHERE NOT (a.atttypid = 'jsonb'::regtype AND k.amname IN ('gin', 'hash') AND k.class < 12000)
    UNION
    SELECT o.index, a.atttypid, true FROM own o JOIN pg_attribute a ON a.attrelid = o.index AND a.attnum BETWEEN 1 AND o.indnkeyatts AND (o.indkey::int2[])[a.attnum - 1] = 0
    UNION
    -- What expressions and conditions compare.
    SELECT u.index, u.atttypid, false FROM used_columns u
    UNION
    SELECT d.index, d.refobjid, false FROM depends d WHERE d.refclassid = 'pg_type'::regclass
), walked AS (
    SELECT DISTINCT k.type AS root, k.type FROM key_types k
    UNION
    SELECT w.root, inner_type.type FROM walked w JOIN (
        SELECT t.oid AS outer_type, t.typbasetype AS type FROM pg_type t WHERE t.typtype = 'd'
        UNION ALL SELECT t.oid, t.typelem FROM pg_type t WHERE t.typelem <> 0
        UNION ALL SELECT t.oid, a.atttypid FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped WHERE t.typtype = 'c'
        UNION ALL SELECT r.rngtypid, r.rngsubtype FROM pg_range r
        UNION ALL SELECT r.rngmultitypid, r.rngtypid FROM pg_range r
    ) inner_type ON inner_type.outer_type = w.type
), of_types AS (
    SELECT w.root, a.attcollation AS collation, true AS is_certain FROM walked w JOIN pg_type t ON t.oid = w.type AND t.typtype = 'c' JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.attcollation <> 0
    UNION
    SELECT w.root, r.rngcollation, true FROM walked w JOIN pg_range r ON r.rngtypid = w.type AND r.rngcollation <> 0
    UNION
    -- A value that was cast to a domain has its collation.
    SELECT w.root, t.typcollation, false FROM walked w JOIN pg_type t ON t.oid = w.type AND t.typtype = 'd' AND t.typcollation NOT IN (0, 100)
    UNION
    SELECT w.root, 100, true FROM walked w WHERE w.type = 'jsonb'::regtype
    UNION
    SELECT w.root, 0, false FROM walked w JOIN pg_range r ON r.rngtypid = w.type AND r.rngsubopc >= 12000
    UNION
    SELECT w.root, 0, false FROM walked w JOIN pg_type t ON t.oid = w.type AND t.typtype = 'b' AND t.oid >= 12000
    WHERE NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)
), collated AS MATERIALIZED (
    SELECT c.index, c.collation, bool_or(c.is_certain) AS is_certain FROM (
        SELECT o.index, unnest(o.indcollation::oid[]) AS collation, true AS is_certain FROM own o
        UNION ALL
        SELECT k.index, t.collation, k.is_certain AND t.is_certain FROM key_types k JOIN of_types t ON t.root = k.type
        UNION ALL
        SELECT d.index, d.refobjid, true FROM depends d WHERE d.refclassid = 'pg_collation'::regclass
        UNION ALL
        -- PostgreSQL's own collations are in no dependency, nor are those by which rows are compared column by column (`inputcollids`).
        -- Other fields, such as `varcollid`, are what a value has: rows and arrays of such values are compared by it.
        SELECT o.index, one::oid, m[1] LIKE 'inputcollid%' FROM own o CROSS JOIN LATERAL regexp_matches(concat(o.indexprs::text, o.indpred::text), ':(\w*coll\w*) (?:\(o )?(\d[\d ]*)', 'g') m
        CROSS JOIN LATERAL regexp_split_to_table(rtrim(m[2]), ' +') one WHERE one <> '0'
        UNION ALL
        SELECT u.index, u.attcollation, false FROM used_columns u WHERE u.attcollation <> 0
        UNION ALL
        -- Functions such as to_tsvector use the order of the database, whatever their arguments have.
        SELECT o.index, 100, false FROM own o WHERE o.indexprs IS NOT NULL OR o.indpred IS NOT NULL
        UNION ALL
        SELECT d.index, 0, false FROM depends d WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = d.refclassid AND e.objid = d.refobjid)
        UNION ALL
        SELECT k.index, 0, false FROM key_columns k WHERE k.class >= 12000 AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_opclass'::regclass AND e.objid = k.class)
    ) c WHERE c.collation <> 0 OR NOT c.is_certain
    GROUP BY c.index, c.collation
), in_ranges AS (
    -- Whose rows may be in a wrong partition now: those of ranges; and where values that were equal no longer are, all.
    SELECT c.collation, string_agg(format('%I.%I', n.nspname, t.relname), ', ' ORDER BY n.nspname, t.relname) AS tables
    FROM collated c JOIN pg_partitioned_table p ON p.partrelid = c.index JOIN pg_class t ON t.oid = p.partrelid JOIN pg_namespace n ON n.oid = t.relnamespace LEFT JOIN pg_collation o ON o.oid = c.collation
    WHERE c.is_certain AND (p.partstrat = 'r' OR NOT o.collisdeterministic) GROUP BY c.collation
)
