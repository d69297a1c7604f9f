-- The server's setting, where it listens beyond this machine; and sessions of this moment from other machines that are not encrypted although they could be.
SELECT 'setting ssl' AS object, 'ssl' AS identity,
       format('ssl is off, and the server listens on %s: passwords, statements and rows cross the network as they are%s.', q.addresses, CASE WHEN q.sessions > 0 THEN format(', at this moment those of %s sessions', q.sessions) ELSE '' END) AS issue,
       jsonb_build_object('listen_addresses', q.addresses, 'sessions', q.sessions) AS evidence,
       'whose certificate: with server.crt and server.key in the data directory (or ssl_cert_file and ssl_key_file), ALTER SYSTEM SET ssl = on and pg_reload_conf() turn it on; hostssl in pg_hba.conf refuses connections without it.' AS decide,
       CASE WHEN q.sessions > 0 THEN 'high' END AS level
FROM (SELECT current_setting('listen_addresses') AS addresses, (SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL AND NOT (client_addr <<= '127.0.0.0/8' OR client_addr = '::1')) AS sessions) q
WHERE current_setting('ssl') = 'off' AND EXISTS (SELECT FROM unnest(string_to_array(q.addresses, ',')) a WHERE trim(a) <> '' AND trim(a) !~ '^(localhost$|127\.|::1$)')
UNION ALL
SELECT format('role %I', s.usename), format('sessions of %I', s.usename),
       format('%s of %I from other machines %s not encrypted (%s), although the server could.', CASE count(*) WHEN 1 THEN 'A session' ELSE format('%s sessions', count(*)) END, s.usename, CASE count(*) WHEN 1 THEN 'is' ELSE 'are' END, string_agg(DISTINCT host(s.client_addr), ', ')),
       jsonb_build_object('sessions', count(*), 'addresses', array_agg(DISTINCT host(s.client_addr))),
       'whether these clients can: sslmode=verify-full in their connection settings; then hostssl in the place of host in pg_hba.conf.', NULL
FROM pg_stat_activity s JOIN pg_stat_ssl x ON x.pid = s.pid
WHERE current_setting('ssl') = 'on' AND NOT x.ssl AND s.usename IS NOT NULL AND NOT (s.client_addr <<= '127.0.0.0/8' OR s.client_addr = '::1')
GROUP BY s.usename
