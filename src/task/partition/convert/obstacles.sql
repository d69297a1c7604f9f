-- The obstacles that keep a table from being converted, one text each.
-- $1: the table's oid, $2: the name of the key's column, $3: the name of the index that the conversion builds, $4, $5: schema and name of the table.
SELECT format('a foreign key refers to it: %s (%I)', conrelid::regclass, conname) FROM pg_constraint
    WHERE contype = 'f' AND confrelid = $1::bigint::oid
-- Since 18, constraints can be NOT ENFORCED, and NOT NULL has a name.
UNION ALL SELECT format('its %s %I is %s first', CASE contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'CHECK' ELSE 'NOT NULL' END, conname,
                        CASE to_jsonb(k) ->> 'conenforced' WHEN 'false' THEN 'NOT ENFORCED: enforce or drop it' ELSE 'NOT VALID: validate it' END)
    FROM pg_constraint k WHERE contype IN ('f', 'c', 'n') AND conrelid = $1::bigint::oid AND NOT convalidated AND conname <> 'pgtend_bound'
UNION ALL SELECT format('its %s %I is NO INHERIT, which a partitioned table cannot have: recreate it without NO INHERIT',
                        CASE contype WHEN 'c' THEN 'CHECK' ELSE 'NOT NULL' END, conname)
    FROM pg_constraint WHERE contype IN ('c', 'n') AND conrelid = $1::bigint::oid AND connoinherit
UNION ALL SELECT format('its primary key %I is WITHOUT OVERLAPS, and %I cannot be added to it: drop it first', conname, $2)
    FROM pg_constraint k WHERE contype = 'p' AND conrelid = $1::bigint::oid AND to_jsonb(k) ->> 'conperiod' = 'true'
      AND NOT (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = $2) = ANY (k.conkey)
UNION ALL SELECT format('it is a typed table (OF %s), which cannot be a partition: ALTER TABLE ... NOT OF first', reloftype::regtype)
    FROM pg_class WHERE oid = $1::bigint::oid AND reloftype <> 0
UNION ALL SELECT format('it belongs to extension %I: ALTER EXTENSION %1$I DROP TABLE ... first', e.extname)
    FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = $1::bigint::oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
UNION ALL SELECT format('its row trigger %I has transition tables (REFERENCING), which a partitioned table cannot have', tgname) FROM pg_trigger
    WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal AND tgtype & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)
UNION ALL SELECT DISTINCT format('view %s is grouped by its primary key, which changes: list all its columns in GROUP BY', r.ev_class::regclass)
    FROM pg_constraint k JOIN pg_depend d ON d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid WHERE k.conrelid = $1::bigint::oid
UNION ALL SELECT format('its exclusion constraint %I cannot be kept across partitions', conname) FROM pg_constraint
    WHERE contype = 'x' AND conrelid = $1::bigint::oid
UNION ALL SELECT format('its unique index %s does not contain %I, and would be unique only within each partition: drop it first', i.indexrelid::regclass, $2)
    FROM pg_index i WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND NOT i.indisprimary AND indisvalid
      AND NOT (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = $2) = ANY (i.indkey[0:i.indnkeyatts - 1])
      AND (SELECT relname FROM pg_class WHERE oid = i.indexrelid) <> $3
UNION ALL SELECT format('its index %s is invalid: REINDEX or drop it first', indexrelid::regclass) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE indrelid = $1::bigint::oid AND NOT indisvalid AND relname <> $3
UNION ALL SELECT format('it takes part in inheritance with %s', CASE WHEN inhrelid = $1::bigint::oid THEN inhparent ELSE inhrelid END::regclass)
    FROM pg_inherits WHERE inhrelid = $1::bigint::oid OR inhparent = $1::bigint::oid
UNION ALL SELECT DISTINCT format('publication %I publishes it: remove it from the publication first, or publish it through its root, once it is converted', pubname)
    FROM pg_publication_tables WHERE schemaname = $4 AND tablename = $5
