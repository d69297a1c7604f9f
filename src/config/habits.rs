//! What people write because other programs have it, or because another of our files or tables has it, and what to write here.

use crate::base::toml_file::Habit;

const CREDENTIALS: &str = "credentials are not in this file: they come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), from a profile of ~/.aws, or from the \
     machine's role";

const KIND_OF_STORE: &str = "the kind follows from the key that says where the store is: path = \"/folder\", bucket = \"name\" (S3), container = \"name\" with account (Azure), or \
     gcs_bucket = \"name\" (Google)";

const URL: &str = "`{key}` is a part of the URL: url = \"postgres://user@host:5432/database\"";

const OWN_FILE: &str =
    "a job is a file of its own: jobs/NAME.toml, with `schedule` and `database` above and one table such as [backup]";

const LOGS: &str = "the log's level is an option: --log debug, or PGTEND_LOG=debug in the environment";

/// Habits in config.toml.
pub const OF_CONFIG: &[Habit] = &[
    Habit {
        table: "",
        keys: &[
            "jobs",
            "job",
            "backup",
            "backups",
            "audit",
            "compress",
            "partition",
            "refresh",
            "reindex",
            "retention",
            "sql",
            "vector_index",
            "schedule",
            "limits",
            "task",
            "tasks",
        ],
        instead: OWN_FILE,
    },
    Habit { table: "", keys: &["log_level", "loglevel", "log", "logging", "verbose", "debug"], instead: LOGS },
    Habit {
        table: "",
        keys: &["store", "storage", "storages", "repository", "repo", "repos", "s3", "bucket"],
        instead: "write [stores.NAME], with bucket = \"name\" or path = \"/folder\"",
    },
    Habit {
        table: "",
        keys: &["database", "db", "url", "host", "connection", "connections", "postgres", "postgresql", "server"],
        instead: "write [databases.NAME], with url = \"postgres://user@host:5432/database\"",
    },
    Habit { table: "", keys: &["listen", "port"], instead: "write it in [serve]: listen = \"127.0.0.1:9187\"" },
    Habit {
        table: "",
        keys: &["timezone", "timeout", "retries", "database_name"],
        instead: "`{key}` belongs in a job's file, jobs/NAME.toml, above its first table",
    },
    Habit {
        table: "databases.*",
        keys: &["host", "hostname", "port", "user", "username", "dbname", "database", "name", "sslmode", "socket", "service"],
        instead: URL,
    },
    Habit {
        table: "databases.*",
        keys: &["password", "pass", "passwd", "password_file", "password_env"],
        instead: "the password belongs in ~/.pgpass or PGPASSWORD, or in the whole URL, which url_file = \"/path\" or url_env = \"NAME\" name",
    },
    Habit {
        table: "databases.*",
        keys: &["dsn", "uri", "connection_string", "connstr", "conninfo"],
        instead: "the key is `url`: url = \"postgres://user@host:5432/database\"",
    },
    Habit {
        table: "servers.*",
        keys: &["host", "hostname", "port", "user", "username", "dbname", "database", "sslmode", "socket", "service"],
        instead: "`{key}` is a part of the URL: url = \"postgres://user@host:5432/postgres\"",
    },
    Habit {
        table: "servers.*",
        keys: &["password", "pass", "passwd", "password_file", "password_env"],
        instead: "the password belongs in ~/.pgpass or PGPASSWORD, or in the whole URL, which url_file = \"/path\" or url_env = \"NAME\" name",
    },
    Habit {
        table: "servers.*",
        keys: &["concurrency", "max_jobs", "parallel"],
        instead: "the key is `max_concurrent`: max_concurrent = 2",
    },
    Habit {
        table: "servers.*",
        keys: &["owner_url", "owner_url_env", "owner_url_file", "group"],
        instead: "`{key}` is of one database: give that an entry of its own, [databases.NAME]",
    },
    Habit { table: "databases.*", keys: &["max_connections", "pool_size"], instead: "did you mean `max_sessions`?" },
    Habit {
        table: "stores.*",
        keys: &[
            "access_key_id",
            "secret_access_key",
            "access_key",
            "secret_key",
            "aws_access_key_id",
            "aws_secret_access_key",
            "key_id",
            "secret",
            "session_token",
            "profile",
            "credentials",
        ],
        instead: CREDENTIALS,
    },
    Habit { table: "stores.*", keys: &["type", "kind", "provider", "driver", "backend"], instead: KIND_OF_STORE },
    Habit {
        table: "stores.*",
        keys: &["dir", "directory", "folder", "location"],
        instead: "the key is `path`: path = \"/var/lib/pgtend/store\"",
    },
    Habit { table: "stores.*", keys: &["url", "uri"], instead: KIND_OF_STORE },
    Habit {
        table: "stores.*",
        keys: &["host", "hostname", "server", "endpoint_url", "url_endpoint"],
        instead: "the key is `endpoint`: endpoint = \"https://s3.example.com\"",
    },
    Habit {
        table: "stores.*",
        keys: &["encrypt", "encryption", "encryption_key", "cipher", "passphrase", "recipients"],
        instead: "the key is `encrypt_to`: encrypt_to = [\"age1…\"], public keys of age; server_side_encryption is the server's own",
    },
    Habit {
        table: "stores.*",
        keys: &["keep", "retention"],
        instead: "`keep` belongs in a job's [backup], jobs/NAME.toml: keep = { last = 3, daily = 7 }",
    },
    Habit { table: "stores.*", keys: &["sse"], instead: "did you mean `server_side_encryption`?" },
    Habit { table: "stores.*", keys: &["force_path_style", "use_path_style"], instead: "did you mean `path_style`?" },
    Habit {
        table: "ledger",
        keys: &["url", "url_env", "url_file", "host", "dsn"],
        instead: "the ledger is in one of [databases.NAME]: database = \"NAME\"",
    },
    Habit { table: "ledger", keys: &["schema"], instead: "the ledger's schema is always `pgtend`" },
    Habit {
        table: "serve",
        keys: &["port", "host", "address", "bind", "addr"],
        instead: "the key is `listen`, with address and port: listen = \"127.0.0.1:9187\"",
    },
    Habit {
        table: "serve",
        keys: &["token", "password", "bearer_token"],
        instead: "the token is no key of this file: token_file = \"/path\" or token_env = \"NAME\" says where it is",
    },
    Habit {
        table: "notify",
        keys: &["slack", "discord", "teams", "telegram", "ntfy", "email", "mail", "slack_url", "slack_webhook"],
        instead: "a place for messages is a table of its own: [notify.NAME], and below it kind = \"slack\" and url_file = \"/path\"",
    },
    Habit {
        table: "notify",
        keys: &["url", "webhook", "pagerduty"],
        instead: "the key is `webhook_url`, which gets JSON by POST: webhook_url = \"https://…\", or webhook_url_file",
    },
    Habit {
        table: "notify.*",
        keys: &["url", "webhook", "webhook_url"],
        instead: "it is a secret, which stands elsewhere: url_file = \"/path\" or url_env = \"NAME\"",
    },
    Habit {
        table: "notify.*",
        keys: &["token", "password"],
        instead: "it is a secret, which stands elsewhere: {key}_file = \"/path\" or {key}_env = \"NAME\"",
    },
    Habit { table: "notify.*", keys: &["type", "service"], instead: "the key is `kind`: kind = \"slack\"" },
    Habit {
        table: "notify.*",
        keys: &["events", "when", "notify_on"],
        instead: "the key is `on`: on = [\"failure\", \"recovery\", \"late\"]",
    },
    Habit {
        table: "notify.*",
        keys: &["chat_id", "channel"],
        instead: "the key is `chat`, of Telegram; Slack, Discord and Teams have one URL for each channel",
    },
    Habit { table: "notify.*", keys: &["smtp", "smtp_host"], instead: "the key is `host`: host = \"mail.example.com\"" },
    Habit { table: "notify.*", keys: &["recipients", "cc", "bcc"], instead: "the key is `to`: to = [\"dba@example.com\"]" },
    Habit {
        table: "notify.*",
        keys: &["schedule", "cron"],
        instead: "the key is `digest`, when the digest is sent: digest = \"0 8 * * 1\"",
    },
    Habit {
        table: "tools",
        keys: &["pg_dump", "psql", "pg_dumpall", "pg_restore", "path", "bin", "bindir"],
        instead: "the key is `bin_dir`, the folder of all of them: bin_dir = \"/usr/lib/postgresql/17/bin\"",
    },
];

/// Habits in jobs/NAME.toml.
pub const OF_JOBS: &[Habit] = &[
    Habit { table: "", keys: &["databases"], instead: "[databases.NAME] belongs in config.toml; here, database = \"NAME\"" },
    Habit { table: "", keys: &["stores", "ledger", "serve", "tools"], instead: "`{key}` belongs in config.toml" },
    Habit {
        table: "",
        keys: &["notify"],
        instead: "[notify.NAME] belongs in config.toml; here, notify = [\"NAME\"] above all tables",
    },
    Habit {
        table: "",
        keys: &["cron", "when", "every", "interval", "at", "frequency"],
        instead: "the key is `schedule`: schedule = \"0 2 * * *\"",
    },
    Habit { table: "", keys: &["name", "job", "id"], instead: "the file's name is the job's name: jobs/NAME.toml" },
    Habit {
        table: "",
        keys: &["type", "task", "kind"],
        instead: "a table says what the job does: [backup], [sql], [retention] …",
    },
    Habit { table: "", keys: &["tz", "time_zone", "zone"], instead: "the key is `timezone`: timezone = \"Europe/Berlin\"" },
    Habit {
        table: "",
        keys: &["db", "dbname"],
        instead: "the key is `database`: database = \"NAME\", with [databases.NAME] in config.toml",
    },
    Habit {
        table: "",
        keys: &["url", "host", "password", "user"],
        instead: "connections are in config.toml: [databases.NAME] with url = \"…\"; here, database = \"NAME\"",
    },
    Habit {
        table: "",
        keys: &["spread", "splay", "randomized_delay"],
        instead: "the key is `jitter`, which spreads the starts over a time: jitter = \"2h\"",
    },
    Habit { table: "", keys: &["disabled", "active"], instead: "the key is `enabled`: enabled = false" },
    Habit { table: "", keys: &["retry", "max_retries", "attempts"], instead: "the key is `retries`: retries = 3" },
    Habit { table: "", keys: &["depends_on", "needs", "requires"], instead: "the key is `after`: after = [\"other-job\"]" },
    Habit {
        table: "",
        keys: &["notify_url", "healthcheck", "healthchecks_url", "heartbeat_url"],
        instead: "the key is `ping_url`: ping_url = \"https://hc-ping.com/ID\"",
    },
    Habit { table: "", keys: &["log_level", "loglevel", "verbose"], instead: LOGS },
    Habit { table: "backup", keys: &["compression_level", "compress_level"], instead: "the key is `level`: level = 4" },
    Habit { table: "backup", keys: &["compress"], instead: "the key is `compression`: compression = \"zstd\"" },
    Habit {
        table: "backup",
        keys: &["exclude", "excludes", "exclude_table", "exclude_tables_pattern", "ignore"],
        instead: "the key is `exclude_tables`: exclude_tables = [\"public.logs\"]; exclude_table_data keeps the table and leaves out its rows",
    },
    Habit { table: "backup", keys: &["schema", "include_schemas"], instead: "the key is `schemas`: schemas = [\"public\"]" },
    Habit {
        table: "backup",
        keys: &["schemas"],
        instead: "for a set of each schema, write it above [backup]: schemas = \"tenant_*\"; in [backup], a list limits one set: schemas = [\"public\"]",
    },
    Habit {
        table: "",
        keys: &["schema", "tenants", "tenant"],
        instead: "a backup of each schema: schemas = \"tenant_*\"; of some schemas in one set: [backup] with schemas = [\"public\"]",
    },
    Habit {
        table: "backup",
        keys: &["retention", "retain", "keep_last", "keep_days", "retention_days", "days", "rotate"],
        instead: "the key is `keep`: keep = { last = 3, daily = 7, weekly = 4 }",
    },
    Habit {
        table: "backup",
        keys: &["last", "daily", "weekly", "monthly", "yearly"],
        instead: "`{key}` belongs in `keep`: keep = { {key} = 7 }",
    },
    Habit {
        table: "backup",
        keys: &["stores", "storage", "destination", "target", "bucket", "path", "output", "dir"],
        instead: "the key is `store`: store = \"NAME\", with [stores.NAME] in config.toml",
    },
    Habit { table: "backup", keys: &["jobs", "parallel", "workers"], instead: "the key is `sessions`: sessions = 4" },
    Habit {
        table: "backup",
        keys: &["format"],
        instead: "a set is always SQL that psql reads; `compression` is \"gzip\" or \"zstd\"",
    },
    Habit {
        table: "backup",
        keys: &["encrypt", "encryption", "encrypt_to", "password", "passphrase"],
        instead: "encryption is the store's: encrypt_to = [\"age1…\"] in [stores.NAME] of config.toml",
    },
    Habit { table: "backup.keep", keys: &["days", "day"], instead: "did you mean `daily`? It counts days that have a set" },
    Habit { table: "backup.keep", keys: &["weeks", "week"], instead: "did you mean `weekly`?" },
    Habit { table: "backup.keep", keys: &["months", "month"], instead: "did you mean `monthly`?" },
    Habit { table: "backup.keep", keys: &["years", "year", "annual", "annually"], instead: "did you mean `yearly`?" },
    Habit {
        table: "backup.keep",
        keys: &["count", "number", "sets", "latest", "newest", "minimum", "hourly"],
        instead: "did you mean `last`? It counts sets, however old",
    },
    Habit {
        table: "sql",
        keys: &["file", "files", "script", "path"],
        instead: "SQL stands in `statements`: statements = [\"ANALYZE public.t\"]; a file is not read",
    },
    Habit {
        table: "sql",
        keys: &["sql", "statement", "query", "queries", "command", "commands", "run"],
        instead: "the key is `statements`: statements = [\"ANALYZE public.t\"]",
    },
    Habit {
        table: "retention",
        keys: &["keep", "retain", "max_age", "age", "days", "older", "interval", "keep_days", "retention"],
        instead: "the key is `older_than`: older_than = \"90d\"",
    },
    Habit {
        table: "retention",
        keys: &["store", "archive_to", "archive_store"],
        instead: "the key is `archive`: archive = \"NAME\", a store of config.toml",
    },
    Habit { table: "retention", keys: &["condition", "filter"], instead: "the key is `where`: where = \"status <> 'running'\"" },
    Habit {
        table: "retention",
        keys: &["batch_size", "batch", "limit", "chunk_size"],
        instead: "batches are made as large as fits in a time: batch_time = \"20ms\" in [limits]",
    },
    Habit {
        table: "limits",
        keys: &["batch_size", "batch", "chunk_size"],
        instead: "did you mean `batch_time`? Batches are made as large as fits in that time",
    },
    Habit {
        table: "partition",
        keys: &["interval", "period", "granularity", "by"],
        instead: "the key is `every`: every = \"month\"",
    },
    Habit { table: "partition", keys: &["retention", "keep", "older_than"], instead: "the key is `retain`: retain = \"90d\"" },
    Habit { table: "partition", keys: &["ahead", "create_ahead", "future"], instead: "the key is `premake`: premake = 3" },
    Habit { table: "partition", keys: &["store"], instead: "the key is `archive`: archive = \"NAME\", a store of config.toml" },
    Habit {
        table: "vector_index",
        keys: &["target", "k"],
        instead: "`{key}` belongs in `recall`: recall = { target = 0.95, k = 10 }",
    },
    Habit {
        table: "vector_index",
        keys: &["distance", "operator", "opclass"],
        instead: "the key is `metric`: metric = \"cosine\"",
    },
    Habit { table: "vector_index", keys: &["type", "index_type"], instead: "the key is `method`: method = \"hnsw\"" },
    Habit {
        table: "*",
        keys: &["schemas"],
        instead: "`schemas` is of backups: in [backup], the schemas of one set; above [backup], a set for each schema",
    },
    Habit {
        table: "refresh",
        keys: &["job", "backup", "source"],
        instead: "the key is `from`: from = \"backup-nightly\", the name of a backup job",
    },
];

/// Values of other programs: the key, the value, and ours.
pub const WORDS: &[(&str, &str, &str)] = &[
    ("metric", "euclidean", "l2"),
    ("metric", "manhattan", "l1"),
    ("metric", "dot", "inner_product"),
    ("metric", "ip", "inner_product"),
    ("method", "ivf", "ivfflat"),
    ("compression", "gz", "gzip"),
    ("compression", "zst", "zstd"),
    ("fail_on", "error", "critical"),
    ("fail_on", "warning", "medium"),
    ("fail_on", "none", "never"),
    ("catch_up", "all", "once"),
    ("catch_up", "latest", "once"),
    ("catch_up", "none", "skip"),
    ("catch_up", "never", "skip"),
    ("verify", "full", "restore"),
    ("verify", "hash", "checksum"),
    ("verify", "off", "none"),
    ("every", "monthly", "month"),
    ("every", "weekly", "week"),
    ("every", "daily", "day"),
    ("every", "hourly", "hour"),
    ("every", "yearly", "year"),
    ("every", "quarterly", "quarter"),
    ("kind", "email", "mail"),
    ("kind", "smtp", "mail"),
    ("kind", "msteams", "teams"),
    ("on", "failed", "failure"),
    ("on", "error", "failure"),
    ("on", "recovered", "recovery"),
    ("on", "ok", "success"),
    ("on", "weekly", "digest"),
    ("tls", "ssl", "tls"),
    ("tls", "off", "none"),
];
