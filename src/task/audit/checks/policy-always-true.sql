-- Permissive policies for PUBLIC that let everybody change all rows, where no restrictive policy stands beside them and somebody else has the right. Policies that name roles, and
-- those for SELECT alone, are usual.
SELECT t."table" AS object, format('%s %I', t."table", p.polname) AS identity,
       format('The policy %I lets every role that may %s %s do it with all rows: row security protects nothing there%s.', p.polname, w.may, t."table", CASE WHEN w.others > 0 THEN format(', and the %s that have conditions mean nothing, because one is enough', CASE w.others WHEN 1 THEN 'other one' ELSE format('%s others', w.others) END) ELSE '' END) AS issue,
       jsonb_build_object('policy', p.polname, 'command', CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END, 'others', w.others) AS evidence,
       'which rows a role may change: USING and WITH CHECK say it. If all, name the roles (TO), or turn row security off, so that nobody relies on it.' AS decide
FROM pg_policy p JOIN tables t ON t.oid = p.polrelid JOIN pg_class c ON c.oid = t.oid,
LATERAL (SELECT (SELECT string_agg(DISTINCT x.privilege_type, ', ') FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner AND (p.polcmd IN ('*', 'a') AND x.privilege_type = 'INSERT' OR p.polcmd IN ('*', 'w') AND x.privilege_type = 'UPDATE' OR p.polcmd IN ('*', 'd') AND x.privilege_type = 'DELETE')) AS may,
                (SELECT count(*) FROM pg_policy o WHERE o.polrelid = p.polrelid AND o.oid <> p.oid AND o.polpermissive AND (o.polcmd = p.polcmd OR o.polcmd = '*' OR p.polcmd = '*')) AS others) w
WHERE c.relrowsecurity AND p.polpermissive AND p.polcmd <> 'r' AND 0 = ANY (p.polroles) AND w.may IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = p.polrelid AND NOT o.polpermissive)
  AND CASE WHEN p.polcmd = 'a' THEN pg_get_expr(p.polwithcheck, p.polrelid) ELSE pg_get_expr(p.polqual, p.polrelid) END = 'true' AND coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'true') = 'true'
