-- Judged by their names: a hash of content exists to be looked up. Not hashes of passwords and tokens of one row, nor
-- texts that are longer than any hash, nor what [compress] keeps beside a body.
SELECT c."table" AS object, format('%s(%I)', c."table", c."column") AS identity,
       format('%I looks like a key for finding duplicates, and no index begins with it: each lookup reads all of %s (%s rows).', c."column", c."table", c.rows) AS issue,
       jsonb_build_object('column', c."column", 'type', c.full_type, 'rows', c.rows) AS evidence,
       CASE WHEN c.partitioned THEN format('CREATE INDEX ON %s (%I);', c."table", c."column") ELSE format('CREATE INDEX CONCURRENTLY ON %s (%I);', c."table", c."column") END AS fix,
       CASE WHEN c.partitioned THEN 'SHARE on the table and its partitions: writes wait until it is built' END AS lock,
       CASE WHEN c.rows < 1000 THEN 'low' END AS level
FROM columns c
WHERE NOT c.is_frameworks AND c."column" ~* '(^|_|[a-z])(hash|checksum|digest|md5|sha1|sha256|sha512|fingerprint|dedup|dedupe|dedup_key)$'
  AND c."column" !~* '(pass|pwd|secret|token|salt|pin)' AND c.type IN ('text', 'varchar', 'bpchar', 'bytea', 'uuid', 'int8')
  AND NOT EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND s.avg_width > 200)
  AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT i.partial AND i.keys[1] = c.attnum AND i.method IN ('btree', 'hash'))
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = 'pgtend_one_form')
