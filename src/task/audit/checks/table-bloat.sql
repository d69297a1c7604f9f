-- An estimate from the widths that ANALYZE saw: the space that rows of that width need, against the table's size. Only where half and 32 MiB are
-- wasted. Rows do not span pages: as many as fit, at least one. Of a partitioned table, all such partitions in one finding.
SELECT coalesce(root_name, relation) AS object, coalesce(root_name, relation) AS identity,
       format('About %s of %s%s hold no rows (an estimate): scans read it and the cache holds it for nothing.', pg_size_pretty(sum(wasted)), pg_size_pretty(sum(bytes)), CASE WHEN max(root_name) IS NOT NULL THEN format(' in %s partitions', count(*)) ELSE '' END) AS issue,
       jsonb_build_object('bytes', sum(bytes), 'wasted_bytes', sum(wasted), 'rows', sum(reltuples)::bigint) AS evidence,
       CASE WHEN width IS NULL OR reltuples < 0 THEN format('no privilege to read the statistics of %s (%s), or it was never analyzed', min(relation), pg_size_pretty(sum(bytes))) END AS unknown,
       string_agg(format('VACUUM (FULL, ANALYZE) %s;', relation), E'\n' ORDER BY wasted DESC) AS fix
FROM (
    SELECT b.*, bytes - ceil(reltuples / greatest(1, floor(8168 * fill / (width + 28))))::bigint * 8192 AS wasted
    FROM (
        SELECT format('%I.%I', n.schema, c.relname) AS relation, c.reltuples, c.relpages::bigint * current_setting('block_size')::bigint AS bytes,
               (SELECT t."table" FROM partitions p JOIN tables t ON t.oid = p.root WHERE p.oid = c.oid) AS root_name,
               coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100) / 100 AS fill,
               (SELECT sum((1 - s.null_frac) * s.avg_width) + count(*) / 2 FROM pg_stats s WHERE s.schemaname = n.schema AND s.tablename = c.relname AND NOT s.inherited) AS width
        FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND c.relpages::bigint * current_setting('block_size')::bigint >= 33554432
    ) b
) b
WHERE width IS NULL OR reltuples < 0 OR (wasted >= 33554432 AND 2 * wasted >= bytes)
GROUP BY coalesce(root_name, relation), width IS NULL OR reltuples < 0
