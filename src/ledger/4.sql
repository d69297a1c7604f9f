ALTER TABLE pgtend.databases ADD COLUMN left_out text, ADD COLUMN left_out_at timestamptz;
COMMENT ON COLUMN pgtend.databases.left_out IS 'why no job can run on it, although the server has it; none where one can';
COMMENT ON COLUMN pgtend.databases.left_out_at IS 'since when';
