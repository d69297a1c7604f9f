-- Not for functions with BEGIN ATOMIC: their names were resolved at creation.
SELECT f.routine AS object, f.routine AS identity,
       format('%s runs with the rights of %s and resolves names through the caller''s search_path: whoever may create an object there can run code as %2$s.', f.routine, pg_get_userbyid(f.proowner)) AS issue,
       jsonb_build_object('owner', pg_get_userbyid(f.proowner), 'public_may_execute', f.public_execute) AS evidence,
       format(E'-- add other schemas whose objects it uses\nALTER ROUTINE %s SET search_path = pg_catalog, %I, pg_temp;', f.routine, f.schema) AS fix
FROM (
    SELECT format('%I.%I(%s)', s.schema, p.proname, pg_get_function_identity_arguments(p.oid)) AS routine, s.schema, p.proowner,
           p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) x WHERE x.grantee = 0 AND x.privilege_type = 'EXECUTE') AS public_execute
    FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace
    WHERE p.prosecdef AND p.prokind <> 'a' AND p.prosqlbody IS NULL
      AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
) f
