-- By what the statistics count: rows come and hardly any is changed or deleted. With a time of its own, and no partitions.
SELECT c."table" AS object, c."table" AS identity,
       format('%s rows and growing: %s were inserted, %s changed, %s deleted since the statistics began. No partitions, and no [retention] or [partition] job of this configuration covers it.',
              c.rows, inserted, updated, deleted) AS issue,
       jsonb_build_object('rows', c.rows, 'bytes', t.bytes, 'inserted', inserted, 'column', c."column") AS evidence,
       CASE WHEN inserted < 0.5 * c.rows AND a.statistics_since > now() - a.statistics_age
           THEN format('%s looks like a log, but its statistics began on %s, after most of its rows came', c."table", to_char(a.statistics_since AT TIME ZONE 'UTC', 'YYYY-MM-DD')) END AS unknown,
       format(E'[retention]\ntable = %s\ncolumn = %s\nolder_than = "90d"\n', to_json(c."table"), to_json(format('%I', c."column"))) AS job
FROM asked a, (
    SELECT DISTINCT ON (oid) * FROM columns
    WHERE type IN ('timestamptz', 'timestamp', 'date') AND "column" ~* '^(created|inserted|logged|occurred|recorded|received|happened|started|executed|event|sent)_?(at|on|date|time|timestamp)$|^(ts|time|timestamp|logged|event_?time)$'
    ORDER BY oid, attnum
) c JOIN tables t USING (oid),
LATERAL (SELECT pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated, pg_stat_get_tuples_deleted(c.oid) AS deleted) s
WHERE NOT c.partitioned AND c.rows >= 10000 AND c.oid::bigint <> ALL (a.covered)
  AND NOT EXISTS (SELECT FROM columns u WHERE u.oid = c.oid AND u."column" ~* '^(updated|modified|last_updated|last_modified)_?(at|on)?$')
  AND updated + deleted <= 0.05 * greatest(inserted, c.rows)
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
