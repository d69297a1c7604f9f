-- Not below 100 MiB: such a database is a test, and its server often runs like this on purpose.
SELECT format('setting %s', g.name) AS object, g.name AS identity,
       format('%s is off: %s', g.name, w.what) AS issue,
       jsonb_build_object('source', g.source, 'database_bytes', b.bytes) AS evidence,
       format(E'ALTER SYSTEM SET %s = on;\nSELECT pg_catalog.pg_reload_conf();', g.name)
           || CASE WHEN g.source = 'command line' THEN E'\n-- it is set on the server''s command line, which wins: change it there and restart' ELSE '' END AS fix
FROM pg_settings g JOIN (VALUES ('fsync', 'after a crash of the machine the data may be damaged beyond repair.'), ('full_page_writes', 'a crash in the middle of a write leaves half a page, which nothing repairs.')) w(name, what) ON w.name = g.name,
LATERAL (SELECT CASE WHEN has_database_privilege(current_database(), 'CONNECT') THEN pg_database_size(current_database()) END AS bytes) b
WHERE g.setting = 'off' AND b.bytes >= 104857600
