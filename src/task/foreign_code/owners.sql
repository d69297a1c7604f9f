-- The owners of `foreign_code` (kind, name, "table", owner) that have fewer rights than the login: the end of living.sql and of path.sql.
, whose AS (
    SELECT f.kind, f.name, f."table", CASE WHEN r.rolname = 'pg_database_owner' THEN d.datdba ELSE f.owner END AS owner
    FROM foreign_code f LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.owner, this_database d
)
SELECT DISTINCT f.kind, f.name, f."table", NULL::text AS function, r.rolname::text AS owner, me.rolname::text AS runs_as,
       me.rolsuper AS is_superuser, me.is_superuser_itself, l.gains
FROM whose f JOIN lesser l ON l.oid = f.owner LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.owner CROSS JOIN me
ORDER BY 1, 3, 2
