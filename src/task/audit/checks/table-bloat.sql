-- An estimate, from the widths that ANALYZE saw: what rows of that width would need, against what the table has. Only where half and 32 MiB are
-- wasted; a partitioned table is as bloated as its worst partition.
SELECT coalesce(root_name, relation) AS object, relation AS identity,
       format('About %s of %s hold no row (an estimate): more to read, more to cache.', pg_size_pretty(wasted), pg_size_pretty(bytes)) AS issue,
       jsonb_build_object('bytes', bytes, 'wasted_bytes', wasted, 'rows', reltuples::bigint) AS evidence,
       CASE WHEN width IS NULL THEN format('no privilege to read the statistics of %s (%s), or it was never analyzed', relation, pg_size_pretty(bytes)) END AS unknown,
       format('VACUUM (FULL, ANALYZE) %s;', relation) AS fix
FROM (
    SELECT b.*, bytes - ceil(reltuples * (width + 28) / ((8192 - 24) * fill))::bigint * 8192 AS wasted
    FROM (
        SELECT format('%I.%I', n.schema, c.relname) AS relation, c.reltuples, c.relpages::bigint * current_setting('block_size')::bigint AS bytes,
               (SELECT t."table" FROM partitions p JOIN tables t ON t.oid = p.root WHERE p.oid = c.oid) AS root_name,
               coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100) / 100 AS fill,
               (SELECT sum((1 - s.null_frac) * s.avg_width) + count(*) / 2 FROM pg_stats s WHERE s.schemaname = n.schema AND s.tablename = c.relname AND NOT s.inherited) AS width
        FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 0 AND c.relpages::bigint * current_setting('block_size')::bigint >= 33554432
    ) b
) b
WHERE width IS NULL OR (wasted >= 33554432 AND 2 * wasted >= bytes)
