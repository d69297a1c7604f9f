-- A view reads its tables with the rights of its owner: policies do not apply where he is a superuser, has BYPASSRLS, or owns the table and row security is
-- not forced. Only views that somebody else may read; not those that ask for the current role by themselves, nor those that filter by a leakproof barrier
-- on purpose (security_barrier).
SELECT format('%I.%I', s.schema, v.relname) AS object, format('%I.%I', s.schema, v.relname) AS identity,
       format('%I.%I is read with the rights of %I, to whom the policies of %s do not apply: whoever may read it sees all rows.', s.schema, v.relname, o.rolname, string_agg(DISTINCT t."table", ', ')) AS issue,
       jsonb_build_object('tables', array_agg(DISTINCT t."table"), 'owner', o.rolname, 'readers', (SELECT array_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee)::text END) FROM aclexplode(v.relacl) x WHERE x.grantee <> v.relowner AND x.privilege_type = 'SELECT')) AS evidence,
       CASE WHEN v.relkind = 'v' AND current_setting('server_version_num')::int >= 150000 THEN format('ALTER VIEW %I.%I SET (security_invoker = true);', s.schema, v.relname) END AS fix
FROM pg_class v JOIN schemas s ON s.oid = v.relnamespace JOIN pg_roles o ON o.oid = v.relowner JOIN pg_rewrite w ON w.ev_class = v.oid
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
JOIN tables t ON t.oid = d.refobjid JOIN pg_class c ON c.oid = t.oid
WHERE v.relkind IN ('v', 'm') AND c.relrowsecurity AND (o.rolsuper OR o.rolbypassrls OR NOT c.relforcerowsecurity AND pg_has_role(v.relowner, c.relowner, 'USAGE'))
  AND NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) WHERE option_name IN ('security_invoker', 'security_barrier') AND CASE WHEN option_name IN ('security_invoker', 'security_barrier') THEN option_value::boolean END)
  AND EXISTS (SELECT FROM aclexplode(v.relacl) x WHERE x.grantee <> v.relowner AND x.privilege_type = 'SELECT')
GROUP BY v.oid, s.schema, o.rolname, o.rolsuper
