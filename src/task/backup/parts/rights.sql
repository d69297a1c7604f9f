-- The statements that give objects the rights of PostgreSQL's own default, from which a dump's grants start: ALTER DEFAULT PRIVILEGES of the
-- target may have given others when they were made. MADE: rows of class, schema (empty: the name is a schema's), name.
SELECT pg_catalog.string_agg(s.statement, E';\n' ORDER BY o.kind, o.name, s.place)
FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::pg_catalog."char" AS type,
           pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relowner AS owner, c.relacl AS acl
    FROM (VALUES MADE) w(class, schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) w.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) w.name
     AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
    WHERE w.class OPERATOR(pg_catalog.=) 'relation'
    UNION ALL
    SELECT 'TYPE', 'T'::pg_catalog."char", pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl
    FROM (VALUES MADE) w(class, schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) w.schema
    JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid AND t.typname OPERATOR(pg_catalog.=) w.name
    WHERE w.class OPERATOR(pg_catalog.=) 'type'
    UNION ALL
    SELECT 'ROUTINE', 'f'::pg_catalog."char",
           pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
               (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.type, NULL), ', ' ORDER BY a.place)
                FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY a(type, place))),
           p.proowner, p.proacl
    FROM (VALUES MADE) w(class, schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) w.schema
    JOIN pg_catalog.pg_proc p ON p.pronamespace OPERATOR(pg_catalog.=) n.oid AND p.proname OPERATOR(pg_catalog.=) w.name
    WHERE w.class OPERATOR(pg_catalog.=) 'routine'
    UNION ALL
    SELECT 'SCHEMA', 'n'::pg_catalog."char", pg_catalog.format('%I', n.nspname), n.nspowner, n.nspacl
    FROM (VALUES MADE) w(class, schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) w.name
    WHERE w.class OPERATOR(pg_catalog.=) 'schema'
) o
CROSS JOIN LATERAL (
    SELECT 1 AS place, pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name, g.role) AS statement
    FROM (SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END AS role
          FROM pg_catalog.aclexplode(o.acl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) x.grantee) g
    WHERE g.role IS NOT NULL
    UNION ALL
    SELECT 2, pg_catalog.format('GRANT ALL ON %s %s TO %s', o.kind, o.name, g.role)
    FROM (SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END AS role
          FROM pg_catalog.aclexplode(pg_catalog.acldefault(o.type, o.owner)) x
          LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) x.grantee) g
    WHERE g.role IS NOT NULL
) s
WHERE o.acl IS NOT NULL
