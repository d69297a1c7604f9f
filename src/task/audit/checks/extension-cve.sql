-- Extensions with a published vulnerability: name, first and last affected version, identifier, description.
SELECT format('extension %I', e.extname) AS object, format('%I %s', e.extname, v.cve) AS identity,
       format('%s %s has %s: %s.', e.extname, e.extversion, v.cve, v.what) AS issue,
       jsonb_build_object('version', e.extversion, 'affected', v.first || ' to ' || v.last, 'available', a.default_version) AS evidence,
       format(E'-- once a package newer than %s is installed on the server\nALTER EXTENSION %I UPDATE;', v.last, e.extname) AS fix
FROM pg_extension e
JOIN (VALUES ('vector', '0.6.0', '0.8.1', 'CVE-2026-3172', 'a parallel build of an hnsw index may read and write beyond its memory')) v(name, first, last, cve, what) ON v.name = e.extname
LEFT JOIN pg_available_extensions a ON a.name = e.extname
WHERE e.extversion ~ '^[0-9]+(\.[0-9]+)*$'
  AND string_to_array(e.extversion, '.')::int[] BETWEEN string_to_array(v.first, '.')::int[] AND string_to_array(v.last, '.')::int[]
