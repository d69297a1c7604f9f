-- Indexes of a table, with how many bytes a b-tree of their rows would have: the widths are those of ANALYZE. $1: oid of the table.
SELECT x.oid::bigint AS oid, n.nspname::text AS schema, x.relname::text AS name, am.amname::text AS method,
       i.indisvalid AS is_valid, i.indisexclusion AS is_exclusion, pg_relation_size(x.oid) AS bytes, x.reltuples::float8 AS rows,
       CASE WHEN am.amname = 'btree' AND x.reltuples > 0 AND w.known THEN
           -- A page has a header of 24 and a special part of 16 bytes; a tuple has a line pointer of 4, a header of 8, and is aligned to 8.
           (ceil(x.reltuples * (4 + 8 + 8 * ceil(w.width / 8.0)) / (8152.0 * coalesce(f.fillfactor, 90) / 100)) * 1.01 + 2) * 8192
       -- Nothing is left of the rows of a partial index, or of a table that was emptied.
       WHEN am.amname = 'btree' AND x.reltuples = 0 AND b.reltuples >= 0 THEN 16384
       END::float8 AS expected_bytes
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am am ON am.oid = x.relam
JOIN pg_class b ON b.oid = i.indrelid
CROSS JOIN LATERAL (SELECT (SELECT split_part(option, '=', 2)::int FROM unnest(x.reloptions) option WHERE option LIKE 'fillfactor=%') AS fillfactor) f
CROSS JOIN LATERAL (
    SELECT sum(s.avg_width * (1 - s.null_frac))::float8 AS width, count(s.avg_width) = count(*) AS known
    FROM pg_attribute a
    LEFT JOIN pg_attribute c ON c.attrelid = i.indrelid AND i.indkey[a.attnum - 1] <> 0 AND c.attnum = i.indkey[a.attnum - 1]
    JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
    -- An expression's statistics are the index's own.
    LEFT JOIN pg_stats s ON NOT s.inherited AND s.schemaname = CASE WHEN c.attname IS NULL THEN n.nspname ELSE tn.nspname END
        AND s.tablename = CASE WHEN c.attname IS NULL THEN x.relname ELSE t.relname END AND s.attname = coalesce(c.attname, a.attname)
    WHERE a.attrelid = x.oid AND a.attnum > 0) w
WHERE i.indrelid = $1::bigint::oid AND x.relkind = 'i'
ORDER BY x.relname
