-- The server's setting, and those of roles and databases, which win. What is stored already: password-not-scram.
SELECT 'setting password_encryption' AS object, 'password_encryption' AS identity,
       'password_encryption is md5: every password that is set from now on is stored in a form that is enough to log in, and that is guessed at billions a second.' AS issue,
       jsonb_build_object('source', g.source) AS evidence,
       E'ALTER SYSTEM SET password_encryption = ''scram-sha-256'';\nSELECT pg_catalog.pg_reload_conf();'
           || CASE WHEN g.source = 'command line' THEN E'\n-- it is set on the server''s command line, which wins: change it there and restart' ELSE '' END AS fix
FROM pg_settings g WHERE g.name = 'password_encryption' AND g.setting = 'md5' AND g.source NOT IN ('database', 'user', 'database user', 'client', 'session')
UNION ALL
SELECT w.who, w.target, format('password_encryption is md5 for %s: passwords that it sets are stored in a form that is enough to log in.', w.who), jsonb_build_object('setting', c), format('ALTER %s RESET password_encryption;', w.target)
FROM pg_db_role_setting d LEFT JOIN pg_roles r ON r.oid = d.setrole, unnest(d.setconfig) c,
LATERAL (SELECT CASE WHEN d.setrole = 0 AND d.setdatabase = 0 THEN 'all roles' WHEN d.setrole = 0 THEN format('database %I', current_database()) ELSE format('role %I', r.rolname) END AS who,
                CASE WHEN d.setrole = 0 AND d.setdatabase = 0 THEN 'ROLE ALL' WHEN d.setrole = 0 THEN format('DATABASE %I', current_database()) WHEN d.setdatabase = 0 THEN format('ROLE %I', r.rolname) ELSE format('ROLE %I IN DATABASE %I', r.rolname, current_database()) END AS target) w
WHERE c ~ '^password_encryption=(md5|on|true|yes|1)$' AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
