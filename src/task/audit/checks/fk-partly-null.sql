-- A key of several columns is not checked where one of them is NULL (MATCH SIMPLE). Where only one of them can be, that is how a row says that it refers to nothing; where two can,
-- some set and some not is a mistake. A sample of 20,000 rows says whether there is such a row.
SELECT f."table" AS object, format('%s %I', f."table", f.conname) AS identity,
       format('Rows of %s have only some columns of (%s): the foreign key %I does not check them, whatever the others hold.', f."table", f.columns, f.conname) AS issue,
       jsonb_build_object('constraint', f.conname, 'rows', f.rows, 'whole', format('SELECT * FROM %s WHERE num_nulls(%s) BETWEEN 1 AND %s', f."table", n.columns, n.number - 1)) AS evidence,
       CASE WHEN NOT f.readable THEN format('no privilege to read %s', f."table") END AS unknown,
       f."table" AS reads, f.conrelid::bigint AS reads_oid,
       format('SELECT format(''%%s of %%s sampled rows'', partly, rows) FROM (SELECT count(*) AS rows, count(*) FILTER (WHERE pg_catalog.num_nulls(%s) BETWEEN 1 AND %s) AS partly FROM (SELECT %s FROM %s%s LIMIT 20000) s) c WHERE partly > 0', n.columns, n.number - 1, n.columns, f."table",
              CASE WHEN f.rows > 20000 AND NOT f.partitioned THEN format(' TABLESAMPLE SYSTEM (%s)', least(100, round(4000000.0 / f.rows, 6))) ELSE '' END) AS probe,
       format('what these rows refer to: the statement in the evidence lists them. With all columns set or all NULL, MATCH FULL (a new constraint, NOT VALID and then VALIDATE) keeps it so.') AS decide
FROM foreign_keys f,
LATERAL (SELECT string_agg(format('%I', c.attname), ', ' ORDER BY u.o) AS columns, count(*) AS number FROM unnest(f.conkey) WITH ORDINALITY u(n, o) JOIN pg_attribute c ON c.attrelid = f.conrelid AND c.attnum = u.n WHERE NOT c.attnotnull) n
WHERE cardinality(f.conkey) > 1 AND f.confmatchtype = 's' AND n.number > 1 AND f.rows > 0
ORDER BY f.rows DESC, 2
