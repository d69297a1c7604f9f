-- A btree orders whole values: of arrays, documents and texts for search it serves equality and ORDER BY of the whole, and not what they contain. One that was used
-- compares whole values, and serves; a unique one enforces something.
SELECT t."table" AS object, i.index AS identity,
       format('%s orders whole values of %I (%s): no search for what they contain can use it, and since %s nothing else has.', i.index, c."column", c.full_type, to_char(a.statistics_since AT TIME ZONE 'UTC', 'YYYY-MM-DD')) AS issue,
       jsonb_build_object('index', i.name, 'type', c.full_type, 'bytes', i.bytes, 'rows', t.rows, 'statistics_since', a.statistics_since) AS evidence,
       CASE WHEN pg_is_in_recovery() THEN 'this is a replica: the primary''s use of its indexes is not counted here' END AS unknown,
       format(E'-- if nothing searches for what the values contain (@>, &&, ?, @@), the DROP alone does it\nCREATE INDEX %sON %s USING gin (%I);\nDROP INDEX %s%s;', w.concurrently, t."table", c."column", w.concurrently, i.index) AS fix,
       CASE WHEN i.partitioned THEN 'SHARE on the table and its partitions: writes wait until it is built' END AS lock
FROM asked a, indexes i JOIN tables t ON t.oid = i.indrelid JOIN columns c ON c.oid = t.oid AND c.attnum = i.keys[1],
LATERAL (SELECT CASE WHEN i.partitioned THEN '' ELSE 'CONCURRENTLY ' END AS concurrently) w
WHERE i.method = 'btree' AND i.indnatts = 1 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisreplident AND NOT i.indisclustered AND (c.typcategory = 'A' AND c.type LIKE '\_%' OR c.type IN ('jsonb', 'tsvector'))
  AND CASE WHEN i.partitioned THEN (SELECT coalesce(sum(pg_stat_get_numscans(h.inhrelid)), 0) FROM pg_inherits h WHERE h.inhparent = i.oid) ELSE pg_stat_get_numscans(i.oid) END = 0
