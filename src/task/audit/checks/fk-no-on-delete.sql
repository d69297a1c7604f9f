-- A deferrable key has NO ACTION on purpose: only that waits for the end of the transaction. One over periods (18) can have no other.
SELECT "table" AS object, format('%s %I', "table", conname) AS identity,
       format('%I (%s) references %s without an ON DELETE action: a referenced row cannot be deleted, only because that is the default.', conname, columns, referenced) AS issue,
       jsonb_build_object('constraint', conname, 'references', referenced, 'rows', rows) AS evidence,
       CASE WHEN partitioned THEN
           format(E'-- or ON DELETE CASCADE (rows go with what they refer to), or SET NULL\nALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s (%s)%s%s ON DELETE RESTRICT;\nALTER TABLE %1$s DROP CONSTRAINT %8$I;\nALTER TABLE %1$s RENAME CONSTRAINT %2$I TO %8$I;',
                  "table", new_name, columns, referenced, referenced_columns, matching, updating, conname)
       ELSE
           format(E'-- or ON DELETE CASCADE (rows go with what they refer to), or SET NULL\nALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s (%s)%s%s ON DELETE RESTRICT NOT VALID;%9$s\nALTER TABLE %1$s DROP CONSTRAINT %8$I;\nALTER TABLE %1$s RENAME CONSTRAINT %2$I TO %8$I;',
                  "table", new_name, columns, referenced, referenced_columns, matching, updating, conname,
                  -- Rows may break one that was never validated: that is another finding.
                  CASE WHEN convalidated THEN format(E'\nALTER TABLE %s VALIDATE CONSTRAINT %I;', "table", new_name) END)
       END AS fix,
       CASE WHEN partitioned THEN 'SHARE ROW EXCLUSIVE on both tables while all rows are read: writes wait; then ACCESS EXCLUSIVE on both for a moment' END AS lock
FROM (
    SELECT f.*, format('pgtend_%s', substr(md5(conname), 1, 12)) AS new_name,
           CASE confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END AS matching,
           CASE confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' ELSE '' END AS updating
    FROM foreign_keys f WHERE confdeltype = 'a' AND NOT condeferrable AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = f.oid AND to_jsonb(k) ->> 'conperiod' = 'true')
) f
