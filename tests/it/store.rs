//! The contract that every kind of store keeps, and what those behind a network must survive.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use pgtend::base::fault::Kind;
use pgtend::config;
use pgtend::pg::failure;
use pgtend::store::Store;
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::google;
use crate::support::moto::Moto;
use crate::support::s3::{self, Fault, Rule, S3Server};
use crate::support::set_own_environment;

/// Runs a test of the contract on a directory, on S3 (s3s-fs, and moto), on Azure (Azurite) and on Google.
pub fn on_all(test: impl AsyncFn(&Store) -> Result<()>) {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    static BUCKETS: AtomicU32 = AtomicU32::new(0);
    on_all_but_moto(&test);
    let moto = MOTO.get_or_init(Moto::start);
    let bucket = format!("contract-{}", BUCKETS.fetch_add(1, Relaxed));
    moto.create_bucket(&bucket);
    run(&s3_config_at(moto.endpoint(), &bucket), &test);
    assert_eq!(moto.unfinished_uploads(&bucket), Vec::<String>::new());
}

/// The same without moto, which looks whether a condition holds, and then writes: two steps.
pub fn on_all_but_moto(test: &impl AsyncFn(&Store) -> Result<()>) {
    let folder = TempDir::new().unwrap();
    // What a host remembers of its stores is not to be that of these.
    set_own_environment(&[("XDG_STATE_HOME", "/dev/null/state")]);
    let path = folder.path().join("new/store");
    run(&config::Store::Dir { path, sign_key: None, age: Arc::default(), max_upload: None }, test);
    let server = S3Server::start();
    run(&s3_config(&server, "backups"), test);
    assert_eq!(server.unfinished_uploads(), Vec::<String>::new());
    run(&azure_config(&new_container()), test);
    let google = S3Server::start_google();
    run(&google_config(&google), test);
    assert_eq!(google.unfinished_uploads(), Vec::<String>::new());
}

fn run(configured: &config::Store, test: &impl AsyncFn(&Store) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime
        .block_on(async { test(&Store::open(configured).await?).await })
        .unwrap_or_else(|error| panic!("{configured:?}: {error:#}"));
}

pub fn on_s3(test: impl AsyncFn(&Store, &S3Server) -> Result<()>) {
    let server = S3Server::start();
    on_server(&s3_config(&server, "backups"), &server, &test);
}

/// On a server of S3, and on one of Google.
pub fn on_servers(test: impl AsyncFn(&Store, &S3Server) -> Result<()>) {
    on_s3(&test);
    let server = S3Server::start_google();
    on_server(&google_config(&server), &server, &test);
}

fn on_server(configured: &config::Store, server: &S3Server, test: &impl AsyncFn(&Store, &S3Server) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime
        .block_on(async { test(&Store::open(configured).await?, server).await })
        .unwrap_or_else(|error| panic!("{configured:?}: {error:#}"));
}

/// The name of a new container of the one Azurite of these tests.
pub fn new_container() -> String {
    static CONTAINERS: AtomicU32 = AtomicU32::new(0);
    let container = format!("contract-{}", CONTAINERS.fetch_add(1, Relaxed));
    azurite().create_container(&container);
    container
}

pub fn azurite() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(Azurite::start)
}

pub fn azure_config(container: &str) -> config::Store {
    let provider = config::Provider::Azure { account: azurite::ACCOUNT.to_owned(), container: container.to_owned() };
    cloud_config(provider, azurite().endpoint(), azurite::KEY)
}

pub fn google_config(server: &S3Server) -> config::Store {
    let provider = config::Provider::Google { bucket: "backups".to_owned() };
    cloud_config(provider, server.endpoint(), google::service_account())
}

fn cloud_config(provider: config::Provider, endpoint: String, credentials: &str) -> config::Store {
    config::Store::Cloud(Box::new(config::Cloud {
        provider,
        prefix: "some/prefix".to_owned(),
        endpoint: Some(endpoint),
        credentials: Some(credentials.into()),
        storage_class: None,
        parts_in_flight: 2,
        upload_memory_bytes: 18 << 20,
        part_timeout: None,
        max_upload: None,
        ca_file: None,
        sign_key: None,
        age: Arc::default(),
    }))
}

/// Azure lists no uploads that did not end, and drops them by itself.
fn lists_unfinished(store: &Store) -> bool {
    !store.location("").starts_with("http")
}

/// Parts of 6 MiB, so that a test's object has several.
pub fn s3_config(server: &S3Server, bucket: &str) -> config::Store {
    s3_config_at(server.endpoint(), bucket)
}

pub fn s3_config_at(endpoint: String, bucket: &str) -> config::Store {
    // The default chain reads the environment; every test sets the same values.
    set_own_environment(&[("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)]);
    config::Store::S3(Box::new(config::S3 {
        bucket: bucket.to_owned(),
        prefix: "some/prefix".to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint),
        path_style: true,
        server_side_encryption: None,
        kms_key_id: None,
        storage_class: None,
        tag_proved: false,
        max_parts: 10_000,
        parts_in_flight: 2,
        upload_memory_bytes: 18 << 20,
        part_timeout: None,
        max_upload: None,
        checksums: None,
        ca_file: None,
        sign_key: None,
        lock: None,
        age: Arc::default(),
    }))
}

/// Bytes that no two parts have in common.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|index| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

pub async fn upload(store: &Store, key: &str, content: &[u8]) -> Result<()> {
    let mut upload = store.upload(key, content.len() as u64).await?;
    let written = async {
        // Pieces that fit neither parts nor buffers.
        for piece in content.chunks(1_234_567) {
            upload.write(piece.to_vec().into()).await?;
        }
        upload.finish().await
    };
    let written = written.await;
    if written.is_err() {
        upload.abort().await;
    }
    written
}

pub async fn keys(store: &Store, folder: &str) -> Result<Vec<String>> {
    Ok(store.list(folder).await?.into_iter().map(|object| object.key).collect())
}

#[test]
fn what_is_written_is_read_back_whatever_its_size() {
    on_all(async |store| {
        const PART: usize = 6 << 20;
        for bytes in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 5] {
            let content = content(bytes);
            upload(store, "a/b/object", &content).await?;
            assert!(store.get("a/b/object").await? == Some(content), "{bytes} bytes");
            assert_eq!(store.list("a/").await?[0].bytes, bytes as u64);
        }
        Ok(())
    });
}

#[test]
fn an_object_is_invisible_until_it_is_finished_and_gone_when_aborted() {
    on_all(async |store| {
        let mut upload = store.upload("a/b/object", 0).await?;
        upload.write(content(20 << 20).into()).await?;
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        assert!(store.read("a/b/object").await?.is_none());
        assert_eq!(store.unfinished("a/").await?.len(), usize::from(lists_unfinished(store)));
        upload.abort().await;
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        assert_eq!(store.unfinished("").await?.len(), 0);
        Ok(())
    });
}

#[test]
fn what_a_killed_upload_left_is_found_in_its_own_folder_only_and_discarded() {
    on_all(async |store| {
        let mut upload = store.upload("job-a/set/object", 0).await?;
        upload.write(content(20 << 20).into()).await?;
        std::mem::forget(upload);
        assert_eq!(store.unfinished("job-b/").await?.len(), 0);
        assert_eq!(store.unfinished("job-/").await?.len(), 0);
        let found = store.unfinished("job-a/").await?;
        assert_eq!(found.len(), usize::from(lists_unfinished(store)));
        for unfinished in &found {
            assert_eq!(unfinished.key, "job-a/set/object");
            store.discard(unfinished).await?;
        }
        assert_eq!(store.unfinished("job-a/").await?.len(), 0);
        Ok(())
    });
}

#[test]
fn listing_stays_in_its_folder_and_in_order() {
    on_all(async |store| {
        for key in ["a/2", "a/10", "a/1", "ab/1", "b"] {
            store.put(key, b"x".to_vec()).await?;
        }
        assert_eq!(keys(store, "a/").await?, ["a/1", "a/10", "a/2"]);
        assert_eq!(keys(store, "nothing/").await?, Vec::<String>::new());
        assert_eq!(keys(store, "").await?, ["a/1", "a/10", "a/2", "ab/1", "b"]);
        Ok(())
    });
}

#[test]
fn a_missing_object_is_none_and_deleting_it_is_no_error() {
    on_all(async |store| {
        assert!(store.get("no/such").await?.is_none());
        store.delete("no/such").await?;
        store.put("some/such", b"x".to_vec()).await?;
        store.delete("some/such").await?;
        assert!(store.get("some/such").await?.is_none());
        Ok(())
    });
}

#[test]
fn encoded_names_are_kept_as_they_are() {
    on_all(async |store| {
        let key = "we%22ird%3B%20drop/%C3%A4/2026-11-23T02-00-00Z/dump.sql.gz";
        store.put(key, b"x".to_vec()).await?;
        assert_eq!(keys(store, "we%22ird%3B%20drop/").await?, [key]);
        assert_eq!(store.get(key).await?.unwrap(), b"x");
        Ok(())
    });
}

#[test]
fn a_probe_leaves_nothing() {
    on_all(async |store| {
        store.probe().await?;
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        Ok(())
    });
}

pub fn rule(method: Method, contains: &'static str, fault: Fault, times: u32) -> Rule {
    Rule { method, contains, skip: 0, times, fault }
}

#[test]
fn errors_resets_and_lost_answers_are_tried_again() {
    on_servers(async |store, server| {
        let content = content(20 << 20);
        for broken in [
            rule(Method::PUT, "partNumber=2", Fault::InternalError, 2),
            rule(Method::PUT, "partNumber=1", Fault::Reset, 2),
            rule(Method::PUT, "partNumber=3", Fault::LostAnswer, 1),
            rule(Method::POST, "uploads", Fault::InternalError, 1),
            rule(Method::POST, "uploadId", Fault::ErrorInside200, 1),
            rule(Method::POST, "uploadId", Fault::InternalError, 1),
            rule(Method::POST, "uploadId", Fault::LostAnswer, 1),
            rule(Method::GET, "object", Fault::CutBody(7 << 20), 2),
            rule(Method::GET, "object", Fault::CutBody(0), 1),
        ] {
            server.heal();
            server.break_with(broken.clone());
            upload(store, "a/object", &content).await.map_err(|error| error.context(format!("{broken:?}")))?;
            assert!(store.get("a/object").await? == Some(content.clone()), "{broken:?}");
        }
        Ok(())
    });
}

#[test]
fn an_upload_that_cannot_be_completed_is_no_object_and_leaves_no_parts() {
    on_servers(async |store, server| {
        for fault in [Fault::ErrorInside200, Fault::InternalError] {
            server.heal();
            server.break_with(rule(Method::POST, "uploadId", fault, u32::MAX));
            let error = upload(store, "a/object", &content(20 << 20)).await.unwrap_err();
            assert!(
                format!("{error:#}").contains(&format!("cannot complete the upload of {}", store.location("a/object"))),
                "{error:#}"
            );
            assert!(format!("{error:#}").contains("InternalError"), "{error:#}");
            server.heal();
            assert_eq!(keys(store, "").await?, Vec::<String>::new());
            assert_eq!(server.unfinished_uploads(), Vec::<String>::new(), "{fault:?}");
        }
        Ok(())
    });
}

#[test]
fn an_answer_that_stays_away_runs_into_the_parts_own_timeout() {
    let server = S3Server::start();
    let config::Store::S3(mut s3) = s3_config(&server, "backups") else { unreachable!() };
    s3.part_timeout = Some(pgtend::base::units::Span(Duration::from_millis(700)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&config::Store::S3(s3)).await.unwrap();
        server.break_with(rule(Method::PUT, "object", Fault::Slow(Duration::from_secs(30)), 1));
        upload(&store, "slow/object", &content(1000)).await.expect("the second attempt is answered");
        server.break_with(rule(Method::PUT, "object", Fault::Slow(Duration::from_secs(30)), u32::MAX));
        let error = upload(&store, "slow/object", &content(1000)).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Unreachable), "{error:#}");
        assert!(format!("{error:#}").contains("did not answer in time"), "{error:#}");
    });
}

#[test]
fn refusals_say_which_and_why() {
    let server = S3Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&s3_config(&server, "no-such-bucket")).await.unwrap();
        for error in [store.list("").await.unwrap_err(), store.probe().await.unwrap_err()] {
            assert_eq!(failure::kind_of(&error), Some(Kind::Configuration), "{error:#}");
            assert!(format!("{error:#}").contains("no bucket `no-such-bucket`"), "{error:#}");
        }
        let gone = config::Store::S3(match s3_config(&server, "backups") {
            config::Store::S3(mut s3) => {
                s3.endpoint = Some("http://127.0.0.1:1".to_owned());
                s3
            }
            _ => unreachable!(),
        });
        let error = Store::open(&gone).await.unwrap().put("a", b"x".to_vec()).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Unreachable), "{error:#}");
        assert!(format!("{error:#}").contains("http://127.0.0.1:1"), "{error:#}");
    });
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Names {
    names: Vec<String>,
}

impl pgtend::base::bounds::Bounded for Names {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn changes_of_one_object_at_the_same_time_lose_none_of_them() {
    on_all_but_moto(&async |store: &Store| {
        let change = async |name: String| {
            store
                .change_json::<Names>("a/changed.json", |there| {
                    let mut names = there.transpose()?.map(|(names, _)| names).unwrap_or_default();
                    names.names.push(name.clone());
                    Ok(names)
                })
                .await
        };
        let changes = futures_util::future::join_all((0..6).map(|number| change(number.to_string())));
        for changed in changes.await {
            changed?;
        }
        let (mut found, _) = store.get_json::<Names>("a/changed.json").await?.unwrap()?;
        found.names.sort();
        assert_eq!(found.names, ["0", "1", "2", "3", "4", "5"]);
        Ok(())
    });
}

/// What is in each of the folders, by a listing of all of them.
async fn many(store: &Store, folders: &[&str]) -> Vec<(String, Vec<String>)> {
    let folders: BTreeSet<String> = folders.iter().map(ToString::to_string).collect();
    let listed = store.list_many(&folders).await;
    let keys =
        |folder: &String| listed.get(folder).map(|listed| listed.objects.iter().map(|object| object.key.clone()).collect());
    folders.iter().filter_map(|folder| Some((folder.clone(), keys(folder)?))).collect()
}

#[test]
fn many_folders_are_listed_as_each_by_itself_or_not_at_all() {
    const KEYS: [&str; 8] = ["a-b/1", "a/1", "a/2", "b/1", "c/d/1", "c/d/2", "c%3Ad/1", "e"];
    const FOLDERS: [&str; 4] = ["a/", "c/", "c%3Ad/", "none/"];
    on_all(async |store| {
        for key in KEYS {
            store.put(key, b"x".to_vec()).await?;
        }
        let found = many(store, &FOLDERS).await;
        assert_eq!(found.len(), if matches!(store, Store::Cloud(_)) { 0 } else { FOLDERS.len() });
        for (folder, keys) in found {
            let alone: Vec<String> = store.list(&folder).await?.into_iter().map(|object| object.key).collect();
            assert_eq!(keys, alone, "{folder}");
        }
        Ok(())
    });
    on_s3(async |store, server| {
        for key in KEYS {
            store.put(key, b"x".to_vec()).await?;
        }
        let found = many(store, &FOLDERS).await;
        server.quirks().page.store(1, Relaxed);
        assert_eq!(many(store, &FOLDERS).await, found);
        // Such an answer says nothing of what comes later.
        server.quirks().ignores_start_after.store(true, Relaxed);
        assert_eq!(many(store, &FOLDERS).await, []);
        Ok(())
    });
}
