SELECT format('%I.%I', s.schema, c.relname) AS object, format('%I.%I', s.schema, c.relname) AS identity,
       format('%I.%I is unlogged and has %s rows: after a crash it is empty, and it is always empty on replicas and in what a physical backup restores.', s.schema, c.relname, r.rows) AS issue,
       jsonb_build_object('rows', r.rows, 'bytes', r.bytes) AS evidence,
       format('ALTER TABLE %I.%I SET LOGGED;', s.schema, c.relname) AS fix,
       -- By its name it holds what can be made again.
       CASE WHEN c.relname ~* '(^|_)(cache[ds]?|tmp|temp|temporary|staging|stage|scratch|import|imports|sessions?|queue|jobs?)(_|$)' THEN 'low' END AS level
FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace JOIN sizes r ON r.oid = c.oid
WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND r.rows > 0
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
