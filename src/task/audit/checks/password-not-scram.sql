-- Only superusers may read pg_authid; others get an unknown result.
SELECT format('role %I', rolname) AS object, format('%I', rolname) AS identity,
       format('The password of %s is stored as %s: whoever reads a backup or an old disk can log in with it.', rolname, CASE WHEN rolpassword LIKE 'md5%' THEN 'MD5' ELSE 'text' END) AS issue,
       jsonb_build_object('password_encryption', current_setting('password_encryption')) AS evidence,
       format('when the role gets a password again, which whoever logs in with it has to know: with password_encryption = scram-sha-256, \password %I in psql asks for it and sends only its SCRAM form.', rolname) AS decide
FROM pg_authid WHERE rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%' AND rolcanlogin
