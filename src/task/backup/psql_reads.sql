-- Functions with the word begin in small letters where it may be a name: keywords are written in capitals.
SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
       pg_catalog.pg_get_functiondef(p.oid)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE p.oid >= 16384 AND p.prokind <> 'a' AND n.nspname NOT LIKE 'pg\_%'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
  AND (p.prosqlbody IS NOT NULL AND pg_catalog.pg_get_function_sqlbody(p.oid) ~ '\mbegin\M'
       OR 'begin' IN (p.proname, n.nspname, t.typname, tn.nspname) OR t.typname = '_begin')
ORDER BY 1 LIMIT $1
