-- Keys and references whose numbers do not come from a sequence of their own (sequence-near-end looks at those): from applications, imports, other tables.
-- From the sample of ANALYZE: a column that was not analyzed is not judged. Few rows that are spread over the whole range are random numbers, which do not grow.
WITH integers AS MATERIALIZED (
    -- The statistics of all are read at once: those of each column by themselves take a millisecond each.
    SELECT c.*, s.most_common_vals::text AS common, s.histogram_bounds::text AS bounds
    FROM columns c LEFT JOIN pg_stats s ON s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND s.inherited = c.partitioned
    WHERE c.type IN ('int4', 'int2') AND c.rows > 0 AND c.attidentity = ''
)
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I is %s and has reached %s of %s: a larger number fails with an error.', c."column", c.full_type, m.largest, l.ends) AS issue,
       jsonb_build_object('largest', m.largest, 'end', l.ends, 'percent', round(100 * m.largest / l.ends, 1), 'rows', c.rows) AS evidence,
       CASE WHEN NOT c.readable THEN format('no privilege to read the statistics of %s', c."table") END AS unknown,
       CASE WHEN NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
            THEN format('%sALTER TABLE %s ALTER COLUMN %I TYPE bigint;', coalesce(d.remark, ''), c."table", c."column") END AS fix,
       CASE WHEN m.largest >= 0.9 * l.ends THEN 'critical' END AS level
FROM integers c LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum,
LATERAL (SELECT max(v::numeric) AS largest, min(v::numeric) AS smallest FROM (SELECT unnest(c.common::text[]) UNION ALL SELECT unnest(c.bounds::text[])) u(v)) m,
LATERAL (SELECT CASE c.type WHEN 'int2' THEN 32767 ELSE 2147483647 END::numeric AS ends) l
WHERE (NOT c.readable OR m.largest >= 0.75 * l.ends AND (c.rows >= 0.01 * m.largest OR m.smallest >= 0.5 * m.largest))
  AND (EXISTS (SELECT FROM foreign_keys f WHERE f.conrelid = c.oid AND c.attnum = ANY (f.conkey)) OR EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.indisunique AND i.keys = ARRAY[c.attnum]))
  AND NOT EXISTS (SELECT FROM pg_attrdef f JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = f.oid JOIN pg_class q ON e.refclassid = 'pg_class'::regclass AND q.oid = e.refobjid AND q.relkind = 'S' WHERE f.adrelid = c.oid AND f.adnum = c.attnum)
