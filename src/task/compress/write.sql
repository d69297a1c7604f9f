#variable_conflict use_variable
DECLARE
    given CONSTANT pg_catalog.record := NEW;
    stored pg_catalog.record;
    seen pg_catalog.tid;
    same pg_catalog.bool;
    pgtend_text pg_catalog.text;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        {inserts}
        IF NOT FOUND THEN RETURN NULL; END IF;
        RETURN NEW;
    END IF;

    FOR attempt IN 1..{attempts} LOOP
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
            -- If this statement itself changed the row, once is enough, as with a table.
            IF {own}(stored.pgtend_xmin) THEN RETURN NULL; END IF;
            EXIT;
        END IF;

        IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
            DELETE FROM ONLY {stored} b WHERE {this};
            IF FOUND THEN RETURN OLD; END IF;
            CONTINUE;
        END IF;
        {always}
        IF ROW(NEW.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record THEN
            -- A variable of its own: in RETURNING, NEW means something else since PostgreSQL 18.
            pgtend_text := NEW.{content};
            UPDATE ONLY {stored} b SET {set_others} WHERE {this} RETURNING {returned_others} INTO {into};
        ELSE
            UPDATE ONLY {stored} b SET {set_text} WHERE {this} RETURNING {returned_text} INTO {into};
        END IF;
        IF FOUND THEN RETURN NEW; END IF;
        NEW := given;
    END LOOP;
    RAISE EXCEPTION 'could not serialize access: the row of view %.% was changed by another transaction meanwhile', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'serialization_failure', HINT = 'Try the transaction again.';
END
