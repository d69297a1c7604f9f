-- PostgreSQL's own functions that take SQL, reach files or change the server: whoever may write an expression can do so with them, as the role
-- that evaluates it. The CTE `acting` has their oids.
acting AS (
    SELECT p.oid FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.provolatile <> 'i'
      AND p.proname ~ '^(pg_|lo_|loread|lowrite|ts_stat|ts_rewrite|set_config|setval)|_to_xml'
)
