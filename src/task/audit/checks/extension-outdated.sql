-- Not those that extension-cve reports, with the same remedy.
SELECT format('extension %I', e.extname) AS object, format('%I', e.extname) AS identity,
       format('%s is at version %s, and the server has %s: functions that are new or mended are not there.', e.extname, e.extversion, a.default_version) AS issue,
       jsonb_build_object('version', e.extversion, 'available', a.default_version) AS evidence,
       format(E'-- read its release notes first: some updates need a REINDEX\nALTER EXTENSION %I UPDATE;', e.extname) AS fix
FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
WHERE e.extversion <> a.default_version AND EXISTS (SELECT FROM pg_extension_update_paths(e.extname) p WHERE p.source = e.extversion AND p.target = a.default_version AND p.path IS NOT NULL)
  AND NOT (e.extname = 'vector' AND e.extversion IN ('0.6.0', '0.6.1', '0.6.2', '0.7.0', '0.7.1', '0.7.2', '0.7.3', '0.7.4', '0.8.0', '0.8.1'))
