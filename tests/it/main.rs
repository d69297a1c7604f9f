//! Integration tests: the real binary against real PostgreSQL servers and a real S3 server over HTTP.

/// Servers and scenarios; everything that a test starts ends with it.
mod docs;
mod support;

/// Dumps that pgtend did not make, as sets.
mod adopt;

/// What measures time, or needs both processors: run after all others, one test at a time (`make test`).
mod alone;
/// The same as others, with more: run by `make campaigns`, and not by `make test`.
mod campaigns;
/// What is stopped at random moments: run after the others, three tests at a time.
mod random;

/// Rows that come back from an archive.
mod archives;
/// Archives of a database and of its copy on the same server.
mod archives_cloned;
/// What an archive says of rows that left and came back, against the database: kills, restarts, servers set back in time, two databases.
mod archives_kept;
/// Batches that come back in part, beside others, or not at all.
mod archives_parted;
/// Servers that share an archive: two with the same names, a promoted standby, a copy.
mod archives_shared;
/// What an audit finds, what its fixes do, what it does not fire on.
mod audit;
/// Each fact of a schema that changes is reported as drift.
mod audit_against;
mod audit_drift;
/// The audit on databases that it was not made for.
mod audit_foreign;
/// What a person reads of an audit.
mod audit_groups;
/// The audit as a job: reports, comparison, waivers, drift, the server.
mod audit_job;
/// Databases that somebody made odd, on purpose or not.
mod audit_odd;
/// Code that owners put where an audit looks.
mod audit_owners;
/// Faults that other tools find.
mod audit_peers;
/// Whether an index serves a foreign key.
mod audit_served;
mod audit_server;
mod audit_statements;
/// What is largest and most urgent is looked at first, and what is not looked at is said.
mod audit_urgent;
mod audit_usage;
/// Backups that work: on every version, both stores, hostile names.
mod backup;
/// A person says whose sets are whose: what that takes, and what it never costs.
mod backup_accepted;
/// Backups that break: each fault of the issue, and what is left afterwards.
mod backup_faults;
/// Whose sets are whose, which go, and which is the latest: two servers on one store, clocks, holds.
mod backup_series;
/// Sets that were damaged, and what prune may delete.
mod backup_sets;
/// What is said of a set: its bytes, and the servers that took it or did not.
mod backup_verdicts;
/// What a run does while others are at work beside it, and who waits behind a dump.
mod beside;
/// What was proved of a set, for auditors.
mod broken_jobs;
/// Prunes and restores: what a person does to the work of a job.
mod by_hand;
mod certificate;
/// The commands that need no server: check, jobs, schema, and what they say of mistakes.
mod cli;
/// Help, manual pages, completions, terminals.
mod command_line;
/// Large text in another form: readers, writers, the way there and back.
mod compress;
/// Dictionaries, which compressed text needs to be read.
mod compress_dictionary;
/// What an undo sees of other tables, and what it does not run.
mod compress_elsewhere;
/// The inflate in SQL, which readers go through.
mod compress_inflate;
/// What others do to a compressed table after its installation.
mod compress_later;
/// What compression is worth, and what readers pay for it.
mod compress_price;
/// What compression refuses, and by which name.
mod compress_refused;
/// What a later run compresses, and what that sets off.
mod compress_runs;
/// What roles that do not own a compressed table cannot do to others.
mod compress_strangers;
/// Large text that is written anew by TOAST.
mod compress_toast;
/// The way back: what an undo waits for, and what stands in its way.
mod compress_undo;
/// What writers meet at the view, and at the table behind it.
mod compress_writers;
/// Connections as they are: addresses, hosts, certificates, poolers, standbys.
mod connections;
/// What a database's owner puts in our way: functions, settings, a ledger of his own.
mod contract;
/// Sets in several stores: what a store that fails, is slow, full or forged leaves of the others; copies by hand and by the next run.
mod copies;
/// Holds of copies, and two names of one place.
mod copies_held;
/// What would lose the last good copy of a set: the other one is damaged, lost, unread or away.
mod copies_lost;
/// Copies that cannot be used: of a store that does not answer, of a deletion that was interrupted, with bytes that rotted unseen.
mod copies_missed;
/// Copies that are restored, fetched, listed and pruned.
mod copies_used;
/// What is in the way of a run, and what runs said.
mod doctor;
/// Copies for other recipients than the set.
mod encrypted_anew;
/// Sets and archives that are encrypted with age.
mod encryption;
mod encryption_archives;
/// The examples that are shipped: configuration, jobs, schema.
mod examples;
/// What is in a set, and one table out of it.
mod fetch;
/// The tutorial and the README, typed word for word.
mod first_steps;
/// Databases that are found on servers, and jobs with patterns for them.
mod fleet;
/// What tenants of a server can do to others.
mod fleet_hostile;
/// A set for each schema of a database.
mod fleet_schemas;
/// Who waits for whom on a server.
mod fleet_turns;
/// Whether a backup is recent enough, for deployments and for runs that are not needed then.
mod gates;
/// What makes a gate doubt: refusals, clocks, names, lost sets.
mod gates_doubted;
mod gates_of_copies;
/// What the role of `grants` may do is enough for every shipped job.
mod grants;
/// The first minutes: what `init` finds, asks and writes.
mod init;
/// `init` beside files that are there.
mod init_beside;
/// A bad file among the jobs: the others go on.
mod layers;
/// The run history: who writes what when, and what becomes of runs that nobody ended.
mod ledger;
mod left_out;
/// Tags of proved sets, for lifecycle rules of a bucket.
mod lifecycle_tags;
/// Messages to chats, phones and mailboxes.
mod messages;
mod messages_lost;
mod mistakes;
/// Grafana's dashboard and Prometheus' rules, on a real Prometheus.
mod monitoring;
/// Pings, webhook, textfile and traces: who is told how a run went.
mod notify;
/// Sets that nobody can delete before a date: S3 Object Lock.
mod object_lock;
/// What commands print with --json, and its schemas.
mod outputs;
/// The same where something is missing, damaged, away or not over.
mod outputs_states;
/// Code that owners of tables put there, and whose rights it has.
mod owners;
/// Roles that own nothing of a table, and may put code there.
mod owners_holders;
/// Rights that a login has and an owner lacks, near and far.
mod owners_lack;
mod owners_operators;
/// Whose rights code has after a restore with other owners.
mod owners_restore;
/// The status page in a browser, JSON, metrics, health checks, the token.
mod page;
/// What may be asked for on the pages, by whom.
mod page_actions;
/// The pages behind the status page, and whether the data are safe.
mod pages;
/// Partitions that come: made ahead, filled from the default partition.
mod partition;
/// What a conversion and its way back carry along, and what they refuse.
mod partition_carried;
/// A table in use becomes a partitioned one.
mod partition_convert;
/// A detached partition until it is dropped.
mod partition_guard;
/// Number keys, and what lies far beyond them.
mod partition_numbers;
/// Partitions that go.
mod partition_retire;
/// What roles that may create objects beside a partitioned table can do to its retired partitions.
mod partition_strangers;
/// Partitioned tables as people have them.
mod partition_tables;
/// Tables of many tenants, and several jobs on one table: what stops one stops no other.
mod partition_tenants;
/// What a backup needs, said before it is made: lacks, and what mends each.
mod readiness;
/// A staging database that is made anew from a backup.
mod refresh;
/// Refreshes of encrypted sets, from buckets and from several stores.
mod refresh_copies;
/// URLs that lead to another server than the one that was looked at.
mod refresh_elsewhere;
/// The same, stopped at each of its steps.
mod refresh_kills;
/// What it refuses, and what it leaves when it fails.
mod refresh_refused;
/// Who sees the copy, whose marks are believed, and what the swap carries.
mod refresh_strangers;
/// Indexes that are built anew because they are bloated or invalid.
mod reindex;
/// Jobs for systemd and Kubernetes.
mod render;
/// The database that a restore makes: its properties, its names, what is left of it.
mod restore_database;
/// Databases in other encodings and locales.
mod restore_encodings;
/// Rows that go back into a living table.
mod restore_merge;
/// Restores that are stopped, killed or met by others on the way.
mod restore_midway;
/// How far a restore goes, and what each refusal names.
mod restore_options;
mod restore_part;
mod restore_part_hostile;
mod restore_part_rows;
mod restore_part_trust;
mod restore_part_types;
/// How a dump's stream goes into a server: whole or not there, and counted.
mod restore_stream;
mod restore_under_lock;
/// Restores by several sessions.
mod restore_wide;
/// Rows that leave a table, and come back.
mod retention;
/// `max_size`: what fits stays.
mod retention_size;
/// Tables of every kind that rows leave, and who else holds them.
mod retention_tables;
/// What is old, and who says so: clocks, values that are no times, the first run, keys.
mod retention_time;
/// The short way does what the long way would: triggers, publications, foreign keys.
mod retention_ways;
/// Further attempts, and what a run waits for.
mod retries;
/// Whole databases, byte for byte.
mod round_trip;
/// Restored rows, compared by their values.
mod rows_hashed;
/// Rows that one wrong number, key or setting must not cost, nor one object of a partition keep.
mod rows_kept;
/// Several runners, their locks and limits, and a ledger that takes no rows.
mod runners;
/// Manifests whose names only a key opens.
mod sealed;
mod sealed_archives;
/// The scheduler: ticks, reloading, draining, catching up, order, slots.
mod serve;
/// The scheduler when things break: kills, ledger and target away, clocks that are set.
mod serve_faults;
/// CHECKs that sleep.
mod slow_checks;
/// The user's own statements.
mod sql;
/// What a run of them says was kept, and whether it is done twice.
mod sql_kept;
mod sql_prepared;
/// Materialized views in order.
mod sql_views;
/// `pgtend` alone: where one stands.
mod standing;
/// What is claimed of backups, and is so.
mod standing_claims;
/// What hides that something is wrong: later runs, dead processes, lost copies, drills.
mod standing_doubts;
/// The same for databases that were found on servers.
mod standing_fleets;
/// What nobody knows is not called well.
mod standing_silent;
/// One contract for all kinds of store.
mod store;
/// Azure Blob Storage and Google Cloud Storage.
mod store_clouds;
/// A directory as a store: disks that are not mounted, file systems without fsync of folders.
mod store_dir;
/// Archived rows and dumps that a stranger put in the place of ours.
mod store_forged;
/// What others put into a store: foreign and broken files, forged sets; signatures.
mod store_input;
/// Dumps that somebody changed, and roles that cannot do harm.
mod store_is_input;
/// Writes under a condition, and a lock object as a lease.
mod store_lease;
/// With a key: what has no signature, and what was signed once and is put back.
mod store_replayed;
/// Servers and credentials that are otherwise than AWS's with everything allowed.
mod store_servers;
mod store_signed;
/// Certificates of private CAs: of stores, webhook and pings.
mod store_tls;
/// Strangers at the pages, and on the way to others: what they cannot stop, ask or read.
mod strangers;
/// Functions that other roles have made beside those that a job's objects call.
mod strangers_meaning;
mod strangers_names;
mod strangers_overloads;
mod strangers_schemas;
/// Views and triggers that other roles have made over a job's table.
mod strangers_views;
/// The servers that these tests stand on.
mod support_works;
/// Texts that servers and catalogs hold: in SQL that people run, and on their terminals.
mod texts;
/// Sets in storage classes that need a thaw.
mod thaw;
/// Proofs by a restore in a PostgreSQL server of their own.
mod throwaway;
/// What hostile dumps and other users of the host cannot do by such a proof.
mod throwaway_hostile;
/// Where a proof is made, and what has to be trusted there.
mod throwaway_placed;
/// What such a proof covers: owners, grants, what only a superuser restores, memory, amcheck.
mod throwaway_proved;
/// What goes wrong with backups, once more in two encrypted stores.
mod two_encrypted_stores;
/// Vector indexes: what is measured, against a computation of the test's own; what is built, and that nobody notices.
mod vector_index;
/// Vector indexes while others are at work beside: jobs, migrations, rows that move.
mod vector_index_beside;
/// Vector index builds that are stopped in each phase, and what is left afterwards.
mod vector_index_faults;
/// Searches with a filter: what they find, and what applications' statements show.
mod vector_index_filters;
/// Vector indexes that are not the plain case: of a part of the rows, on an expression, altered, found out on a sample.
mod vector_index_kinds;
/// Indexes on expressions, beside which none is built; memory and prepared transactions.
mod vector_index_others;
/// Smaller indexes, in half precision and on bits, and the function that searches by bits.
mod vector_index_quantize;
/// Whose recall it is: that of the application's questions.
mod vector_index_queries;
/// What applications search with: where it is set, for whom, and when not.
mod vector_index_settings;
/// Settings that all searches share, and filters that tell nothing.
mod vector_index_shared;
/// What is there stays where it is better, or where no index is needed.
mod vector_index_stays;
/// Dumps by several sessions.
mod wide;
/// What owners of tables and schemas put in the way of such dumps.
mod wide_owners;
