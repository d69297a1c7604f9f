-- Triggers of the user, and those by which PostgreSQL enforces a foreign key; a trigger that fires on replicas only is as good as disabled. A clone on a
-- partition counts where the table's own fires. A key of a partitioned table has a constraint, with triggers, for each partition on either side, at every level.
WITH RECURSIVE parts_of_keys AS (
    SELECT f.oid AS key, f.oid FROM foreign_keys f
    UNION ALL
    SELECT p.key, k.oid FROM parts_of_keys p JOIN pg_constraint k ON k.conparentid = p.oid AND k.contype = 'f'
)
SELECT q.relation AS object, q.identity,
       CASE WHEN q.is_key THEN format('The triggers that enforce %s are disabled: rows that refer to nothing are accepted, and referenced rows can be deleted.', q.what) ELSE format('%s %s: what it maintains or prevents is not, since then.', q.what, CASE WHEN q.replica THEN 'fires on replicas only' ELSE 'is disabled' END) END AS issue,
       jsonb_build_object('triggers', q.triggers, 'tables', q.tables) AS evidence, q.fix, CASE WHEN q.is_key THEN 'critical' END AS level
FROM (
    SELECT format('%I.%I', s.schema, c.relname) AS relation, format('%I.%I %I', s.schema, c.relname, g.tgname) AS identity, false AS is_key, g.tgenabled = 'R' AS replica, format('The trigger %I', g.tgname) AS what, ARRAY[g.tgname::text] AS triggers, ARRAY[format('%I.%I', s.schema, c.relname)] AS tables,
           format('ALTER TABLE %I.%I ENABLE TRIGGER %I;', s.schema, c.relname, g.tgname) AS fix
    FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN schemas s ON s.oid = c.relnamespace LEFT JOIN pg_trigger above ON above.oid = g.tgparentid
    -- Before 15 a clone counts as internal.
    WHERE (NOT g.tgisinternal OR g.tgparentid <> 0 AND g.tgconstraint = 0) AND g.tgenabled IN ('D', 'R') AND coalesce(above.tgenabled NOT IN ('D', 'R'), true)
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
    UNION ALL
    SELECT f."table", format('%s %I', f."table", f.conname), true, false, format('the foreign key %I of %s', f.conname, f."table"), array_agg(g.tgname::text ORDER BY g.tgname), array_agg(DISTINCT format('%I.%I', n.nspname, c.relname)),
           E'-- as a superuser; rows that came in meanwhile are not checked by that: see fk-orphans\n' || string_agg(format('ALTER TABLE %I.%I ENABLE TRIGGER %I;', n.nspname, c.relname, g.tgname), E'\n' ORDER BY g.tgname)
    FROM pg_trigger g JOIN parts_of_keys k ON k.oid = g.tgconstraint JOIN foreign_keys f ON f.oid = k.key JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE g.tgisinternal AND g.tgenabled IN ('D', 'R')
    GROUP BY f."table", f.conname
) q
