-- Two kinds. TOAST compresses values above 2 kB by itself, unless the column says otherwise (EXTERNAL, PLAIN): the probe measures; what does not
-- shrink is compressed already. And values above 10 kB that take 16 MiB and more, which gzip makes smaller than TOAST does (a dry run measures it): low,
-- unless a [compress] job covers the column. The statistics do not know the length of a value that is stored out of line: the probe reads 200 rows.
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       CASE WHEN k.forbidden THEN format('%I (%s) is stored %s: TOAST must not compress it.', c."column", c.full_type, CASE c.attstorage WHEN 'e' THEN 'EXTERNAL' ELSE 'PLAIN' END)
            ELSE format('%I (%s) holds large text, in a table with %s of it, and no [compress] job of this configuration covers it.', c."column", c.full_type, pg_size_pretty(z.bytes)) END AS issue,
       jsonb_build_object('column', c."column", 'storage', c.attstorage, 'rows', c.rows, 'toast_bytes', z.bytes) AS evidence,
       CASE WHEN NOT c.readable THEN format('no privilege to read %s, whose column %I may hold large text', c."table", c."column") END AS unknown,
       c."table" AS reads, c.oid::bigint AS reads_oid,
       CASE WHEN k.forbidden
            THEN format(E'SELECT CASE WHEN avg(pg_catalog.octet_length(v)) > 2000 AND sum(pg_column_size(v)) > 0.9 * sum(pg_catalog.octet_length(v)) THEN format(''values have %%s bytes on average, and are stored without compression'', avg(pg_catalog.octet_length(v))::int) END FROM (SELECT %I AS v FROM %s WHERE %1$I IS NOT NULL LIMIT 200) s', c."column", c."table")
            ELSE format(E'SELECT CASE WHEN avg(octet_length(v)) > 10240 AND avg(pg_column_size(v)) > 2048 THEN format(''values have %%s bytes on average, and take %%s'', avg(octet_length(v))::int, avg(pg_column_size(v))::int) END FROM (SELECT %I AS v FROM %s WHERE %1$I IS NOT NULL LIMIT 200) s', c."column", c."table") END AS probe,
       CASE WHEN k.forbidden THEN format(E'ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTENDED;\n-- existing rows; the job does this in batches\nUPDATE %1$s SET %2$I = %2$I OPERATOR(pg_catalog.||) '''' WHERE pg_catalog.octet_length(%2$I) OPERATOR(pg_catalog.>) 2000;\nVACUUM (ANALYZE) %1$s;', c."table", c."column") END AS fix,
       CASE WHEN k.forbidden THEN format(E'[compress]\ntable = %s\ncolumn = %s\nlarger_than = "2KB"\nmethod = "toast"\n', to_json(c."table"), to_json(c."column"::text))
            ELSE format(E'# a dry run estimates the saving; pgtend compress install creates the view through which readers see plain text\n[compress]\ntable = %s\ncolumn = %s\nlarger_than = "10KB"\nmethod = "gzip"\n', to_json(c."table"), to_json(c."column"::text)) END AS job,
       CASE WHEN NOT k.forbidden THEN 'ACCESS EXCLUSIVE for a moment, when the view is installed; then row locks while rows are written' END AS lock,
       CASE WHEN NOT k.forbidden THEN 'low' END AS level
FROM asked a, columns c LEFT JOIN (SELECT r.oid, x.relpages FROM pg_class r JOIN pg_class x ON x.oid = r.reltoastrelid) w ON w.oid = c.oid,
LATERAL (SELECT c.attstorage IN ('e', 'p') AS forbidden) k,
LATERAL (SELECT coalesce(w.relpages, 0)::bigint * current_setting('block_size')::bigint AS bytes) z
WHERE c.type IN ('text', 'varchar') AND c.rows > 0 AND c.attgenerated = ''
  AND (k.forbidden OR z.bytes >= 16777216 AND NOT c.partitioned AND (c.atttypmod < 0 OR c.atttypmod > 10240) AND format('%s:%s', c.oid, c."column") <> ALL (a.compressed)
       AND NOT EXISTS (SELECT FROM columns g WHERE g.oid = c.oid AND g."column" = c."column" || '_gz'))
