-- The owner is the application where he works in a session now, or where no other role has a right on the table.
SELECT t."table" AS object, t."table" AS identity,
       format('%I owns %s and may log in: its policies do not apply to that role, so they filter nothing for an application that connects as it.', r.rolname, t."table") AS issue,
       jsonb_build_object('owner', r.rolname, 'sessions', a.sessions, 'policies', (SELECT count(*) FROM pg_policy p WHERE p.polrelid = t.oid)) AS evidence,
       format(E'-- the owner''s own migrations and jobs are filtered from then on, too\nALTER TABLE %s FORCE ROW LEVEL SECURITY;', t."table") AS fix
FROM tables t JOIN pg_class c ON c.oid = t.oid JOIN pg_roles r ON r.oid = c.relowner
LEFT JOIN (SELECT usesysid, count(*) AS sessions FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND coalesce(application_name, '') !~* '^(psql|pg_dump|pg_restore|pgtend|pgAdmin|DBeaver|DataGrip)' GROUP BY usesysid) a ON a.usesysid = r.oid
WHERE c.relrowsecurity AND NOT c.relforcerowsecurity AND r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolbypassrls
  AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t.oid)
  AND (a.sessions > 0 OR NOT EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner))
