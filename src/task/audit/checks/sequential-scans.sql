-- Tables and partitions of 16 MiB of which scans have read as many rows as 200 times the table, and more often than once an hour since the statistics began: dumps and reports of
-- the night are rarer. By rows, because each worker of a parallel scan counts as one, and a LIMIT ends a scan soon. Whether an index would serve, or all rows are wanted, the statements say.
-- Where the last audit is older than a day, since then.
WITH seen AS MATERIALIZED (
    SELECT key AS "table", (value ->> 'scans')::bigint AS scans, (value ->> 'rows')::bigint AS rows, (value ->> 'at')::timestamptz AS at FROM jsonb_each(nullif(current_setting('pgtend.usage', true), '')::jsonb -> 'tables')
    WHERE (value ->> 'at')::timestamptz < now() - interval '1 day'
)
SELECT t."table" AS object, t."table" AS identity,
       format('%s (%s) was read from beginning to end %s times since %s, %s rows in all.', t."table", pg_size_pretty(t.bytes), sum(s.scans), to_char(min(s.since) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), sum(s.rows_read)) AS issue,
       jsonb_build_object('scans', sum(s.scans), 'scans_a_day', round(sum(s.scans) / min(s.days)::numeric), 'rows_read', sum(s.rows_read), 'by_indexes', sum(s.by_indexes), 'rows', t.rows, 'bytes', t.bytes, 'since', min(s.since),
                          'statements', format('SELECT calls, mean_exec_time, query FROM pg_stat_statements WHERE query ILIKE %L ORDER BY total_exec_time DESC', '%' || t.name || '%')) AS evidence,
       'which statements read it: the one in the evidence lists them. An index on what they filter or join by ends the scans; what wants all rows (an export, a sum) can be kept in a summary, or asked less often.' AS decide
FROM tables t JOIN (
    SELECT coalesce(p.root, c.oid) AS oid, r.*, n.*
    FROM asked a, pg_class c JOIN schemas h ON h.oid = c.relnamespace LEFT JOIN partitions p ON p.oid = c.oid LEFT JOIN seen e ON e."table" = format('%I.%I', h.schema, c.relname) AND e.scans <= pg_stat_get_numscans(c.oid),
    LATERAL (SELECT pg_stat_get_tuples_returned(c.oid) - coalesce(e.rows, 0) AS rows_read, greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) AS rows_now,
                    (SELECT coalesce(sum(pg_stat_get_numscans(i.indexrelid)), 0) FROM pg_index i WHERE i.indrelid = c.oid) AS by_indexes) r,
    LATERAL (SELECT coalesce(e.at, a.statistics_since) AS since, greatest(extract(epoch FROM now() - coalesce(e.at, a.statistics_since)) / 86400, 0.0001) AS days, floor(r.rows_read / nullif(r.rows_now, 0))::bigint AS scans) n
    WHERE c.relkind = 'r' AND c.relpages::bigint * current_setting('block_size')::bigint >= 16777216
) s ON s.oid = t.oid
WHERE s.scans >= 200 AND s.scans >= 24 * s.days AND s.rows_now >= 1000
GROUP BY t."table", t.name, t.bytes, t.rows
