-- Low where the migrations of a framework exist that sets the column in all its statements. A trigger counts when its function mentions the column, or is given it as an argument (moddatetime), or is not written in SQL or PL/pgSQL.
WITH migrated AS MATERIALIZED (
    SELECT DISTINCT schema FROM tables WHERE name IN ('ar_internal_metadata', 'django_migrations', '_prisma_migrations', 'alembic_version', 'flyway_schema_history', 'databasechangelog', 'ecto_migrations', 'migrations', 'SequelizeMeta', '__EFMigrationsHistory')
)
SELECT c."table" AS object, format('%s.%I', c."table", c."column") AS identity,
       format('%I is set only by code that remembers to: no BEFORE UPDATE trigger sets it.', c."column") AS issue,
       jsonb_build_object('column', c."column", 'rows', c.rows) AS evidence,
       format(E'CREATE OR REPLACE FUNCTION %1$I.%2$I() RETURNS trigger LANGUAGE plpgsql AS %3$L;\nCREATE TRIGGER %2$I BEFORE UPDATE ON %4$s FOR EACH ROW EXECUTE FUNCTION %1$I.%2$I();',
              c.schema, f.name, format('BEGIN NEW.%I := pg_catalog.now(); RETURN NEW; END', c."column"), c."table") AS fix,
       CASE WHEN c.schema IN (SELECT schema FROM migrated) OR 'public' IN (SELECT schema FROM migrated) THEN 'low' END AS level,
       format('columns of schema %I that say when a row was changed are set by no trigger', c.schema) AS convention, count(*) OVER (PARTITION BY c.schema) AS sharing,
       n.siblings
FROM columns c
JOIN (SELECT schema, count(*) AS siblings FROM columns
      WHERE NOT is_frameworks AND "column" ~* '^(updated|modified|changed|last_updated|last_modified)_?(at|on|date|time)$|^(last_updated|last_modified|date_modified|date_updated)$'
        AND type IN ('timestamptz', 'timestamp', 'date') AND attgenerated = '' GROUP BY schema) n ON n.schema = c.schema,
LATERAL (SELECT 'pgtend_touch_' || CASE WHEN c."column" ~ '^[a-z_]{1,40}$' THEN c."column" ELSE substr(md5(c."column"), 1, 12) END AS name) f
WHERE NOT c.is_frameworks AND c."column" ~* '^(updated|modified|changed|last_updated|last_modified)_?(at|on|date|time)$|^(last_updated|last_modified|date_modified|date_updated)$'
  AND c.type IN ('timestamptz', 'timestamp', 'date') AND c.attgenerated = ''
  AND NOT EXISTS (
      SELECT FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_language l ON l.oid = p.prolang
      WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 1 = 1 AND g.tgtype & 2 = 2 AND g.tgtype & 16 = 16
        AND (position(lower(c."column") IN lower(p.prosrc)) > 0 OR position(c."column" IN encode(g.tgargs, 'escape')) > 0 OR l.lanname NOT IN ('sql', 'plpgsql', 'c', 'internal')))
