-- The end is the limit of the sequence or of the column that it fills, whichever comes first. A sequence that cycles has none.
-- Reading a sequence locks it until the end of the transaction: of very many, each transaction reads a part. One that has all of bigint is not read: at a million numbers a second it
-- lasts for 200,000 years.
WITH filled AS MATERIALIZED (
    -- The column that owns a sequence, or whose default takes its numbers; once for all of them: a subquery for each reads all columns each time (minutes for 5,000 tables).
    SELECT DISTINCT ON (d.sequence) d.sequence, x.*
    FROM (
        SELECT objid AS sequence, refobjid AS oid, refobjsubid AS attnum FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        UNION ALL
        SELECT d.refobjid, f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
    ) d JOIN columns x ON d.sequence::bigint % OF_PARTS = THIS_PART AND x.oid = d.oid AND x.attnum = d.attnum
    ORDER BY d.sequence, x.type
)
SELECT s.sequence AS object, s.sequence AS identity,
       format('%s has used %s of %s numbers%s: after the last one every INSERT fails.', s.sequence, s.last, s.ends, CASE WHEN s.column_name IS NOT NULL THEN format(' (column %s is %s)', s.column_name, s.column_type) ELSE '' END) AS issue,
       jsonb_build_object('last', s.last, 'end', s.ends, 'percent', round(100 * s.last::numeric / s.ends, 1)) AS evidence,
       CASE WHEN NOT s.readable THEN format('no privilege to read the last value of %s', s.sequence) END AS unknown,
       CASE WHEN s.column_type IN ('integer', 'smallint') THEN concat_ws(E'\n',
                (SELECT format('-- columns that reference it need the same range: %s', translate(string_agg(format('%s (%s)', f."table", f.columns), ', ' ORDER BY f."table", f.columns), E'\n\r', '  ')) FROM foreign_keys f
                 WHERE f.confrelid = s.table_oid AND s.attnum = ANY (f.confkey) HAVING count(*) > 0),
                CASE WHEN s.seqtypid <> 'int8'::regtype AND NOT s.is_identity THEN format('ALTER SEQUENCE %s AS bigint NO MAXVALUE;', s.sequence) END,
                format('ALTER TABLE %s ALTER COLUMN %I TYPE bigint;', s."table", s.attname),
                CASE WHEN s.is_identity THEN format('ALTER SEQUENCE %s NO MAXVALUE;', s.sequence) END)
            ELSE format('ALTER SEQUENCE %s AS bigint NO MAXVALUE;', s.sequence) END AS fix,
       CASE WHEN s.column_type IN ('integer', 'smallint') THEN 'ACCESS EXCLUSIVE while the table and its indexes are rewritten' ELSE 'SHARE ROW EXCLUSIVE on the sequence, for a moment' END AS lock,
       CASE WHEN s.last >= 0.9 * s.ends THEN 'critical' END AS level
FROM (
    SELECT format('%I.%I', n.schema, c.relname) AS sequence, q.seqtypid, has_sequence_privilege(c.oid, 'SELECT, USAGE') AS readable,
           CASE WHEN l.ends < 9223372036854775807 AND has_sequence_privilege(c.oid, 'SELECT, USAGE') THEN pg_sequence_last_value(c.oid::regclass) END AS last, l.ends,
           u.oid AS table_oid, u.attnum, u."table", u."column" AS attname, u.full_type AS column_type, format('%s.%I', u."table", u."column") AS column_full, u.attidentity <> '' AS is_identity,
           CASE WHEN u."column" IS NOT NULL THEN format('%I', u."column") END AS column_name
    FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e') JOIN schemas n ON n.oid = c.relnamespace
    LEFT JOIN filled u ON u.sequence = c.oid,
    LATERAL (SELECT least(q.seqmax, CASE u.type WHEN 'int4' THEN 2147483647 WHEN 'int2' THEN 32767 END) AS ends) l
    WHERE NOT q.seqcycle AND q.seqincrement > 0 AND c.relpersistence <> 't' AND q.seqrelid::bigint % OF_PARTS = THIS_PART
) s
WHERE (NOT s.readable AND s.column_type IS DISTINCT FROM 'bigint') OR s.last >= 0.75 * s.ends
