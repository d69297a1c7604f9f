-- Functions whose body is a text, in expressions and conditions of indexes; not those with BEGIN ATOMIC, whose names were resolved at creation, nor C. Only where a word of the body is
-- the name of something outside pg_catalog, which is in every search_path.
SELECT q.routine AS object, q.routine AS identity,
       format('%s is used by %s and resolves names through the search_path of whoever is there: REINDEX, VACUUM and ANALYZE (since 17) and a restore have another one, and fail or compute another value.', q.routine, q.indexes) AS issue,
       jsonb_build_object('indexes', q.list) AS evidence,
       format(E'-- add other schemas whose objects it uses; a function in SQL is no longer inlined into queries\nALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp;', q.routine, q.schema) AS fix
FROM (
    SELECT format('%I.%I(%s)', s.schema, p.proname, pg_get_function_identity_arguments(p.oid)) AS routine, s.schema,
           CASE count(DISTINCT i.index) WHEN 1 THEN 'index ' || min(i.index) ELSE format('%s indexes', count(DISTINCT i.index)) END AS indexes, (array_agg(DISTINCT i.index))[1:20] AS list
    FROM indexes i JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.oid AND d.refclassid = 'pg_proc'::regclass
    JOIN pg_proc p ON p.oid = d.refobjid JOIN schemas s ON s.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
      AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')
      AND EXISTS (
          SELECT FROM regexp_split_to_table(lower(p.prosrc), '[^a-z0-9_$\u0080-\uffff]+') w
          WHERE w <> lower(p.proname) AND (EXISTS (SELECT FROM pg_proc o WHERE o.proname = w AND o.pronamespace <> 'pg_catalog'::regnamespace) OR EXISTS (SELECT FROM pg_class o WHERE o.relname = w AND o.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND o.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace))
                 OR EXISTS (SELECT FROM pg_type o WHERE o.typname = w AND o.typrelid = 0 AND o.typnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace))))
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
    GROUP BY p.oid, p.proname, s.schema
) q
