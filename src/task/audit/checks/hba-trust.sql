-- Only superusers, and roles to whom it was granted, may read the rules. Not for this machine's own addresses, nor for its socket.
SELECT 'pg_hba.conf' AS object, format('%s %s %s %s', h.type, array_to_string(h.database, ','), array_to_string(h.user_name, ','), h.address) AS identity,
       format('Line %s of pg_hba.conf lets %s connect from %s without a password.', h.line_number, CASE WHEN 'all' = ANY (h.user_name) THEN 'every role, a superuser too,' ELSE array_to_string(h.user_name, ', ') END, CASE h.address WHEN 'all' THEN 'everywhere' ELSE h.address || coalesce(' (mask ' || h.netmask || ')', '') END) AS issue,
       jsonb_build_object('line', h.line_number, 'databases', h.database, 'roles', h.user_name, 'address', h.address) AS evidence
FROM pg_hba_file_rules h
WHERE h.auth_method = 'trust' AND h.type <> 'local' AND h.error IS NULL
  AND NOT coalesce(h.address IN ('localhost', 'samehost') OR h.address = '::1' AND h.netmask = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
           OR h.address LIKE '127.%' AND h.netmask::inet >= '255.0.0.0', false)
