), objects AS (
    SELECT * FROM of_types UNION ALL SELECT * FROM of_tables UNION ALL SELECT * FROM of_others
)
SELECT o.rank, o.kind, o.name, o.parent, o.address, o.granted, o.is_inner, o.create,
       o.facts || CASE WHEN w.subid = 0 AND NOT o.follows THEN jsonb_build_object('owner', quote_ident(pg_get_userbyid(w.owner))) ELSE '{}' END
               || CASE WHEN o.granted IS NOT NULL THEN jsonb_build_object('grants', coalesce(r.entries, '[]')) ELSE '{}' END
               || CASE WHEN o.address IS NOT NULL THEN jsonb_build_object('comment', c.description) ELSE '{}' END AS facts,
       o.sets || CASE WHEN w.subid = 0 AND NOT o.follows THEN jsonb_build_object('owner', format('ALTER %s OWNER TO %I;', o.address, pg_get_userbyid(w.owner))) ELSE '{}' END
              || CASE WHEN o.address IS NOT NULL THEN jsonb_build_object('comment', format('COMMENT ON %s IS %s;', o.address, coalesce(quote_literal(c.description), 'NULL'))) ELSE '{}' END AS sets
FROM (
    -- A sequence of a column has the owner of its table.
    SELECT *, kind = 'sequence' AND (is_inner OR facts ->> 'owned by' IS NOT NULL) AS follows FROM objects
) o
LEFT JOIN owned w ON w.classid = o.classid AND w.oid = o.oid AND w.subid = o.subid
LEFT JOIN rights r ON r.classid = o.classid AND r.oid = o.oid AND r.subid = o.subid
LEFT JOIN pg_description c ON c.classoid = o.classid AND c.objoid = o.oid AND c.objsubid = o.subid
