-- Facts of the server and of this database, as one jsonb: the columns of the catalogs differ from version to version
-- (datlocprovider came with 15, daticulocale became datlocale in 17), and to_jsonb takes them as they are.
WITH d AS MATERIALIZED (
    SELECT oid, datdba, datacl, dattablespace, pg_catalog.to_jsonb(pg_database) AS row
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
), role_names AS MATERIALIZED (
    SELECT oid, rolname::text AS name FROM pg_catalog.pg_roles
)
SELECT pg_catalog.jsonb_build_object(
    'in_recovery', pg_catalog.pg_is_in_recovery(),
    'clock', pg_catalog.clock_timestamp(),
    'database', pg_catalog.jsonb_build_object(
        'name', d.row -> 'datname',
        'oid', d.oid::bigint,
        'owner', pg_catalog.pg_get_userbyid(d.datdba),
        'encoding', pg_catalog.pg_encoding_to_char((d.row ->> 'encoding')::integer),
        'collate', d.row -> 'datcollate',
        'ctype', d.row -> 'datctype',
        'locale_provider', coalesce(d.row -> 'datlocprovider', '"c"'),
        'locale', coalesce(d.row ->> 'datlocale', d.row ->> 'daticulocale'),
        'icu_rules', d.row -> 'daticurules',
        'size_bytes', pg_catalog.pg_database_size(d.oid),
        'connection_limit', d.row -> 'datconnlimit',
        'is_template', d.row -> 'datistemplate',
        'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = d.dattablespace AND spcname <> 'pg_default'),
        'settings', coalesce((SELECT pg_catalog.to_jsonb(setconfig) FROM pg_catalog.pg_db_role_setting
                              WHERE setdatabase = d.oid AND setrole = 0), '[]'),
        'role_settings', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('role', r.name, 'settings', setconfig) ORDER BY r.name)
                                   FROM pg_catalog.pg_db_role_setting JOIN role_names r ON r.oid = setrole
                                   WHERE setdatabase = d.oid), '[]'),
        'grants', (SELECT pg_catalog.jsonb_agg(a.privilege_type || ' ' || coalesce(r.name, '') ORDER BY a.privilege_type, r.name)
                   FROM pg_catalog.aclexplode(d.datacl) a LEFT JOIN role_names r ON r.oid = a.grantee
                   WHERE a.grantee = 0 OR r.oid IS NOT NULL),
        'privileges', CASE WHEN d.datacl IS NOT NULL THEN coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('privilege', a.privilege_type, 'grantee', r.name,
                                                   'grantor', g.name, 'grantable', a.is_grantable) ORDER BY a.ordinality)
                       FROM pg_catalog.aclexplode(d.datacl) WITH ORDINALITY a (grantor, grantee, privilege_type, is_grantable, ordinality)
                       LEFT JOIN role_names r ON r.oid = a.grantee LEFT JOIN role_names g ON g.oid = a.grantor
                       WHERE a.grantee = 0 OR r.oid IS NOT NULL), '[]') END,
        'security_labels', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', provider, 'label', label))
                                     FROM pg_catalog.pg_shseclabel
                                     WHERE classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objoid = d.oid), '[]'),
        'comment', pg_catalog.shobj_description(d.oid, 'pg_database')
    ),
    'extensions', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', extname, 'version', extversion, 'schema', nspname) ORDER BY extname)
                            FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace), '[]'),
    -- Owners and grantees. The bootstrap superuser is pinned and so not in pg_shdepend: owners are asked for, too.
    'roles', coalesce((SELECT pg_catalog.jsonb_agg(name ORDER BY name) FROM role_names WHERE oid IN (
         SELECT refobjid FROM pg_catalog.pg_shdepend WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND dbid = d.oid
         UNION SELECT relowner FROM pg_catalog.pg_class WHERE oid >= 16384
         UNION SELECT nspowner FROM pg_catalog.pg_namespace WHERE oid >= 16384
         UNION SELECT proowner FROM pg_catalog.pg_proc WHERE oid >= 16384
         UNION SELECT typowner FROM pg_catalog.pg_type WHERE oid >= 16384)), '[]'),
    'tablespaces', coalesce((SELECT pg_catalog.jsonb_agg(spcname ORDER BY spcname) FROM pg_catalog.pg_tablespace
                             WHERE spcname <> 'pg_global' AND oid IN (SELECT reltablespace FROM pg_catalog.pg_class)), '[]'),
    'event_triggers', coalesce((SELECT pg_catalog.jsonb_agg(evtname ORDER BY evtname) FROM pg_catalog.pg_event_trigger), '[]'),
    'subscriptions', coalesce((SELECT pg_catalog.jsonb_agg(subname ORDER BY subname) FROM pg_catalog.pg_subscription
                               WHERE subdbid = d.oid), '[]'),
    'partitions', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname,
                                                        'root_schema', rn.nspname, 'root_name', rc.relname)
                                                        ORDER BY n.nspname, c.relname)
                            FROM pg_catalog.pg_class c
                            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                            JOIN pg_catalog.pg_class rc ON rc.oid = pg_catalog.pg_partition_root(c.oid)
                            JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
                            WHERE c.relispartition AND c.relkind IN ('r', 'f')), '[]'),
    -- Whose options the view pg_user_mappings hides from this role, by the view's own condition.
    'unreadable', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.format('the options (user, password) of the user mapping of %s for server %s',
                                                        m.usename, m.srvname) ORDER BY m.srvname, m.usename)
                            FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
                            WHERE m.umoptions IS NULL AND NOT coalesce(
                                (m.umuser <> 0 AND m.usename = current_user
                                 AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(s.oid, 'USAGE')))
                                OR (m.umuser = 0 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE'))
                                OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), false)), '[]')
) FROM d
