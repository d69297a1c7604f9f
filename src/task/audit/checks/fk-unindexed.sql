-- An index serves if its first columns are those of the key, in any order. A partial index of all rows whose key is set serves, too;
-- any other partial index does not: a DELETE of the referenced row looks for all of them.
SELECT "table" AS object, format('%s(%s)', "table", columns) AS identity,
       format('No index begins with (%s), which references %s: each DELETE or key change of a row there reads all of %s (%s rows).', columns, min(referenced), "table", max(rows)) AS issue,
       jsonb_build_object('constraint', min(conname), 'columns', columns, 'rows', max(rows)) AS evidence,
       CASE WHEN partitioned THEN format('CREATE INDEX ON %s (%s);', "table", columns) ELSE format('CREATE INDEX CONCURRENTLY ON %s (%s);', "table", columns) END AS fix,
       CASE WHEN partitioned THEN 'SHARE on the table and its partitions: writes wait until it is built' END AS lock,
       CASE WHEN max(rows) < 1000 THEN 'low' END AS level
FROM foreign_keys f
WHERE NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = f.conrelid AND i.indisvalid
                  AND (NOT i.partial OR string_to_array(translate(pg_get_expr(i.indpred, i.indrelid), '()', ''), ' AND ')
                       <@ ARRAY(SELECT format('%I IS NOT NULL', a.attname) FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)))
                  AND i.method IN ('btree', 'hash') AND i.keys[1:cardinality(f.conkey)] @> f.conkey)
GROUP BY "table", columns, partitioned
