SELECT o.relation AS object, format('%s %I', o.relation, k.conname) AS identity,
       format('%I is NOT VALID: rows older than the constraint were never checked, and the planner does not rely on it.', k.conname) AS issue,
       jsonb_build_object('constraint', k.conname, 'kind', CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'n' THEN 'not null' ELSE 'check' END) AS evidence,
       format('ALTER %s %s VALIDATE CONSTRAINT %I;', o.kind, o.relation, k.conname) AS fix,
       CASE WHEN c.oid IS NULL THEN 'SHARE on the tables that use the domain, while they are read: writes wait' WHEN k.contype = 'f' THEN 'SHARE UPDATE EXCLUSIVE, and ROW SHARE on the referenced table: reads and writes go on' END AS lock
FROM pg_constraint k JOIN schemas s ON s.oid = k.connamespace
LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type y ON y.oid = k.contypid,
LATERAL (SELECT CASE WHEN c.oid IS NOT NULL THEN 'TABLE' ELSE 'DOMAIN' END AS kind, format('%I.%I', s.schema, coalesce(c.relname, y.typname)) AS relation) o
WHERE NOT k.convalidated AND k.contype IN ('f', 'c', 'n') AND k.conparentid = 0 AND k.coninhcount = 0 AND coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
