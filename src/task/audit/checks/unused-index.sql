-- Only with statistics that are old enough, on a server without replicas: queries on a replica are counted there. Not unique indexes, nor those that
-- foreign keys, lookups by hash or vectors need now and then, nor one that stands in for another that is used: that one is called its duplicate or
-- its beginning, and both proposals together would leave none. The head of tables that inherit is empty, and its indexes are never used.
-- What earlier audits saw counts for more than the statistics: an index that was used once and is no longer, or one that was made later.
WITH seen AS MATERIALIZED (
    SELECT key AS index, (value ->> 'unused_since')::timestamptz AS unused_since, (value ->> 'audits')::int AS audits FROM jsonb_each(nullif(current_setting('pgtend.usage', true), '')::jsonb -> 'indexes')
)
SELECT t."table" AS object, i.index AS identity,
       format('%s has not been used since %s%s, and every write to %s maintains it.', i.index, to_char(u.since AT TIME ZONE 'UTC', 'YYYY-MM-DD'), CASE WHEN e.audits > 1 THEN format(' (%s days, %s audits)', floor(extract(epoch FROM now() - u.since) / 86400), e.audits) ELSE '' END, t."table") AS issue,
       jsonb_build_object('index', i.name, 'bytes', i.bytes, 'rows', t.rows, 'statistics_since', a.statistics_since, 'unused_since', u.since, 'audits', coalesce(e.audits, 1), 'scans', n.scans) AS evidence,
       CASE WHEN pg_is_in_recovery() THEN 'this is a replica: the primary''s use of its indexes is not counted here'
            WHEN EXISTS (SELECT FROM pg_stat_replication) OR EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical') THEN 'there are replicas, and queries there may use it'
            WHEN u.since > now() - a.statistics_age THEN format('the statistics began on %s, and no earlier audit knows the index: too recent to tell which indexes are unused', to_char(u.since AT TIME ZONE 'UTC', 'YYYY-MM-DD'))
       END AS unknown,
       CASE WHEN i.partitioned THEN format('DROP INDEX %s;', i.index) ELSE format('DROP INDEX CONCURRENTLY %s;', i.index) END AS fix,
       CASE WHEN i.partitioned THEN 'ACCESS EXCLUSIVE, for a moment' END AS lock
FROM asked a, indexes i JOIN tables t ON t.oid = i.indrelid LEFT JOIN seen e ON e.index = i.index,
LATERAL (SELECT coalesce(e.unused_since, a.statistics_since) AS since) u,
LATERAL (SELECT CASE WHEN i.partitioned THEN (SELECT coalesce(sum(pg_stat_get_numscans(h.inhrelid)), 0) FROM pg_inherits h WHERE h.inhparent = i.oid) ELSE pg_stat_get_numscans(i.oid) END AS scans) n
WHERE t.rows >= 1000 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisexclusion AND NOT i.indisreplident AND NOT i.indisclustered AND i.method NOT IN ('ivfflat', 'hnsw')
  AND (n.scans = 0 OR e.audits > 1 AND e.unused_since <= now() - a.statistics_age)
  AND NOT EXISTS (SELECT FROM indexes o WHERE o.indrelid = i.indrelid AND o.oid <> i.oid AND o.indisvalid AND i.keys[1:o.indnkeyatts] = o.keys AND (o.partitioned OR pg_stat_get_numscans(o.oid) > 0))
  AND (i.partitioned OR NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = t.oid))
  AND NOT EXISTS (SELECT FROM foreign_keys f WHERE f.conrelid = t.oid AND i.keys[1:cardinality(f.conkey)] @> f.conkey)
  AND NOT EXISTS (SELECT FROM columns c WHERE c.oid = t.oid AND c.attnum = i.keys[1] AND c."column" ~* '(hash|checksum|digest|md5|sha1|sha256|sha512|fingerprint|dedup|dedupe|dedup_key)$')
