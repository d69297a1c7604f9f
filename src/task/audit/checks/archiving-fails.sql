-- The archiver tries again by itself: what matters is that no attempt has succeeded since. Segments that could not be archived stay.
SELECT 'archiver' AS object, 'archiver' AS identity,
       format('The last attempt to archive WAL failed (%s, %s), and %s: WAL stays until the disk is full, and there is no recovery to a moment after that.', a.last_failed_wal, to_char(a.last_failed_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
              CASE WHEN a.last_archived_time IS NULL THEN 'none has ever succeeded' ELSE format('the last one that succeeded was at %s', to_char(a.last_archived_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')) END) AS issue,
       jsonb_build_object('failed', a.failed_count, 'last_failed_wal', a.last_failed_wal, 'last_failed_time', a.last_failed_time, 'last_archived_time', a.last_archived_time, 'archive_mode', current_setting('archive_mode')) AS evidence,
       'why it fails: the server''s log has what archive_command said. With archive_mode = off nothing is archived, and nothing stays.' AS decide
FROM pg_stat_archiver a
WHERE current_setting('archive_mode') <> 'off' AND a.last_failed_time > coalesce(a.last_archived_time + interval '5 minutes', '-infinity')
