CREATE TABLE pgtend.servers (
    server    text PRIMARY KEY,
    listed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgtend.servers IS 'when each server of the configuration last said which databases it has';

CREATE TABLE pgtend.databases (
    server   text NOT NULL,
    database text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    gone_at  timestamptz,
    PRIMARY KEY (server, database)
);
COMMENT ON TABLE pgtend.databases IS 'the databases that servers were found to have';
COMMENT ON COLUMN pgtend.databases.database IS 'the name in the configuration: SERVER.DATABASE';
COMMENT ON COLUMN pgtend.databases.gone_at IS 'since when the server does not have it; none while it has';
