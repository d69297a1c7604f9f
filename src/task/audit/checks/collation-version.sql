-- Of the database's own collation (since 15) and of others. Only where an index certainly has that order, and then with those that may have it; C and POSIX have no version. It follows collated.sql.
SELECT v.what AS object, v.what AS identity,
       format('%s was made with version %s of its library, and the server now has %s: %s may be in another order than the one in which it is searched, so that rows are not found and duplicates are accepted.', v.what, v.recorded, v.actual, CASE count(*) WHEN 1 THEN format('the index %s', min(i.index)) ELSE format('each of %s indexes', count(*)) END)
           || coalesce(format(' Its order also divides the rows of %s: some may be in a wrong partition now, and no rebuild moves them.', (SELECT r.tables FROM in_ranges r WHERE r.collation = v.oid)), '') AS issue,
       jsonb_build_object('recorded', v.recorded, 'actual', v.actual, 'indexes', (array_agg(i.index ORDER BY i.bytes DESC))[1:20]) AS evidence,
       E'-- first the indexes, all of them; a UNIQUE one may fail: then two rows have the same key, and one must go\n'
           || string_agg(CASE WHEN i.partitioned OR EXISTS (SELECT FROM pg_index e WHERE e.indexrelid = i.oid AND e.indisexclusion) THEN format('REINDEX INDEX %s;', i.index) ELSE format('REINDEX INDEX CONCURRENTLY %s;', i.index) END, E'\n' ORDER BY i.bytes, i.index) FILTER (WHERE i.turn <= 200)
           || CASE WHEN count(*) > 200 THEN E'\n-- and others: REINDEX (CONCURRENTLY) DATABASE rebuilds all' ELSE '' END
           || E'\n-- then, and not before: it ends the warning\n' || v.refresh AS fix,
       E'# all of it, one index after the other, while the application goes on\n[reindex]\ncollations = true\n' AS job
FROM (
    SELECT 100::oid AS oid, format('database %I', d.datname) AS what, to_jsonb(d) ->> 'datcollversion' AS recorded, a.actual, format('ALTER DATABASE %I REFRESH COLLATION VERSION;', d.datname) AS refresh
    FROM pg_database d CROSS JOIN own_version a WHERE d.datname = current_database()
    UNION ALL
    SELECT c.oid, format('collation %I.%I', n.nspname, c.collname), c.collversion, pg_collation_actual_version(c.oid), format('ALTER COLLATION %I.%I REFRESH VERSION;', n.nspname, c.collname)
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL AND c.oid <> 100
      -- One for another encoding has the same name, and is of no use here.
      AND c.collencoding IN (-1, (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database()))
) v JOIN LATERAL (
    SELECT x.*, c.is_certain, row_number() OVER (ORDER BY x.bytes, x.index) AS turn
    FROM indexes x JOIN (SELECT c.index AS oid, bool_or(c.is_certain) AS is_certain FROM collated c WHERE c.collation IN (v.oid, 0) GROUP BY c.index) c ON c.oid = x.oid
) i ON true
WHERE v.recorded <> v.actual
GROUP BY v.oid, v.what, v.recorded, v.actual, v.refresh
HAVING bool_or(i.is_certain)
