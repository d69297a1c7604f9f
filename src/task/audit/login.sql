-- The login of this session. `power`: the superuser that it is or can become, or a predefined role by which it reaches the server's files and
-- programs, which is as much.
SELECT pg_catalog.quote_ident(me.rolname) AS name, pg_catalog.quote_ident(p.rolname) AS power, coalesce(p.rolsuper, false) AS is_a_superusers, coalesce(p.oid = me.oid, false) AS is_its_own
FROM pg_catalog.pg_roles me LEFT JOIN LATERAL (
    SELECT r.oid, r.rolname, r.rolsuper FROM pg_catalog.pg_roles r
    WHERE (r.rolsuper OR r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')) AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
    ORDER BY r.oid = me.oid DESC, r.rolsuper DESC, r.rolname LIMIT 1
) p ON true
WHERE me.rolname = session_user
