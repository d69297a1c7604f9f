SELECT w.who AS object, w.who AS identity,
       format('session_replication_role is %s for %s: in its sessions no trigger fires, and no foreign key is checked.', v.value, w.who) AS issue,
       jsonb_build_object('setting', v.value) AS evidence,
       format('ALTER %s RESET session_replication_role;', w.target) AS fix
FROM pg_db_role_setting d LEFT JOIN pg_roles r ON r.oid = d.setrole, unnest(d.setconfig) c,
LATERAL (SELECT split_part(c, '=', 2) AS value) v,
LATERAL (SELECT CASE WHEN d.setrole = 0 THEN format('database %I', current_database()) ELSE format('role %I', r.rolname) END AS who,
                CASE WHEN d.setrole = 0 AND d.setdatabase = 0 THEN 'ROLE ALL' WHEN d.setrole = 0 THEN format('DATABASE %I', current_database()) WHEN d.setdatabase = 0 THEN format('ROLE %I', r.rolname) ELSE format('ROLE %I IN DATABASE %I', r.rolname, current_database()) END AS target) w
WHERE c LIKE 'session\_replication\_role=%' AND v.value = 'replica' AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
