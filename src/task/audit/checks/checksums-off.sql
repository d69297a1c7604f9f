-- Not below 100 MiB, as durability-off.
SELECT 'setting data_checksums' AS object, 'data_checksums' AS identity,
       'Data checksums are off: a page that the disk has changed is read as it is, and copied into every backup.' AS issue,
       jsonb_build_object('database_bytes', pg_database_size(current_database())) AS evidence
WHERE current_setting('data_checksums') = 'off' AND pg_database_size(current_database()) >= 104857600
