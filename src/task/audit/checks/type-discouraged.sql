-- One finding for each type and schema. char(n) up to three letters is a code, and does no harm, nor do the tables of pgbench. Not columns of a foreign key, on either side, whose types
-- change together or not at all, nor a partition key.
SELECT format('%I', q.schema) AS object, format('%I %s', q.schema, q.kind) AS identity,
       format('%s of schema %I: %s. %s', CASE count(*) WHEN 1 THEN 'A column' ELSE format('%s columns', count(*)) END, q.schema, string_agg(format('%s.%I', q.name, q."column"), ', ' ORDER BY q.name, q.attnum) FILTER (WHERE q.turn <= 8) || CASE WHEN count(*) > 8 THEN ', and others' ELSE '' END, min(q.why)) AS issue,
       jsonb_build_object('type', q.kind, 'columns', (array_agg(format('%s.%I', q."table", q."column") ORDER BY q.name, q.attnum))[1:50]) AS evidence,
       string_agg(format('%sALTER TABLE %s ALTER COLUMN %I TYPE %s USING %I::%s;', coalesce(q.remark, ''), q."table", q."column", q.better, q."column", q.better), E'\n' ORDER BY q.name, q.attnum) FILTER (WHERE q.turn <= 50) AS fix
FROM (
    SELECT c.*, k.*, d.remark, row_number() OVER (PARTITION BY c.schema, k.kind ORDER BY c.name, c.attnum) AS turn
    FROM columns c LEFT JOIN hindrances d ON d.oid = c.oid AND d.attnum = c.attnum,
    LATERAL (SELECT CASE c.type WHEN 'bpchar' THEN 'char(n)' ELSE c.type END AS kind,
                    CASE c.type WHEN 'json' THEN 'jsonb' WHEN 'money' THEN 'numeric(19,2)' ELSE format('varchar(%s)', c.atttypmod - 4) END AS better,
                    CASE c.type WHEN 'json' THEN 'json is a text: each access parses it again, it has no equality, and no index can be built on it.' WHEN 'money' THEN 'What a value of money means depends on lc_monetary of the session.' ELSE 'char(n) pads with blanks, which take space and are compared in surprising ways.' END AS why) k
    WHERE c.type IN ('json', 'money', 'bpchar') AND (c.type <> 'bpchar' OR c.atttypmod - 4 > 3 AND c.name !~ '^pgbench_') AND c.attgenerated = ''
      AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND (f.conrelid = c.oid AND c.attnum = ANY (f.conkey) OR f.confrelid = c.oid AND c.attnum = ANY (f.confkey)))
      AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND c.attnum = ANY (p.partattrs::int2[]))
) q
GROUP BY q.schema, q.kind
