-- Without rows the type is nobody's problem yet. A partition key cannot be changed.
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I is a timestamp without time zone: what moment it means depends on who wrote it.', c."column") AS issue,
       jsonb_build_object('column', c."column", 'rows', c.rows) AS evidence,
       format(E'%s-- if it was written in UTC\nALTER TABLE %s ALTER COLUMN %I TYPE timestamptz USING %3$I AT TIME ZONE ''UTC'';', CASE WHEN d.views IS NOT NULL THEN format(E'-- views use it, to be dropped before and made again after: %s\n', translate(d.views, E'\n\r', '  ')) ELSE '' END, c."table", c."column") AS fix
FROM columns c
LEFT JOIN LATERAL (
    SELECT string_agg(DISTINCT w.ev_class::regclass::text, ', ') AS views FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = c.attnum
) d ON true
WHERE c.type = 'timestamp' AND c.rows > 0 AND c.attgenerated = ''
  AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
