#variable_conflict use_variable
DECLARE
    given CONSTANT pg_catalog.record := NEW;
    stored pg_catalog.record;
    seen pg_catalog.tid;
    same pg_catalog.bool;
    pgtend_text pg_catalog.text;
    own pg_catalog.int8;
    ahead pg_catalog.int8;
    behind pg_catalog.oid;
    written pg_catalog.oid;
BEGIN
    FOR attempt IN 1..{attempts} LOOP
        -- A name is no proof: once a schema or the table was renamed, somebody may make another table of the old name, and its triggers would run as
        -- whoever writes here. The table is the one that the view reads. It is locked first, so that nothing waits between this look at the name and its
        -- use: a schema can be renamed while a write waits. Privileges on columns alone do not allow that lock.
        IF pg_catalog.has_table_privilege(pg_catalog.to_regclass({stored_name})::pg_catalog.oid, TG_OP) THEN
            LOCK TABLE ONLY {stored} IN ROW EXCLUSIVE MODE;
        END IF;
        SELECT d.refobjid INTO behind FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
            ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) r.oid
            WHERE r.ev_class OPERATOR(pg_catalog.=) TG_RELID AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
              AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({stored_name}) LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
            {inserts}
            EXIT WHEN written OPERATOR(pg_catalog.<>) behind;
            IF NOT FOUND THEN RETURN NULL; END IF;
            RETURN NEW;
        END IF;
        SELECT b.*, b.xmin AS pgtend_xmin, b.ctid AS pgtend_ctid INTO stored FROM ONLY {stored} b WHERE {same_key};
        IF NOT FOUND THEN
            -- It was deleted meanwhile. Or it got another key, which a table would have followed.
            EXIT WHEN TG_OP OPERATOR(pg_catalog.=) 'UPDATE' AND attempt OPERATOR(pg_catalog.>) 1;
            RETURN NULL;
        END IF;
        -- It is unchanged and was not written: a policy or a trigger of the table skipped it silently, as usual.
        IF ROW(stored.pgtend_ctid)::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(seen)::pg_catalog.record THEN
            RETURN NULL;
        END IF;
        seen := stored.pgtend_ctid;
        same := ROW({stored_others})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW({old_others})::pg_catalog.record;
        IF stored.{gz} IS NULL THEN
            same := same AND ROW(stored.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record;
        ELSE
            same := same AND OLD.{content} IS NOT NULL AND ROW(pg_catalog.sha256({old_bytes}))::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(stored.{hash})::pg_catalog.record;
        END IF;
        IF NOT same THEN
            -- If this transaction itself changed the row, once is enough, as with a table. A savepoint, or a block with EXCEPTION, has a number of its
            -- own, which comes after the transaction's; rows of other open transactions are not visible. Rows store the lower 32 bits.
            BEGIN
                own := pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text::pg_catalog.int8;
                ahead := (stored.pgtend_xmin::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) (own OPERATOR(pg_catalog.%) 4294967296)
                    OPERATOR(pg_catalog.+) 4294967296) OPERATOR(pg_catalog.%) 4294967296;
                IF ahead OPERATOR(pg_catalog.<) 2147483648
                    AND pg_catalog.pg_xact_status((own OPERATOR(pg_catalog.+) ahead)::pg_catalog.text::pg_catalog.xid8) OPERATOR(pg_catalog.=) 'in progress' THEN
                    RETURN NULL;
                END IF;
            EXCEPTION
                -- The row is billions of transactions old: its number lies in the future.
                WHEN invalid_parameter_value THEN NULL;
            END;
            EXIT;
        END IF;

        IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
            DELETE FROM ONLY {stored} b WHERE {this} RETURNING b.tableoid INTO written;
            EXIT WHEN written OPERATOR(pg_catalog.<>) behind;
            IF FOUND THEN RETURN OLD; END IF;
            CONTINUE;
        END IF;
        {always}
        IF ROW(NEW.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record THEN
            -- A variable of its own: in RETURNING, NEW means something else since PostgreSQL 18.
            pgtend_text := NEW.{content};
            UPDATE ONLY {stored} b SET {set_others} WHERE {this} RETURNING {returned_others}, b.tableoid INTO {into}, written;
        ELSE
            UPDATE ONLY {stored} b SET {set_text} WHERE {this} RETURNING {returned_text}, b.tableoid INTO {into}, written;
        END IF;
        EXIT WHEN written OPERATOR(pg_catalog.<>) behind;
        IF FOUND THEN RETURN NEW; END IF;
        NEW := given;
    END LOOP;
    -- What the triggers of another table did is rolled back with it.
    IF behind IS NULL OR written OPERATOR(pg_catalog.<>) behind THEN
        RAISE EXCEPTION 'nothing was written: the table that view %.% reads is not named % any more', TG_TABLE_SCHEMA, TG_TABLE_NAME, {stored_name}
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'pgtend compress install puts the view in order.';
    END IF;
    RAISE EXCEPTION 'could not serialize access: the row of view %.% was changed by another transaction meanwhile', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'serialization_failure', HINT = 'Try the transaction again.';
END
