-- The key that is kept is the older one of those that were validated. Where they differ in what happens on DELETE or UPDATE, a person decides which is meant.
SELECT f."table" AS object, format('%s %I', f."table", f.conname) AS identity,
       format('%I and %I are the same foreign key, %s to %s: each write checks it twice%s.', f.conname, o.conname, f.columns, f.referenced, CASE WHEN s.same THEN '' ELSE ', and they differ in what happens on DELETE or UPDATE' END) AS issue,
       jsonb_build_object('constraint', f.conname, 'same_as', o.conname, 'columns', f.columns) AS evidence,
       CASE WHEN s.same THEN format('ALTER TABLE %s DROP CONSTRAINT %I;', f."table", f.conname) END AS fix
FROM foreign_keys f JOIN foreign_keys o ON o.conrelid = f.conrelid AND o.confrelid = f.confrelid AND o.conkey = f.conkey AND o.confkey = f.confkey AND (NOT o.convalidated, o.oid) < (NOT f.convalidated, f.oid),
LATERAL (SELECT (f.confdeltype, f.confupdtype, f.confmatchtype, f.condeferrable) = (o.confdeltype, o.confupdtype, o.confmatchtype, o.condeferrable) AS same) s
WHERE NOT EXISTS (SELECT FROM foreign_keys x WHERE x.conrelid = f.conrelid AND x.confrelid = f.confrelid AND x.conkey = f.conkey AND x.confkey = f.confkey AND (NOT x.convalidated, x.oid) < (NOT o.convalidated, o.oid))
