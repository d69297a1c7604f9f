-- Judged by the statistics: rows are inserted and hardly any is changed or deleted. The table has a time column and no partitions. A table that others
-- reference is not a log (orders, scripts). After a restore everything counts as inserted: then only the name tells a log, and what earlier audits counted, which goes before
-- the statistics.
WITH seen AS MATERIALIZED (
    SELECT g.key AS "table", (g.value ->> 'since')::timestamptz AS since, (g.value ->> 'rows_then')::bigint AS rows_then, (g.value ->> 'rows')::bigint AS rows, (g.value ->> 'changed')::bigint AS changed, (g.value ->> 'audits')::int AS audits
    FROM jsonb_each(nullif(current_setting('pgtend.usage', true), '')::jsonb -> 'growth') g WHERE (g.value ->> 'audits')::int > 1
)
SELECT c."table" AS object, c."table" AS identity,
       format('%s rows and growing: %s were inserted, %s updated, %s deleted since the statistics began%s. It has no partitions, and no [retention] or [partition] job of this configuration covers it.',
              c.rows, inserted, updated, deleted,
              CASE WHEN e.rows IS NOT NULL THEN format('; since %s (%s days, %s audits) it grew from %s to %s rows, and %s were changed or deleted', to_char(e.since AT TIME ZONE 'UTC', 'YYYY-MM-DD'), floor(extract(epoch FROM now() - e.since) / 86400), e.audits, e.rows_then, e.rows, e.changed) END) AS issue,
       jsonb_build_object('rows', c.rows, 'bytes', t.bytes, 'inserted', inserted, 'column', c."column", 'rows_then', e.rows_then, 'since', e.since, 'audits', e.audits) AS evidence,
       CASE WHEN pg_is_in_recovery() THEN 'this is a replica: updates and deletes are not counted here'
            WHEN NOT is_log AND a.statistics_since > now() - a.statistics_age AND e.since <= now() - a.statistics_age IS NOT TRUE
           THEN format('%s may be a log, but its statistics began on %s: they are too recent to tell', c."table", to_char(a.statistics_since AT TIME ZONE 'UTC', 'YYYY-MM-DD')) END AS unknown,
       format(E'# rows older than this are deleted: decide how long they are needed\n[retention]\ntable = %s\ncolumn = %s\nolder_than = "365d"\n%s', to_json(c."table"), to_json(c."column"::text),
              coalesce(format(E'archive = %s\n', to_json(a.store)), E'# without `archive` they are gone for good\n')) AS job
FROM asked a, (
    SELECT DISTINCT ON (oid) * FROM columns
    WHERE type IN ('timestamptz', 'timestamp', 'date') AND "column" ~* '^(created|inserted|logged|occurred|recorded|received|happened|started|executed|event|sent)_?(at|on|date|time|timestamp)$|^(ts|time|timestamp|logged|event_?time)$'
    ORDER BY oid, attnum
) c JOIN tables t USING (oid) LEFT JOIN seen e ON e."table" = c."table",
LATERAL (SELECT pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated, pg_stat_get_tuples_deleted(c.oid) AS deleted,
                regexp_replace(c.name, '([a-z0-9])([A-Z])', '\1_\2', 'g') ~* '(^|[^a-z])((access|app|audit|change|event|sys|web)?logs?|logging|event|events|audit|audits|trail|history|metric|metrics|activity|activities|telemetry|trace|traces|span|spans|visit|visits|hits|pageviews|impressions|readings|samples|measurements|heartbeats|executions)$' AS is_log) s
WHERE NOT c.partitioned AND c.rows >= 10000 AND c.oid::bigint <> ALL (a.covered)
  AND NOT EXISTS (SELECT FROM columns u WHERE u.oid = c.oid AND u."column" ~* '^(updated|modified|last_updated|last_modified)_?(at|on)?$')
  AND updated + deleted <= 0.05 * greatest(inserted, c.rows)
  AND (e.rows IS NULL OR e.changed <= 0.05 * e.rows AND (e.since > now() - a.statistics_age OR e.rows > e.rows_then))
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
  AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.confrelid = c.oid AND f.conrelid <> c.oid)
