//! Servers that share an archive, as they have the same database name, job and store: two of their own, a promoted standby and its primary, a
//! physical copy and its original. No row is lost, and none comes back to a server that has it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};
use pgtend::archive::{Archive, BatchName, Manifest, Source, transaction};
use pgtend::base::progress::Progress;
use pgtend::{config, store};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::archives::{ALL, batches};
use crate::retention::{logs, scenario};
use crate::support::postgres::{Server, server};
use crate::support::{Output, Scenario, quoted, set_own_environment};

async fn store_in(path: &Path) -> Result<store::Store> {
    set_own_environment(&[("XDG_STATE_HOME", "/dev/null/state")]);
    let dir = config::Store::Dir { path: path.to_owned(), sign_key: None, age: Arc::default(), max_upload: None };
    store::Store::open(&dir).await
}

/// A run of a job in its transaction, as `[retention]` makes it.
struct Run {
    archive: Archive,
    connection: PgConnection,
    phase: pgtend::base::progress::Phase,
}

impl Run {
    async fn begin(store: &Path, url: &str) -> Result<Self> {
        let archive = Archive::new(store_in(store).await?, "app", "old-logs");
        let mut connection = PgConnection::connect(url).await?;
        connection.execute("BEGIN").await?;
        Ok(Self { archive, connection, phase: Progress::logged().phase("archive", None) })
    }

    async fn name(&mut self, at: DateTime<Utc>) -> Result<BatchName> {
        Ok(self.archive.name(at, transaction(&mut self.connection).await?))
    }

    /// Deletes and archives all rows of `logs` with a time.
    async fn export(&mut self, name: &BatchName) -> Result<Manifest> {
        let columns = ["id", "created_at", "status", "parameters"].map(str::to_owned).to_vec();
        let query = "DELETE FROM public.logs WHERE created_at IS NOT NULL RETURNING id, created_at, status, parameters";
        let queries = vec![query.to_owned()];
        let source = Source { schema: "public".to_owned(), table: "logs".to_owned(), columns, queries, steps: None };
        let manifest = Manifest::new("old-logs", "app", &source, "test");
        self.archive.export(&mut self.connection, &source, name, manifest, &self.phase).await
    }

    async fn commit(&mut self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        self.connection.execute("COMMIT").await?;
        self.archive.complete(name, manifest).await
    }
}

/// Gives both servers the same next transaction number.
fn made_equal(one: &Server, other: &Server) {
    let next =
        |server: &Server| -> i64 { server.sql("postgres", "SELECT pg_snapshot_xmax(pg_current_snapshot())").parse().unwrap() };
    let (first, second) = (next(one), next(other));
    let behind = if first < second { one } else { other };
    burn(behind, (first - second).abs());
    assert_eq!(next(one), next(other));
}

fn burn(server: &Server, transactions: i64) {
    let burn = "DO $$ BEGIN FOR i IN 1..COUNT LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    server.sql("postgres", &burn.replace("COUNT", &transactions.to_string()));
}

#[test]
fn two_servers_that_archive_in_the_same_second_by_the_same_number_lose_no_row() {
    let (one, other) = (Server::start(18), Server::start(18));
    let (first, second) = (logs(&one, 1000), logs(&other, 500));
    let (before, before_other) = (one.sql(&first, ALL), other.sql(&second, ALL));
    let scenario = scenario(&one, &first, "archive = 'local'");
    configured_alike(&scenario, &other.url(&second));
    made_equal(&one, &other);
    let at = Utc::now();
    let store = scenario.path("store");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut here = Run::begin(&store, &one.url(&first)).await.unwrap();
        let mut there = Run::begin(&store, &other.url(&second)).await.unwrap();
        let (own, its) = (here.name(at).await.unwrap(), there.name(at).await.unwrap());
        let number = |name: &BatchName| name.to_string().rsplit('-').nth(1).map(str::to_owned);
        assert_eq!(number(&own), number(&its), "the same transaction number");
        let (manifest, its_manifest) = (here.export(&own).await.unwrap(), there.export(&its).await.unwrap());
        here.commit(&own, &manifest).await.unwrap();
        there.commit(&its, &its_manifest).await.unwrap();
    });
    assert_eq!(batches(&scenario).len(), 2);
    let identities = batches(&scenario).iter().map(|batch| batch["identity"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let own = |database: &str| identities.iter().find(|identity| identity.ends_with(&format!("/{database}"))).unwrap().clone();
    scenario.run(&["archives", "restore", "--from", &own(&first)]).succeeded();
    alike(&scenario, &["archives", "restore", "--from", &own(&second)]).succeeded();
    assert_eq!((one.sql(&first, ALL), other.sql(&second, ALL)), (before, before_other));
}

#[test]
fn a_batch_whose_name_is_taken_or_was_taken_keeps_its_rows_in_their_table() {
    let server = server(18);
    for is_complete in [false, true] {
        let (first, second) = (logs(server, 1000), logs(server, 500));
        let (before, before_other) = (server.sql(&first, ALL), server.sql(&second, ALL));
        let scenario = scenario(server, &first, "archive = 'local'");
        let store = scenario.path("store");
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut here = Run::begin(&store, &server.url(&first)).await.unwrap();
            let mut there = Run::begin(&store, &server.url(&second)).await.unwrap();
            let name = here.name(Utc::now()).await.unwrap();
            let manifest = here.export(&name).await.unwrap();
            if is_complete {
                here.commit(&name, &manifest).await.unwrap();
            }
            let refused = there.export(&name).await.unwrap_err();
            assert!(format!("{refused:#}").contains("already exists"), "{refused:#}");
            if !is_complete {
                here.commit(&name, &manifest).await.unwrap();
            }
        });
        assert_eq!(server.sql(&second, ALL), before_other, "rolled back");
        assert_eq!(server.sql(&first, "SELECT count(*) FROM logs"), "1");
        assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json")), "{:?}", scenario.files("store"));
        scenario.run(&["archives", "restore"]).succeeded().prints(&["put back from 1 "]);
        assert_eq!(server.sql(&first, ALL), before);
    }
}

#[test]
fn an_object_that_was_replaced_before_the_batch_was_recorded_is_not_called_archived() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    let store = scenario.path("store");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut run = Run::begin(&store, &server.url(&database)).await.unwrap();
        let name = run.name(Utc::now()).await.unwrap();
        let manifest = run.export(&name).await.unwrap();
        let object = store.join(format!("{name}.sql.gz"));
        let length = std::fs::metadata(&object).unwrap().len();
        std::fs::write(&object, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
        let error = run.commit(&name, &manifest).await.unwrap_err();
        assert!(format!("{error:#}").contains("is not the one that was written"), "{error:#}");
    });
    assert!(batches(&scenario).is_empty());
    // Each later run names it, and takes nothing away.
    scenario.run(&["run-job", "old-logs"]).succeeded().says(&["stays", "SHA-256"]);
    assert_eq!(scenario.files("store").iter().filter(|file| file.ends_with(".sql.gz")).count(), 1);
}

#[test]
fn an_upload_of_another_run_is_not_taken_for_a_leftover() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    let folder = scenario.path("store/app/old-logs/archive");
    std::fs::create_dir_all(&folder).unwrap();
    let partial =
        |digit: &str| folder.join(format!(".2026-11-30T10-00-00Z-0000000700-0123456{digit}.sql.gz.{}.partial", "ab".repeat(16)));
    for digit in ["7", "8"] {
        std::fs::write(partial(digit), "rows").unwrap();
    }
    let a_month_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(30 * 86_400);
    std::fs::File::options().write(true).open(partial("8")).unwrap().set_modified(a_month_ago).unwrap();
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!((partial("7").exists(), partial("8").exists()), (true, false));
}

const ALIKE: [&str; 4] = ["--config", "staging.toml", "--jobs", "jobs"];

/// A second configuration that calls another database the same, with the same store and jobs.
fn configured_alike(scenario: &Scenario, url: &str) {
    let store = quoted(&scenario.path("store").display().to_string());
    let text = format!("[databases.app]\nurl = {}\n[stores.local]\npath = {store}\n", quoted(url));
    std::fs::write(scenario.path("staging.toml"), text).unwrap();
}

fn alike(scenario: &Scenario, arguments: &[&str]) -> Output {
    scenario.run(&[&ALIKE[..], arguments].concat())
}

/// A primary without a key in its table, and a hot standby that ran already when it was started.
fn primary_and_standby() -> (Server, Server, String) {
    let mut primary = Server::start(18);
    let database = logs(&primary, 1000);
    primary.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    let standby = primary.standby();
    primary.crash();
    primary.start_again();
    standby.catches_up(&primary);
    (primary, standby, database)
}

#[test]
fn after_a_failover_that_lost_the_last_transactions_rows_do_not_come_back_twice() {
    for gives_the_number_out_again in [false, true] {
        let (mut primary, standby, database) = primary_and_standby();
        let before = primary.sql(&database, ALL);
        let scenario = scenario(&primary, &database, "archive = 'local'");
        configured_alike(&scenario, &standby.url(&database));
        standby.loses_its_primary();
        scenario.run(&["run-job", "old-logs"]).succeeded();
        primary.crash();
        standby.promote();
        assert_eq!(standby.sql(&database, ALL), before, "the deletes are lost");
        if gives_the_number_out_again {
            burn(&standby, 50);
        }
        alike(&scenario, &["archives", "restore", "--dry-run"]).succeeded().prints(&["never left"]);
        alike(&scenario, &["archives", "restore"]).succeeded().says(&["never left"]).prints(&["0 rows put back"]);
        alike(&scenario, &["run-job", "old-logs"]).succeeded();
        alike(&scenario, &["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 "]);
        assert_eq!(standby.sql(&database, ALL), before, "{gives_the_number_out_again}");
    }
}

#[test]
fn after_a_failover_that_lost_nothing_rows_come_back_and_a_role_that_cannot_tell_is_refused() {
    let (mut primary, standby, database) = primary_and_standby();
    let before = primary.sql(&database, ALL);
    let scenario = scenario(&primary, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    primary.sql(
        &database,
        &format!("CREATE ROLE plain LOGIN; GRANT ALL ON DATABASE \"{database}\" TO plain; GRANT ALL ON logs TO plain"),
    );
    standby.catches_up(&primary);
    primary.crash();
    standby.promote();
    configured_alike(&scenario, &standby.url_as("plain", &database));
    let name = batches(&scenario)[0]["batch"].as_str().unwrap().to_owned();
    alike(&scenario, &["archives", "restore", "--dry-run"]).succeeded().prints(&[&name, "would not put them back"]);
    alike(&scenario, &["archives", "restore"]).exited(1).says(&[&name, "timeline 1", "pg_read_file", "--again"]);
    assert_eq!(standby.sql(&database, "SELECT count(*) FROM logs"), "241");
    configured_alike(&scenario, &standby.url(&database));
    alike(&scenario, &["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    assert_eq!(standby.sql(&database, ALL), before);
}

#[test]
fn a_batch_that_a_copy_made_in_the_place_of_the_original_s_is_not_taken_for_it_on_a_third_server() {
    let original = Server::start(18);
    let database = original.new_database();
    original.sql(
        &database,
        "CREATE TABLE ev (id bigint, at timestamptz NOT NULL, what text) PARTITION BY RANGE (at);
         DO $$ DECLARE old date := date_trunc('month', now()) - interval '5 months'; BEGIN
            EXECUTE format('CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (%L) TO (%L)', old, old + interval '1 month');
            INSERT INTO ev SELECT i, old + interval '1 day', 'row ' || i FROM generate_series(1, 100) i;
         END $$",
    );
    let new = server(18);
    let elsewhere = new.new_database();
    new.sql(&elsewhere, "CREATE TABLE ev (id bigint, at timestamptz NOT NULL, what text)");
    let keys =
        |grace: &str| format!("every = \"month\"\nretain = \"60d\"\ngrace = \"{grace}\"\npremake = 1\narchive = \"local\"");
    let scenario = Scenario::with_url(&original, &original.url(&database))
        .config(&format!("[databases.new]\nurl = {}\n", quoted(&new.url(&elsewhere))))
        .partitions("public.ev", "at", &keys("1d"));
    scenario.tend().succeeded().prints(&["detached"]);
    let objects = || -> Vec<String> { scenario.files("store").into_iter().filter(|file| file.contains(".sql.gz")).collect() };
    let first = objects().remove(0).split(".sql.gz").next().unwrap().to_owned();
    let mut copy = original.standby();
    copy.catches_up(&original);
    copy.part_from_its_primary();
    copy.sql(
        &database,
        "DROP TRIGGER pgtend_retired ON ev_old; DELETE FROM ev_old WHERE id > 10; UPDATE ev_old SET what = 'masked'",
    );
    configured_alike(&scenario, &copy.url(&database));
    let job = std::fs::read_to_string(scenario.path("jobs/tend.toml")).unwrap();
    std::fs::write(scenario.path("jobs/tend.toml"), job.replace("\"1d\"", "\"0s\"")).unwrap();
    alike(&scenario, &["run-job", "tend"]).succeeded();
    assert_eq!(objects().len(), 2, "the copy archived it again");
    drop((original, copy));

    let restore = ["archives", "restore", "--to", "new"];
    scenario.run(&[&restore[..], &["--dry-run"]].concat()).succeeded().prints(&["physical copy", "would not put them back"]);
    scenario.run(&restore).exited(1).says(&["physical copy", &format!("--again --batch {first}")]);
    assert_eq!(new.sql(&elsewhere, "SELECT count(*) FROM ev"), "0", "neither is guessed");
    scenario.run(&[&restore[..], &["--again", "--batch", &first]].concat()).succeeded().prints(&["100 rows put back"]);
    assert_eq!(new.sql(&elsewhere, "SELECT count(*) FILTER (WHERE what LIKE 'row %') FROM ev"), "100");
}

#[test]
fn rows_that_a_copy_of_the_server_archived_do_not_come_back_into_the_original() {
    for (is_promoted, runs_itself) in [(false, false), (false, true), (true, false), (true, true)] {
        let original = Server::start(18);
        let database = logs(&original, 1000);
        original.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
        let before = original.sql(&database, ALL);
        let scenario = scenario(&original, &database, "archive = 'local'");
        let mut copy = original.standby();
        copy.catches_up(&original);
        match is_promoted {
            true => copy.promote(),
            false => copy.part_from_its_primary(),
        }
        configured_alike(&scenario, &copy.url(&database));
        alike(&scenario, &["run-job", "old-logs"]).succeeded();
        let its = batches(&scenario)[0]["batch"].as_str().unwrap().to_owned();
        if runs_itself {
            scenario.run(&["run-job", "old-logs"]).succeeded();
        }
        scenario.run(&["archives", "restore"]).exited(1).says(&["1 batch not put back", &its, "--again"]);
        assert_eq!(original.sql(&database, ALL), before, "promoted: {is_promoted}, runs itself: {runs_itself}");
        // It is a person's word that the rows are nowhere else.
        scenario.run(&["archives", "restore", "--again", "--batch", &its]).succeeded().prints(&["760 rows put back"]);
    }
}
