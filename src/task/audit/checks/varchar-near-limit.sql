-- From the sample of ANALYZE, which keeps no value above 1,024 bytes: where the limit allows such values (a character has up to four bytes), and where there are no
-- statistics, a sample of the table is read. Values that are all of one length are codes, and few different ones are a list: neither grows; nor does what has ten characters at most (codes of
-- countries, languages and places).
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       CASE WHEN w.is_known THEN format('The longest sampled value of %I has %s of %s characters: a longer value fails with an error.', c."column", l.longest, c.atttypmod - 4)
            ELSE format('Values of %I are nearly as long as its %s characters allow: a longer value fails with an error.', c."column", c.atttypmod - 4) END AS issue,
       jsonb_build_object('column', c."column", 'longest', l.longest, 'limit', c.atttypmod - 4, 'rows', c.rows) AS evidence,
       CASE WHEN NOT c.readable THEN format('no privilege to read the statistics of %s', c."table") END AS unknown,
       CASE WHEN NOT w.is_known THEN c."table" END AS reads, CASE WHEN NOT w.is_known THEN c.oid::bigint END AS reads_oid,
       CASE WHEN NOT w.is_known THEN
           format('SELECT format(''the longest of %%s sampled values has %%s characters'', pg_catalog.count(n), pg_catalog.max(n)) FROM (SELECT pg_catalog.length(%I) AS n FROM %s TABLESAMPLE pg_catalog.system (%s) WHERE %1$I IS NOT NULL LIMIT 20000) s HAVING pg_catalog.max(n) >= %4$s AND pg_catalog.min(n) < pg_catalog.max(n)',
                  c."column", c."table", w.percent, ceil(0.9 * (c.atttypmod - 4))) END AS probe,
       format(E'%sALTER TABLE %s ALTER COLUMN %I TYPE text;', coalesce(d.remark, ''), c."table", c."column") AS fix
FROM columns c
LEFT JOIN pg_stats s ON s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND s.inherited = c.partitioned
LEFT JOIN LATERAL (
    SELECT max(length(v)) AS longest, min(length(v)) AS shortest
    FROM (SELECT unnest(s.most_common_vals::text::text[]) UNION ALL SELECT unnest(s.histogram_bounds::text::text[])) u(v)
    WHERE s.n_distinct < 0 OR s.n_distinct > 50
) l ON true
LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum,
LATERAL (SELECT coalesce(l.longest >= 0.9 * (c.atttypmod - 4) AND l.shortest < l.longest, false) AS is_known, s.attname IS NULL OR 4 * (c.atttypmod - 4) + 4 > 1024 AND (s.n_distinct < 0 OR s.n_distinct > 50) AS is_hidden, least(100, greatest(0.01, round(100.0 * 20000 / greatest(c.rows, 1), 4))) AS percent) w
WHERE c.type = 'varchar' AND c.atttypmod > 14 AND c.rows >= 100
  AND (NOT c.readable OR w.is_known OR w.is_hidden)
  AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
