-- Whether rows should be shown, and to whom, only a person knows: no SQL. The owner sees all, unless row security is forced.
SELECT t."table" AS object, t."table" AS identity,
       format('Row security is on for %s, and no policy lets any row through: %s every other role sees an empty table and can insert nothing.', t."table", CASE WHEN c.relforcerowsecurity THEN 'its owner and' ELSE format('only %I, its owner, sees them;', pg_get_userbyid(c.relowner)) END) AS issue,
       jsonb_build_object('rows', t.rows, 'forced', c.relforcerowsecurity) AS evidence
FROM tables t JOIN pg_class c ON c.oid = t.oid
WHERE c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t.oid)
  -- Where nobody else has a right on the table, nothing is hidden from anybody.
  AND EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner)
