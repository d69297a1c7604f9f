-- From the sample of ANALYZE. Values that are all of one length are codes, and few different ones are a list: neither grows.
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('The longest sampled value of %I has %s of %s characters: a longer value fails with an error.', c."column", l.longest, c.atttypmod - 4) AS issue,
       jsonb_build_object('column', c."column", 'longest', l.longest, 'limit', c.atttypmod - 4, 'rows', c.rows) AS evidence,
       CASE WHEN NOT c.readable THEN format('no privilege to read the statistics of %s', c."table") END AS unknown,
       format(E'%sALTER TABLE %s ALTER COLUMN %I TYPE text;', coalesce(d.remark, ''), c."table", c."column") AS fix
FROM columns c
LEFT JOIN LATERAL (
    SELECT max(length(v)) AS longest, min(length(v)) AS shortest
    FROM pg_stats s, LATERAL (SELECT unnest(s.most_common_vals::text::text[]) UNION ALL SELECT unnest(s.histogram_bounds::text::text[])) u(v)
    WHERE s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND s.inherited = c.partitioned AND (s.n_distinct < 0 OR s.n_distinct > 50)
) l ON true
LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum
WHERE c.type = 'varchar' AND c.atttypmod > 4 AND c.rows >= 100
  AND (NOT c.readable OR l.longest >= 0.9 * (c.atttypmod - 4) AND l.shortest < l.longest)
  AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
