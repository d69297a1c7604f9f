-- Materialized views that are to be refreshed, each after those that it reads. $1: their names, as in SQL; NULL: all of the database.
-- Views between them are followed; what a function reads is recorded nowhere. A view reads what was there before it, so there is no circle.
WITH RECURSIVE reads AS (
    SELECT DISTINCT r.ev_class AS reader, d.refobjid AS read
    FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = d.refobjid AND c.relkind IN ('m', 'v')
    WHERE d.refobjid <> r.ev_class
), wanted AS (
    SELECT c.oid FROM pg_class c WHERE CASE WHEN $1::text[] IS NULL THEN c.relkind = 'm' ELSE c.oid IN (SELECT to_regclass(name)::oid FROM unnest($1) name) END
    UNION
    SELECT r.read FROM wanted w JOIN reads r ON r.reader = w.oid
), steps AS (
    SELECT oid, 0 AS step FROM wanted
    UNION
    SELECT r.reader, s.step + 1 FROM steps s JOIN reads r ON r.read = s.oid JOIN wanted w ON w.oid = r.reader
)
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relispopulated AS is_populated, EXISTS (
    -- As matview.c's is_usable_unique_index has it.
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am am ON am.oid = x.relam
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND am.amname = 'btree'
) AS has_unique_index
FROM (SELECT oid, max(step) AS step FROM steps GROUP BY oid) last JOIN pg_class c ON c.oid = last.oid AND c.relkind = 'm' JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY last.step, 1, 2
