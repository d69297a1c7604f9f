-- A view reads its tables with the rights of its owner, also where another view reads it: policies do not apply where he is a superuser, has BYPASSRLS, or owns
-- the table and row security is not forced. With security_invoker it reads with those of the session's role, through whichever views, except where a
-- materialized view above is refreshed: then with those of its owner. Only views that somebody else may read, or columns of them; not those that filter by a
-- leakproof barrier on purpose (security_barrier).
--
-- A reader without SELECT on the tables could no longer read the view with security_invoker: there a person decides.
WITH RECURSIVE views AS (
    SELECT v.oid, v.relkind, v.relowner, format('%I.%I', s.schema, v.relname) AS name,
           coalesce((SELECT bool_or(CASE WHEN option_name = 'security_invoker' THEN option_value::boolean END) FROM pg_options_to_table(v.reloptions)), false) AS is_invoker,
           coalesce((SELECT bool_or(CASE WHEN option_name = 'security_barrier' THEN option_value::boolean END) FROM pg_options_to_table(v.reloptions)), false) AS is_barrier
    FROM pg_class v JOIN schemas s ON s.oid = v.relnamespace WHERE v.relkind IN ('v', 'm')
), readers AS (
    SELECT v.oid, x.grantee FROM pg_class v, aclexplode(v.relacl) x WHERE v.relkind IN ('v', 'm') AND x.grantee <> v.relowner AND x.privilege_type = 'SELECT'
    UNION
    SELECT v.oid, x.grantee FROM pg_class v JOIN pg_attribute a ON a.attrelid = v.oid, aclexplode(a.attacl) x WHERE v.relkind IN ('v', 'm') AND x.grantee <> v.relowner AND x.privilege_type = 'SELECT'
), uses AS (
    SELECT w.ev_class AS view, d.refobjid AS relation, array_agg(DISTINCT d.refobjsubid::int2) FILTER (WHERE d.refobjsubid > 0) AS attnums
    FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    WHERE w.ev_type = '1' AND d.refobjid <> w.ev_class GROUP BY w.ev_class, d.refobjid
), reads (root, view, reads_as, refreshed_by) AS (
    -- The views that a query of a view reads, and with whose rights each reads.
    SELECT v.oid, v.oid, v.relowner, CASE v.relkind WHEN 'm' THEN v.relowner END FROM views v WHERE NOT v.is_invoker AND NOT v.is_barrier AND v.oid IN (SELECT oid FROM readers)
    UNION
    SELECT r.root, v.oid, CASE WHEN v.is_invoker THEN r.refreshed_by ELSE v.relowner END, CASE v.relkind WHEN 'm' THEN v.relowner ELSE r.refreshed_by END
    FROM reads r JOIN uses u ON u.view = r.view JOIN views v ON v.oid = u.relation
    WHERE NOT v.is_barrier AND (NOT v.is_invoker OR r.refreshed_by IS NOT NULL)
), open AS (
    SELECT r.root, v.oid AS view, v.name, v.relkind, o.rolname AS owner, t.oid AS relation, t."table", t.schema, u.attnums
    FROM reads r JOIN views v ON v.oid = r.view JOIN uses u ON u.view = r.view JOIN all_tables t ON t.oid = u.relation JOIN pg_class c ON c.oid = t.oid JOIN pg_roles o ON o.oid = r.reads_as
    WHERE c.relrowsecurity AND (o.rolsuper OR o.rolbypassrls OR NOT c.relforcerowsecurity AND pg_has_role(r.reads_as, c.relowner, 'USAGE'))
), lacking AS (
    -- Readers, through whichever view, who may not read what the view reads.
    SELECT o.view, o.relation, string_agg(DISTINCT g.name, ', ') AS names,
           min(format('GRANT SELECT%s ON %s TO <READERS>;', coalesce(format(' (%s)', (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = o.relation AND a.attnum = ANY (o.attnums))), ''), o."table")) AS grants
    FROM open o JOIN readers x ON x.oid = o.root, LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
    WHERE NOT has_schema_privilege(x.grantee, (SELECT relnamespace FROM pg_class WHERE oid = o.relation), 'USAGE') OR NOT has_any_column_privilege(x.grantee, o.relation, 'SELECT')
       OR EXISTS (SELECT FROM unnest(o.attnums) n WHERE NOT has_column_privilege(x.grantee, o.relation, n, 'SELECT'))
    GROUP BY o.view, o.relation
)
SELECT v.name AS object, v.name AS identity,
       format('%s%s is read with the rights of %s, to whom the policies of %s do not apply: whoever may read %s sees all rows.', CASE WHEN bool_or(o.view <> v.oid) THEN v.name || ' reads ' ELSE '' END,
              string_agg(DISTINCT o.name, ', '), string_agg(DISTINCT quote_ident(o.owner), ', '), string_agg(DISTINCT o."table", ', '), CASE WHEN bool_or(o.view <> v.oid) THEN v.name ELSE 'it' END) AS issue,
       jsonb_build_object('tables', array_agg(DISTINCT o."table"), 'views', array_agg(DISTINCT o.name), 'owner', string_agg(DISTINCT o.owner, ', '),
                          'readers', (SELECT array_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee)::text END) FROM readers x WHERE x.oid = v.oid)) AS evidence,
       CASE WHEN bool_and(o.relkind = 'v' AND h.has_invoker) AND count(l.names) = 0 THEN string_agg(DISTINCT a.invoker, E'\n') END AS fix,
       CASE WHEN bool_and(o.relkind = 'v' AND h.has_invoker) AND count(l.names) > 0
            THEN format('what readers of the view may see of %s. With security_invoker it reads with their rights, and %s may not SELECT there: the view would fail for them. A GRANT on the columns that the view reads also gives what the view itself leaves out of those; without one, keep the view, put a condition on the reader into it, and set security_barrier.',
                        string_agg(DISTINCT o."table", ', '), string_agg(DISTINCT l.names, ', ')) END AS decide,
       CASE WHEN bool_and(o.relkind = 'v' AND h.has_invoker) AND count(l.names) > 0 THEN E'BEGIN;\n' || string_agg(DISTINCT l.grants, E'\n') || E'\n' || string_agg(DISTINCT a.invoker, E'\n') || E'\nCOMMIT;' END AS draft
FROM open o JOIN views v ON v.oid = o.root LEFT JOIN lacking l ON l.view = o.view AND l.relation = o.relation,
LATERAL (SELECT format('ALTER VIEW %s SET (security_invoker = true);', o.name) AS invoker) a, LATERAL (SELECT current_setting('server_version_num')::int >= 150000 AS has_invoker) h
GROUP BY v.oid, v.name
