-- Every sampled value is different, and at least half of the referenced rows have one: by chance that does not happen. The probe counts. Not where the column is unique
-- together with another: then several are intended. Without statistics the question is open. Rows that came since an earlier audit are evidence, too.
WITH seen AS MATERIALIZED (
    SELECT g.key AS "table", (g.value ->> 'since')::timestamptz AS since, (g.value ->> 'rows_then')::bigint AS rows_then, (g.value ->> 'rows')::bigint AS rows, (g.value ->> 'changed')::bigint AS changed, (g.value ->> 'audits')::int AS audits
    FROM jsonb_each(nullif(current_setting('pgtend.usage', true), '')::jsonb -> 'growth') g WHERE (g.value ->> 'audits')::int > 1
)
SELECT f."table" AS object, format('%s(%s)', f."table", f.columns) AS identity,
       format('Each row of %s has at most one row here, but nothing enforces it: a second one with the same %s would be accepted.%s', f.referenced, f.columns,
              CASE WHEN e.rows > e.rows_then THEN format(' Since %s (%s audits) the table grew from %s to %s rows, and no %s came twice.', to_char(e.since AT TIME ZONE 'UTC', 'YYYY-MM-DD'), e.audits, e.rows_then, e.rows, f.columns) END) AS issue,
       jsonb_build_object('column', a.attname, 'rows', f.rows, 'referenced_rows', r.rows, 'rows_then', e.rows_then, 'since', e.since) AS evidence,
       CASE WHEN NOT f.readable THEN format('no privilege to read the statistics of %s', f."table")
            WHEN s.attname IS NULL THEN format('there are no statistics of %s: it was never analyzed, or row security hides them', f."table") END AS unknown,
       f."table" AS reads, f.conrelid::bigint AS reads_oid,
       format('SELECT ''each value occurs once'' WHERE NOT EXISTS (SELECT FROM %s WHERE %s IS NOT NULL GROUP BY %2$s HAVING count(*) > 1)', f."table", f.columns) AS probe,
       format(E'-- fails where a second row comes meanwhile, and leaves an invalid index, which has to be dropped\nCREATE UNIQUE INDEX CONCURRENTLY ON %s (%s);', f."table", f.columns)
           || coalesce((SELECT string_agg(format(E'\nDROP INDEX CONCURRENTLY %s;', i.index), '' ORDER BY i.name) FROM indexes i
                        WHERE i.indrelid = f.conrelid AND i.all_keys = ARRAY[a.attnum] AND NOT i.partial AND NOT i.indisunique AND i.method = 'btree'), '') AS fix
FROM foreign_keys f
-- An extension's table is none of ours.
JOIN (SELECT oid, rows FROM all_tables UNION ALL SELECT z.oid, z.rows FROM sizes z WHERE NOT EXISTS (SELECT FROM all_tables t WHERE t.oid = z.oid)) r ON r.oid = f.confrelid
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
LEFT JOIN seen e ON e."table" = f."table"
LEFT JOIN pg_stats s ON s.schemaname = f.schema AND s.tablename = f.name AND s.attname = a.attname AND NOT s.inherited
WHERE cardinality(f.conkey) = 1 AND NOT f.partitioned AND f.conrelid <> f.confrelid AND f.rows >= 100
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = f.conrelid AND i.indisunique AND i.indisvalid AND NOT i.partial AND i.keys @> ARRAY[a.attnum])
  AND 2 * f.rows >= r.rows
  AND ((NOT f.readable OR s.attname IS NULL) AND 1.1 * r.rows >= f.rows OR s.n_distinct < 0 AND s.n_distinct <= -0.9999 * (1 - s.null_frac) AND 2 * (1 - s.null_frac) * f.rows >= r.rows)
