-- Roles that own something in this database or may create something in it, each with the places of which it holds CREATE. They follow
-- ../rights.sql, which is a part of a WITH RECURSIVE; a JOIN or a condition on `a` follows.
, creating AS (
    -- The privilege of pg_database_owner is the database's owner's.
    SELECT CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE x.grantee END AS oid, x.place
    FROM this_database d, (
        SELECT a.grantee, a.privilege_type, pg_catalog.format('SCHEMA %I', n.nspname) AS place FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) a
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%' AND a.grantee <> n.nspowner
        UNION ALL
        SELECT a.grantee, a.privilege_type, pg_catalog.format('DATABASE %I', b.datname) FROM pg_catalog.pg_database b, LATERAL pg_catalog.aclexplode(b.datacl) a
        WHERE b.datname = pg_catalog.current_database() AND a.grantee <> b.datdba
    ) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
    WHERE x.privilege_type = 'CREATE'
), holders AS (
    SELECT c.oid FROM creating c
), authors AS (
    SELECT o.oid, true AS is_owner FROM every_owner o
    UNION ALL
    SELECT DISTINCT c.oid, false FROM creating c WHERE c.oid NOT IN (SELECT o.oid FROM every_owner o)
)
SELECT pg_catalog.quote_ident(r.rolname) AS role, a.is_owner, ARRAY(SELECT DISTINCT c.place FROM creating c WHERE c.oid = a.oid ORDER BY 1) AS creates_in
FROM authors a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.oid
