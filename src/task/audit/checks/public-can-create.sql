SELECT format('schema %I', s.schema) AS object, format('%I', s.schema) AS identity,
       format('Every role that can connect may create objects in schema %I: a function or table with the right name is used in the place of another one, with the rights of whoever calls it.', s.schema) AS issue,
       jsonb_build_object('owner', pg_get_userbyid(n.nspowner)) AS evidence,
       format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', s.schema) AS fix
FROM schemas s JOIN pg_namespace n ON n.oid = s.oid
WHERE EXISTS (SELECT FROM aclexplode(n.nspacl) x WHERE x.grantee = 0 AND x.privilege_type = 'CREATE')
