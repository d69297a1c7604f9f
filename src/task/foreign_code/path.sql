-- Roles with fewer rights than the login that can shape where its sessions find names without a schema. $1: schemas of the search_path, those that exist;
-- $2: others in it; $3: whether the database's owner sets the path, or may. It follows ../rights.sql, which is a part of a WITH RECURSIVE.
, places AS (
    SELECT n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
    WHERE n.nspname = ANY ($1::text[]) AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_temp')
), held AS MATERIALIZED (
    SELECT pg_catalog.quote_ident(p.nspname) AS name, '' AS "table", x.grantee AS oid FROM places p, me, LATERAL pg_catalog.aclexplode(p.nspacl) x
    WHERE me.rolsuper AND x.privilege_type = 'CREATE' AND x.grantee <> p.nspowner
    UNION
    -- Whoever may make schemas can make the first of the path's that is not there.
    SELECT NULL, pg_catalog.quote_ident(d.datname), x.grantee FROM pg_catalog.pg_database d, me, LATERAL pg_catalog.aclexplode(d.datacl) x
    WHERE me.rolsuper AND d.datname = pg_catalog.current_database() AND x.privilege_type = 'CREATE' AND x.grantee <> d.datdba AND $2::text[] <> '{}'
), holders AS (
    SELECT h.oid FROM held h
), foreign_code AS (
    SELECT 'path' AS kind, NULL AS name, pg_catalog.quote_ident(pg_catalog.current_database()) AS "table", d.datdba AS owner FROM this_database d WHERE $3::boolean OR $2::text[] <> '{}'
    UNION SELECT 'path', pg_catalog.quote_ident(p.nspname), '', p.nspowner FROM places p
    UNION SELECT 'CREATE', h.name, h."table", h.oid FROM held h
)
