-- An estimate, as [reindex] makes it: what a btree of these rows would take by the widths that ANALYZE saw, against what it takes. Only where half and 32 MiB are wasted.
SELECT coalesce(t."table", b.relation) AS object, b.index AS identity,
       format('About %s of the %s of %s are empty (an estimate): the cache holds pages of it for nothing, and scans read them.', pg_size_pretty(b.bytes - b.expected), pg_size_pretty(b.bytes), b.index) AS issue,
       jsonb_build_object('bytes', b.bytes, 'expected_bytes', b.expected, 'rows', b.rows) AS evidence,
       CASE WHEN b.expected IS NULL THEN format('no privilege to read the statistics of %s (%s), or it was never analyzed', b.index, pg_size_pretty(b.bytes)) END AS unknown,
       format('REINDEX INDEX CONCURRENTLY %s;', b.index) AS fix,
       format(E'[reindex]\ntable = %s\n', to_json(coalesce(t."table", b.relation))) AS job
FROM (
    SELECT i.indrelid, i.index, i.bytes, x.reltuples::bigint AS rows, format('%I.%I', tn.nspname, t.relname) AS relation,
           -- A page has a header of 24 and a special part of 16 bytes; a tuple has a line pointer of 4, a header of 8, and is aligned to 8.
           CASE WHEN x.reltuples > 0 AND w.known THEN (ceil(x.reltuples * (4 + 8 + 8 * ceil(w.width / 8.0)) / (8152.0 * coalesce(f.fillfactor, 90) / 100)) * 1.01 + 2) * 8192
                WHEN x.reltuples = 0 AND t.reltuples >= 0 THEN 16384 END::bigint AS expected
    FROM indexes i JOIN pg_class x ON x.oid = i.oid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace JOIN pg_namespace n ON n.oid = x.relnamespace,
    LATERAL (SELECT (SELECT option_value::int FROM pg_options_to_table(x.reloptions) WHERE option_name = 'fillfactor') AS fillfactor) f,
    LATERAL (
        SELECT sum(s.avg_width * (1 - s.null_frac))::float8 AS width, count(s.avg_width) = count(*) AS known
        FROM pg_attribute a LEFT JOIN pg_attribute c ON c.attrelid = i.indrelid AND c.attnum = i.all_keys[a.attnum] AND c.attnum > 0
        -- An expression's statistics are the index's own.
        LEFT JOIN pg_stats s ON NOT s.inherited AND s.schemaname = CASE WHEN c.attname IS NULL THEN n.nspname ELSE tn.nspname END AND s.tablename = CASE WHEN c.attname IS NULL THEN x.relname ELSE t.relname END AND s.attname = coalesce(c.attname, a.attname)
        WHERE a.attrelid = i.oid AND a.attnum > 0) w
    WHERE i.method = 'btree' AND NOT i.partitioned AND i.indisvalid AND NOT i.indisexclusion AND i.bytes >= 33554432
) b LEFT JOIN partitions p ON p.oid = b.indrelid LEFT JOIN tables t ON t.oid = coalesce(p.root, b.indrelid)
WHERE b.expected IS NULL OR b.bytes - b.expected >= 33554432 AND 2 * b.expected <= b.bytes
