-- A btree on (a) beside one on (a, b). The shorter is a little smaller, and the longer serves the same queries. Partitions may have indexes of their own; the parts
-- of an index of their table come and go with it.
SELECT t."table" AS object, i.index AS identity,
       format('%s is a prefix of %s, which serves the same queries.', i.index, min(o.index)) AS issue,
       jsonb_build_object('index', i.name, 'covered_by', min(o.index), 'bytes', i.bytes) AS evidence,
       CASE WHEN i.partitioned THEN format('DROP INDEX %s;', i.index) ELSE format('DROP INDEX CONCURRENTLY %s;', i.index) END AS fix,
       CASE WHEN i.partitioned THEN 'ACCESS EXCLUSIVE, for a moment' END AS lock
FROM indexes i JOIN all_tables t ON t.oid = i.indrelid
JOIN indexes o ON o.indrelid = i.indrelid AND o.oid <> i.oid AND o.method = 'btree' AND o.indisvalid AND o.indexprs IS NULL AND pg_get_expr(o.indpred, o.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)
    AND o.indnkeyatts > i.indnkeyatts AND o.keys[1:i.indnkeyatts] = i.keys
    AND (o.indclass::oid[])[0:i.indnkeyatts - 1] = (i.indclass::oid[])[0:i.indnkeyatts - 1]
    AND (o.indcollation::oid[])[0:i.indnkeyatts - 1] = (i.indcollation::oid[])[0:i.indnkeyatts - 1]
    AND (o.indoption::int2[])[0:i.indnkeyatts - 1] = (i.indoption::int2[])[0:i.indnkeyatts - 1]
WHERE i.method = 'btree' AND i.indisvalid AND NOT i.indisunique AND NOT i.indisreplident AND NOT i.indisclustered AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.oid)
  AND NOT EXISTS (SELECT FROM indexes d WHERE d.indrelid = i.indrelid AND d.method = 'btree' AND d.indisvalid AND d.all_keys = i.all_keys AND pg_get_expr(d.indpred, d.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid) AND d.indexprs IS NULL AND (d.indisunique, i.name) > (false, d.name))
GROUP BY t."table", i.index, i.name, i.bytes, i.partitioned
