-- The transactions that made rows of shared catalogs about each database ($1; $2 for each at most), the oldest first: its own row, its owner, grants, settings and comment,
-- and the owners of what is in it. DROP DATABASE deletes them all, and a number that was given out is not given out again before 2^32 others, so that no other database has one
-- of them, unless the server is set back in time. VACUUM changes none (FREEZE and FULL neither); ALTER DATABASE and GRANT change some. A role that is made by initdb is in no
-- such row. An age is a difference of 32 bits: that of a row from more than 2^31 transactions ago is negative, and so older than any other.
SELECT d.oid::pg_catalog.int8, ARRAY(
    SELECT m.made_by FROM (
        SELECT d.made_by, d.age
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdepend s WHERE s.dbid OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdepend s
              WHERE s.dbid OPERATOR(pg_catalog.=) 0 AND s.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase OPERATOR(pg_catalog.=) d.oid
        UNION SELECT s.xmin::pg_catalog.text, pg_catalog.age(s.xmin) FROM pg_catalog.pg_shdescription s
              WHERE s.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objoid OPERATOR(pg_catalog.=) d.oid
    ) m ORDER BY m.age OPERATOR(pg_catalog.<) 0 DESC, m.age DESC LIMIT $2)
FROM (SELECT oid, xmin::pg_catalog.text AS made_by, pg_catalog.age(xmin) AS age FROM pg_catalog.pg_database
      WHERE oid::pg_catalog.int8 OPERATOR(pg_catalog.=) ANY ($1)) d
