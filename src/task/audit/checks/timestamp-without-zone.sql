-- Without rows the type is not a problem yet. A partition key cannot be changed. All columns of a table in one statement: it is rewritten
-- once. In which zone the values were written, only a person can say. A default that makes a time of UTC by itself (function 1159 is
-- timezone(text, timestamptz)) would be read in the session's zone after the change: it becomes now().
SELECT f.object, f.identity, f.issue, f.evidence, f.decide, f.draft, format('tables of schema %I have times without a zone', f.schema) AS convention,
       f.sharing, s.siblings
FROM (
    SELECT c.schema, c."table" AS object, c."table" AS identity,
           format('%s: the type is timestamp without time zone, so which moment a value means depends on the session that wrote it.', string_agg(format('%I', c."column"), ', ' ORDER BY c.attnum)) AS issue,
           jsonb_build_object('columns', array_agg(c."column" ORDER BY c.attnum), 'rows', max(c.rows)) AS evidence,
           format('in which time zone the values were written%s, and whether the application reads timestamptz as well.', CASE WHEN bool_or(f.oid IS NOT NULL) THEN ' (a default says UTC)' END) AS decide,
           coalesce(string_agg(DISTINCT d.remark, ''), '')
               || format(E'ALTER TABLE %s\n    %s;', c."table",
                         string_agg(CASE WHEN f.oid IS NULL THEN format('ALTER COLUMN %I TYPE %s USING %1$I AT TIME ZONE <ZONE>', c."column", z.type)
                                         ELSE format('ALTER COLUMN %I DROP DEFAULT, ALTER COLUMN %1$I TYPE %s USING %1$I AT TIME ZONE <ZONE>, ALTER COLUMN %1$I SET DEFAULT pg_catalog.now()', c."column", z.type) END, E',\n    ' ORDER BY c.attnum)) AS draft,
           count(*) OVER (PARTITION BY c.schema) AS sharing
    FROM columns c
    LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum
    LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = c.attnum AND f.adbin::text LIKE '%:funcid 1159 %',
    LATERAL (SELECT CASE WHEN c.atttypmod >= 0 THEN format('timestamptz(%s)', c.atttypmod) ELSE 'timestamptz' END AS type) z
    WHERE c.type = 'timestamp' AND c.rows > 0 AND c.attgenerated = '' AND NOT c.is_frameworks
      AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
    GROUP BY c.schema, c."table"
) f JOIN (SELECT schema, count(DISTINCT oid) AS siblings FROM columns WHERE type IN ('timestamp', 'timestamptz') AND rows > 0 AND NOT is_frameworks GROUP BY schema) s ON s.schema = f.schema
