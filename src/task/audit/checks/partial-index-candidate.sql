-- Statements that ask for few rows of a table by a condition on one column, often, where no index begins with the column and none has such a condition. pg_stat_statements has
-- IS NULL and a boolean by itself as they were written, and $1 in the place of a constant: which value a comparison asks for, a person has to say. Values of rows are in no
-- report, other than true and false. hypopg tries the index with the rarest of them (`trial`).
WITH asked_for AS MATERIALIZED (
    SELECT row_number() OVER () AS place, query, calls, total_exec_time FROM STATEMENTS
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query ~* '^\s*(select|with|update|delete)' AND query NOT LIKE '%/* pgtend */%'
), words AS MATERIALIZED (
    SELECT DISTINCT q.place, lower(w[1]) AS word FROM asked_for q, regexp_matches(q.query, '[[:alpha:]_][[:alnum:]_$]*', 'g') w
), candidates AS MATERIALIZED (
    -- Materialized: else statistics are joined by the names of columns alone, and each has as many as there are tables.
    SELECT c.*, '"?' || regexp_replace(c."column", '([^a-zA-Z0-9_])', '\\\1', 'g') || '"?' AS called
    FROM columns c
    WHERE NOT c.partitioned AND c.rows >= 1000 AND EXISTS (SELECT FROM words w WHERE w.word = lower(c.name)) AND EXISTS (SELECT FROM words w WHERE w.word = lower(c."column"))
      AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT i.partial AND i.keys[1] = c.attnum)
), sampled AS MATERIALIZED (
    SELECT c.*, s.null_frac, s.n_distinct, s.most_common_vals::text::text[] AS common, s.most_common_freqs AS shares,
           coalesce((SELECT a.attname FROM pg_index p JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.indkey[0] WHERE p.indrelid = c.oid AND p.indisprimary), c."column") AS key
    FROM candidates c JOIN pg_stats s ON s.schemaname = c.schema AND s.tablename = c.name AND s.attname = c."column" AND NOT s.inherited
), few AS (
    -- The most frequent of the values that at most a fifth of the rows have. Where none prevails, an index of the whole column is the answer.
    SELECT DISTINCT ON (s.oid, s.attnum) s.*, v.value, v.share
    FROM sampled s, LATERAL unnest(s.common, s.shares) v(value, share)
    WHERE v.share <= 0.2 AND (s.type IN ('bool', 'text', 'varchar', 'bpchar', 'int2', 'int4', 'int8') OR s.typcategory = 'E') AND s.n_distinct BETWEEN 2 AND 20 AND s.shares[1] >= 0.5
    ORDER BY s.oid, s.attnum, v.share DESC
), conditions AS (
    SELECT oid, "table", name, "column", rows, readable, key, called, null_frac AS share, 'IS NULL' AS label, format('%I IS NULL', "column") AS condition, true AS is_known, '(^|[^[:alnum:]_])' || called || '\s+is\s+null([^a-z]|$)' AS written
    FROM sampled WHERE null_frac > 0 AND null_frac <= 0.2
    UNION ALL
    SELECT oid, "table", name, "column", rows, readable, key, called, 1 - null_frac, 'IS NOT NULL', format('%I IS NOT NULL', "column"), true, '(^|[^[:alnum:]_])' || called || '\s+is\s+not\s+null([^a-z]|$)'
    FROM sampled WHERE null_frac < 1 AND null_frac >= 0.8
    UNION ALL
    SELECT oid, "table", name, "column", rows, readable, key, called, share, 'IS TRUE', format('%I', "column"), true,
           format('(\m(where|and|or|on)|\()\s*("?[[:alnum:]_]+"?\.)?%s\s*(\)|;|$|(and|or|order|group|limit|offset|for|union|returning)\M)|(^|[^[:alnum:]_])%1$s\s+is\s+true\M', called)
    FROM few WHERE type = 'bool' AND value = 't'
    UNION ALL
    SELECT oid, "table", name, "column", rows, readable, key, called, share, 'IS FALSE', format('NOT %I', "column"), true, format('\mnot\s+("?[[:alnum:]_]+"?\.)?%s([^[:alnum:]_."]|$)|(^|[^[:alnum:]_])%1$s\s+is\s+false\M', called)
    FROM few WHERE type = 'bool' AND value = 'f'
    UNION ALL
    SELECT oid, "table", name, "column", rows, readable, key, called, share, CASE WHEN type <> 'bool' THEN '= a value' WHEN value = 't' THEN 'IS TRUE' ELSE 'IS FALSE' END,
           CASE WHEN type <> 'bool' THEN format('%I = %L', "column", value) WHEN value = 't' THEN format('%I', "column") ELSE format('NOT %I', "column") END, false, '(^|[^[:alnum:]_])' || called || '\s*=\s*\$[0-9]'
    FROM few
), named AS MATERIALIZED (
    -- One word after the other: else all words of a statement are joined with each other.
    SELECT c.*, w.place FROM conditions c JOIN words w ON w.word = lower(c.name)
)
SELECT c."table" AS object, format('%s(%I) %s', c."table", c."column", c.label) AS identity,
       CASE WHEN c.is_known THEN format('%s statements ask for rows where %I %s, which are %s %% of %s.', n.calls, c."column", c.label, n.percent, c."table")
            WHEN c.label = '= a value' THEN format('%s statements compare %I with a value, and one of its values stands in only %s %% of %s.', n.calls, c."column", n.percent, c."table")
            ELSE format('%s statements compare %I with true or false: rows where it %s are %s %% of %s.', n.calls, c."column", c.label, n.percent, c."table") END AS issue,
       jsonb_build_object('calls', n.calls, 'seconds', n.seconds, 'share_percent', n.percent, 'rows', c.rows) AS evidence,
       CASE WHEN c.is_known THEN format('CREATE INDEX CONCURRENTLY ON %s (%I) WHERE %s;', c."table", c.key, c.condition) END AS fix,
       CASE WHEN NOT c.is_known THEN format('which value the statements ask for, and whether few rows have it: pg_stat_statements keeps $1 in its place. The index serves statements in which %I is compared with that constant, and not those that get it as a parameter of a generic plan.', c."column") END AS decide,
       CASE WHEN NOT c.is_known THEN format('CREATE INDEX CONCURRENTLY ON %s (%I) WHERE %I = <VALUE>;', c."table", c.key, c."column") END AS draft,
       jsonb_build_object('reads', c."table", 'reads_oid', c.oid::bigint, 'is_readable', c.readable, 'index', format('CREATE INDEX ON %s (%I) WHERE %s', c."table", c.key, c.condition), 'query', format('SELECT * FROM ONLY %s WHERE %s', c."table", c.condition)) AS trial,
       NULL::text AS unknown
FROM (
    SELECT c.oid, c.label, c.is_known, min(c.condition) AS condition, sum(q.calls) AS calls, sum(q.total_exec_time) AS milliseconds
    FROM named c JOIN words w ON w.word = lower(c."column") AND w.place = c.place JOIN asked_for q ON q.place = c.place
    WHERE q.query ~* c.written
      AND NOT EXISTS (SELECT FROM indexes i WHERE i.indrelid = c.oid AND i.partial AND pg_get_expr(i.indpred, i.indrelid) ~ ('(^|[^[:alnum:]_])' || c.called || '([^[:alnum:]_]|$)'))
    GROUP BY c.oid, c."column", c.label, c.is_known HAVING sum(q.calls) >= 100
) f JOIN conditions c ON c.oid = f.oid AND c.label = f.label AND c.is_known = f.is_known AND c.condition = f.condition,
LATERAL (SELECT f.calls::bigint AS calls, round((f.milliseconds / 1000)::numeric, 1) AS seconds, round(100 * c.share::numeric, 1) AS percent) n
UNION ALL
SELECT 'database', 'database', NULL, NULL, NULL, NULL, NULL, NULL, format('%s statements of other roles are hidden: GRANT pg_monitor', count(*)) FROM STATEMENTS WHERE query = '<insufficient privilege>' HAVING count(*) > 0
