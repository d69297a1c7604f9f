-- An index of a build in progress is invalid, too: one that is being built, or whose table a session has locked for a build. Indexes of partitioned
-- tables are invalid until every partition has its part: that is not a leftover.
SELECT format('%I.%I', s.schema, c.relname) AS object, format('%I.%I', s.schema, x.relname) AS identity,
       format('%I.%I was left by a build that failed: no query uses it%s.', s.schema, x.relname, CASE WHEN i.indisready THEN ', every write maintains it' ELSE '' END) AS issue,
       jsonb_build_object('index', x.relname, 'maintained', i.indisready, 'bytes', x.relpages::bigint * current_setting('block_size')::bigint) AS evidence,
       CASE WHEN EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.datname = current_database() AND p.relid IS NULL)
           THEN 'a session builds an index, and which one is hidden: GRANT pg_monitor' END AS unknown,
       CASE WHEN x.relname ~ '_cc(new|old)[0-9]*$' THEN format('DROP INDEX CONCURRENTLY %I.%I;', s.schema, x.relname)
            ELSE format('REINDEX INDEX CONCURRENTLY %I.%I;', s.schema, x.relname) END AS fix,
       format(E'[reindex]\ntable = %s\nindexes = [%s]\n', to_json(format('%I.%I', s.schema, c.relname)), to_json(x.relname::text)) AS job
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid AND x.relkind = 'i' JOIN pg_class c ON c.oid = i.indrelid JOIN schemas s ON s.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.index_relid = i.indexrelid))
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.relation = i.indexrelid AND l.granted AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'AccessExclusiveLock') AND l.pid <> pg_backend_pid())
