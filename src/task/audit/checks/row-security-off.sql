SELECT t."table" AS object, t."table" AS identity,
       format('%s has %s, and row security is off: whoever may read the table reads all rows.', t."table", CASE count(*) WHEN 1 THEN format('the policy %I', min(p.polname)) ELSE format('%s policies', count(*)) END) AS issue,
       jsonb_build_object('policies', array_agg(p.polname ORDER BY p.polname), 'rows', t.rows) AS evidence,
       format(E'-- before it, look whether each role that works with the table has a policy: a role without one sees no row\nALTER TABLE %s ENABLE ROW LEVEL SECURITY;', t."table") AS fix
FROM pg_policy p JOIN tables t ON t.oid = p.polrelid JOIN pg_class c ON c.oid = t.oid
WHERE NOT c.relrowsecurity
GROUP BY t."table", t.rows
