-- TOAST compresses values above 2 kB by itself, unless the column says otherwise (EXTERNAL, PLAIN). The probe measures: what does not shrink
-- is compressed already.
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I (%s) is stored %s: TOAST must not compress it.', c."column", c.full_type, CASE c.attstorage WHEN 'e' THEN 'EXTERNAL' ELSE 'PLAIN' END) AS issue,
       jsonb_build_object('column', c."column", 'storage', c.attstorage, 'rows', c.rows) AS evidence,
       CASE WHEN NOT c.readable THEN format('no privilege to read %s, whose column %I must not be compressed', c."table", c."column") END AS unknown,
       format(E'SELECT CASE WHEN avg(octet_length(v::text)) > 2000 AND sum(pg_column_size(v)) > 0.9 * sum(octet_length(v::text)) THEN format(''values have %%s bytes on average, as many as they are stored in'', avg(octet_length(v::text))::int) END FROM (SELECT %I AS v FROM %s WHERE %1$I IS NOT NULL LIMIT 200) s', c."column", c."table") AS probe,
       format(E'ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTENDED;\n-- rows that are there already, or in batches by the job\nUPDATE %1$s SET %2$I = %2$I || '''' WHERE octet_length(%2$I) > 2000;\nVACUUM (ANALYZE) %1$s;', c."table", c."column") AS fix,
       format(E'[compress]\ntable = %s\ncolumn = %s\nlarger_than = "2KB"\nmethod = "toast"\n', to_json(c."table"), to_json(format('%I', c."column"))) AS job
FROM columns c WHERE c.attstorage IN ('e', 'p') AND c.type IN ('text', 'varchar') AND c.rows > 0
