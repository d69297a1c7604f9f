-- A deferrable key has NO ACTION on purpose: only that waits for the end of the transaction. One over periods (18) can have no other. What a DELETE should do
-- only a person can decide, and today's behaviour needs no change: there is no fix that is ready.
SELECT "table" AS object, format('%s %I', "table", conname) AS identity,
       format('%I (%s) references %s without an ON DELETE action: a referenced row cannot be deleted, only because that is the default.', conname, columns, referenced) AS issue,
       jsonb_build_object('constraint', conname, 'references', referenced, 'rows', rows) AS evidence,
       format('what a DELETE of a row of %s does with the rows that refer to it. CASCADE deletes them, SET NULL empties their reference, and NO ACTION refuses the DELETE, as today: then nothing has to change, and a waiver says so.', referenced) AS decide,
       CASE WHEN partitioned THEN
           format(E'ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I FOREIGN KEY (%3$s) REFERENCES %4$s (%5$s)%6$s%7$s ON DELETE <ACTION>;', "table", conname, columns, referenced, referenced_columns, matching, updating)
       ELSE
           format(E'ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I FOREIGN KEY (%3$s) REFERENCES %4$s (%5$s)%6$s%7$s ON DELETE <ACTION> NOT VALID;%8$s', "table", conname, columns, referenced, referenced_columns, matching, updating,
                  -- Rows may break one that was never validated: that is another finding.
                  CASE WHEN convalidated THEN format(E'\nALTER TABLE %s VALIDATE CONSTRAINT %I;', "table", conname) END)
       END AS draft,
       CASE WHEN partitioned THEN 'ACCESS EXCLUSIVE on both tables while all rows are read' END AS lock,
       format('foreign keys of schema %I have no ON DELETE action', schema) AS convention, sharing, siblings, differ
FROM (
    SELECT f.*, count(*) FILTER (WHERE f.confdeltype = 'a') OVER of_schema AS sharing, count(*) OVER of_schema AS siblings,
           left(string_agg(CASE WHEN f.confdeltype <> 'a' THEN format('%s %I (%s)', f."table", f.conname, CASE f.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' ELSE 'RESTRICT' END) END, ', ') OVER of_schema, 300) AS differ,
           CASE f.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END AS matching,
           CASE f.confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' ELSE '' END AS updating
    FROM foreign_keys f WHERE NOT f.condeferrable AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = f.oid AND to_jsonb(k) ->> 'conperiod' = 'true')
    WINDOW of_schema AS (PARTITION BY f.schema)
) f WHERE confdeltype = 'a'
