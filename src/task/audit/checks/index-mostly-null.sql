-- By the sample of ANALYZE. A unique one enforces something, and one with INCLUDE or several columns may be wanted for those.
SELECT t."table" AS object, i.index AS identity,
       format('%s %% of the entries of %s are NULL: no lookup of a value needs them, and every write keeps them.', round(100 * s.null_frac::numeric, 1), i.index) AS issue,
       jsonb_build_object('index', i.name, 'null_percent', round(100 * s.null_frac::numeric, 1), 'bytes', i.bytes, 'rows', t.rows) AS evidence,
       CASE WHEN NOT t.readable THEN format('no privilege to read the statistics of %s', t."table") END AS unknown,
       format(E'-- not if queries look for the NULLs themselves\nCREATE INDEX CONCURRENTLY ON %s USING %I (%I) WHERE %s IS NOT NULL;\nDROP INDEX CONCURRENTLY %s;', t."table", i.method, c."column", quote_ident(c."column"), i.index) AS fix
FROM indexes i JOIN tables t ON t.oid = i.indrelid JOIN columns c ON c.oid = t.oid AND c.attnum = i.keys[1]
LEFT JOIN pg_stats s ON s.schemaname = t.schema AND s.tablename = t.name AND s.attname = c."column" AND NOT s.inherited
WHERE t.rows >= 10000 AND i.indisvalid AND NOT i.partial AND NOT i.partitioned AND NOT i.indisunique AND NOT i.indisexclusion AND NOT i.indisreplident AND NOT i.indisclustered AND i.indnatts = 1 AND i.indexprs IS NULL
  AND i.method IN ('btree', 'hash') AND (NOT t.readable AND NOT c.attnotnull OR s.null_frac >= 0.9)
