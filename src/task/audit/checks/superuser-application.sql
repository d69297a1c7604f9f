-- Sessions at this moment, except those of people and of tools that need it. Numbers in a name (processes, workers) are not part of the key.
SELECT format('role %I', s.usename) AS object, format('%I %s', s.usename, n.application) AS identity,
       format('%s connects as %s, which is a superuser: any hole in it opens the whole server.', CASE WHEN n.application = '' THEN 'An application' ELSE min(s.application_name) END, s.usename) AS issue,
       jsonb_build_object('sessions', count(*), 'from', array_agg(DISTINCT coalesce(host(s.client_addr), 'local'))) AS evidence,
       CASE WHEN bool_or(s.application_name IS NULL) THEN format('sessions of the superuser %s are hidden: GRANT pg_monitor', s.usename) END AS unknown,
       CASE WHEN r.oid = 10 THEN format(E'-- the bootstrap superuser stays one: create a role for the application, then let it connect as that role\nCREATE ROLE %I LOGIN;\n', current_database() || '_app')
            ELSE '' END
       || coalesce((SELECT string_agg(format(E'GRANT USAGE ON SCHEMA %1$I TO %2$I;\nGRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %1$I TO %2$I;\nGRANT USAGE ON ALL SEQUENCES IN SCHEMA %1$I TO %2$I;', schema,
                                             CASE WHEN r.oid = 10 THEN current_database() || '_app' ELSE s.usename END), E'\n' ORDER BY schema) FROM schemas), '')
       || CASE WHEN r.oid <> 10 THEN format(E'\nALTER ROLE %I NOSUPERUSER;', s.usename) ELSE '' END AS fix
FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid,
LATERAL (SELECT regexp_replace(coalesce(s.application_name, ''), '[0-9]+', 'N', 'g') AS application) n
WHERE r.rolsuper AND s.datname = current_database() AND s.pid <> pg_backend_pid() AND coalesce(s.backend_type, 'client backend') = 'client backend'
  AND coalesce(s.application_name, '?') !~* '^(psql|pg_dump|pg_restore|pg_basebackup|pgtend|pgbench|pgAdmin|DBeaver|DataGrip|vacuumdb|reindexdb|pg_repack|TablePlus|Postico|barman|pgbackrest|patroni|postgres_exporter|pgcli|pg_cron|pg_recvlogical|pg_upgrade|pg_amcheck|repmgr|wal-g|pghero|pganalyze|pgwatch|check_postgres|datadog|zabbix|Navicat|IntelliJ|Beekeeper)'
GROUP BY s.usename, n.application, r.oid
