SELECT t."table" AS object, t."table" AS identity,
       format('Every role that can connect may %s rows of %s.', string_agg(DISTINCT x.privilege_type, ', '), t."table") AS issue,
       jsonb_build_object('privileges', array_agg(DISTINCT x.privilege_type), 'rows', max(t.rows)) AS evidence,
       format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %s FROM PUBLIC;', t."table")
           || coalesce((SELECT string_agg(format(E'\nREVOKE INSERT (%1$I), UPDATE (%1$I) ON %2$s FROM PUBLIC;', a.attname, t."table"), '' ORDER BY a.attnum) FROM pg_attribute a, aclexplode(a.attacl) y
                        WHERE a.attrelid = t.oid AND y.grantee = 0 AND y.privilege_type IN ('INSERT', 'UPDATE')), '') AS fix
FROM tables t, LATERAL (
    SELECT privilege_type FROM aclexplode(t.relacl) WHERE grantee = 0
    UNION ALL
    SELECT y.privilege_type FROM pg_attribute a, aclexplode(a.attacl) y WHERE a.attrelid = t.oid AND y.grantee = 0
) x
WHERE x.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
GROUP BY t."table", t.oid
