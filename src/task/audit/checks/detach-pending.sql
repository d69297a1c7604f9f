SELECT format('%I.%I', s.schema, p.relname) AS object, format('%I.%I', cs.nspname, c.relname) AS identity,
       format('A DETACH CONCURRENTLY of %I.%I was interrupted: %I.%I no longer shows its rows, inserts into its range fail, and no other detach works.', cs.nspname, c.relname, s.schema, p.relname) AS issue,
       jsonb_build_object('partition', c.relname) AS evidence,
       format('ALTER TABLE %I.%I DETACH PARTITION %I.%I FINALIZE;', s.schema, p.relname, cs.nspname, c.relname) AS fix
FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN schemas s ON s.oid = p.relnamespace JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace cs ON cs.oid = c.relnamespace
WHERE i.inhdetachpending
