//! Azure Blob Storage and Google Cloud Storage: what they have of their own, and what they say when they refuse. The contract is in `store`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hyper::Method;
use pgtend::base::fault::Kind;
use pgtend::base::units::{Rate, Span};
use pgtend::config;
use pgtend::pg::failure;
use pgtend::store::Store;
use tempfile::TempDir;

use crate::backup_faults::{SMALL_PARTS, large_database};
use crate::copies::in_store;
use crate::store::{azure_config, azurite, content, google_config, keys, new_container, on_servers, rule, s3_config, upload};
use crate::support::google::service_account;
use crate::support::postgres::server;
use crate::support::s3::{Fault, S3Server};
use crate::support::{Scenario, set_own_environment};

fn changed(configured: config::Store, change: impl FnOnce(&mut config::Cloud)) -> config::Store {
    let config::Store::Cloud(mut cloud) = configured else { unreachable!() };
    change(&mut cloud);
    config::Store::Cloud(cloud)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

/// Azure, and a server of Google.
fn both(google: &S3Server) -> [config::Store; 2] {
    [azure_config(&new_container()), google_config(google)]
}

#[test]
fn a_container_or_a_bucket_that_is_not_there_is_named() {
    let google = S3Server::start_google();
    let azure = azure_config("no-such-place");
    let google = changed(google_config(&google), |cloud| {
        cloud.provider = config::Provider::Google { bucket: "no-such-place".to_owned() };
    });
    block_on(async {
        for configured in [azure, google] {
            let store = Store::open(&configured).await.unwrap();
            for error in [store.list("").await.unwrap_err(), store.probe().await.unwrap_err()] {
                assert_eq!(failure::kind_of(&error), Some(Kind::Configuration), "{error:#}");
                let said = format!("{error:#}");
                assert!(said.contains("there is no") && said.contains("`no-such-place`"), "{said}");
            }
        }
    });
}

#[test]
fn a_container_that_is_not_there_is_no_answer_about_an_object() {
    block_on(async {
        let store = Store::open(&azure_config("no-such-place")).await.unwrap();
        store.exists_for_certain("a/object").await.unwrap_err();
        store.delete("a/object").await.unwrap_err();
        store.get("a/object").await.unwrap_err();
    });
}

#[test]
fn credentials_that_are_refused_say_so_and_where_others_come_from() {
    let google = S3Server::start_google();
    // Another key of 64 bytes; another account.
    let azure = changed(azure_config(&new_container()), |cloud| cloud.credentials = Some(format!("{}==", "A".repeat(86)).into()));
    let google = changed(google_config(&google), |cloud| {
        cloud.credentials = Some(service_account().replace("pgtend@tests", "somebody@else").into());
    });
    block_on(async {
        for (configured, words) in [(azure, "AZURE_STORAGE_ACCOUNT_KEY"), (google, "GOOGLE_APPLICATION_CREDENTIALS")] {
            let error = Store::open(&configured).await.unwrap().list("").await.unwrap_err();
            assert_eq!(failure::kind_of(&error), Some(Kind::Permission), "{error:#}");
            let said = format!("{error:#}");
            assert!(said.contains("refuses the credentials") && said.contains(words), "{said}");
            assert!(!said.contains("AAAA"), "no secrets: {said}");
        }
    });
}

#[test]
fn credentials_of_the_wrong_form_are_a_mistake_of_the_configuration() {
    let google = S3Server::start_google();
    for configured in both(&google) {
        let wrong = changed(configured, |cloud| cloud.credentials = Some("{ not a key of any kind".into()));
        let error = block_on(Store::open(&wrong)).unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Configuration), "{error:#}");
        assert!(format!("{error:#}").contains("are not usable"), "{error:#}");
        assert!(!format!("{error:#}").contains("not a key of any kind"), "no secrets: {error:#}");
    }
}

#[test]
fn without_credentials_check_says_how_to_give_some() {
    let scenario = Scenario::empty().azure(azurite(), &new_container());
    // The place where a machine of Azure gets its identity, which is none here.
    let checked = scenario.env("AZURE_STORAGE_ACCOUNT_KEY", "").env("IDENTITY_ENDPOINT", "http://localhost:1/token");
    let said = checked.run(&["check", "--connect"]).exited(77).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("no credentials for container") && said.contains("set AZURE_STORAGE_ACCOUNT_KEY"), "{said}");
}

#[test]
fn a_404_of_who_gives_tokens_is_no_answer_about_an_object() {
    // A machine whose identity was taken away.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://localhost:{}/token", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4000]);
            let _ = std::io::Write::write_all(
                &mut stream,
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    set_own_environment(&[("IDENTITY_ENDPOINT", &endpoint)]);
    let configured = changed(azure_config(&new_container()), |cloud| cloud.credentials = None);
    block_on(async {
        let store = Store::open(&configured).await.unwrap();
        let mut errors = vec![store.get("a/object").await.unwrap_err(), store.stat("a/object").await.unwrap_err()];
        errors.extend([store.delete("a/object").await.unwrap_err(), store.exists_for_certain("a/object").await.unwrap_err()]);
        for error in errors {
            assert_eq!(failure::kind_of(&error), Some(Kind::Permission), "{error:#}");
            assert!(format!("{error:#}").contains("localhost: HTTP 404"), "{error:#}");
        }
    });
}

#[test]
fn check_tries_both_clouds_with_credentials_of_environment_and_file() {
    let google = S3Server::start_google();
    let checked = Scenario::empty().azure(azurite(), &new_container()).google(&google).run(&["check", "--connect"]).succeeded();
    checked.prints(&["store azure", "store google", "wrote, read, listed and deleted a probe"]);
}

#[test]
fn a_read_that_breaks_again_and_again_goes_on_as_long_as_bytes_come() {
    on_servers(async |store, server| {
        let content = content(20 << 20);
        upload(store, "a/object", &content).await?;
        server.break_with(rule(Method::GET, "object", Fault::CutBody(2 << 20), 9));
        assert!(store.get("a/object").await? == Some(content.clone()));
        server.heal();
        server.break_with(rule(Method::GET, "object", Fault::CutBody(1 << 20), 3));
        let mut part = store.read_range("a/object", (5 << 20)..(9 << 20)).await?.unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = part.chunk().await? {
            read.extend_from_slice(&chunk);
        }
        assert!(read == content[5 << 20..9 << 20]);
        Ok(())
    });
}

#[test]
fn a_read_of_what_is_replaced_meanwhile_is_an_error() {
    let google = S3Server::start_google();
    block_on(async {
        let store = Store::open(&google_config(&google)).await.unwrap();
        upload(&store, "a/object", &content(20 << 20)).await.unwrap();
        google.break_with(rule(Method::GET, "object", Fault::CutBody(2 << 20), 1));
        let mut reader = store.read("a/object").await.unwrap().unwrap();
        upload(&store, "a/object", &content(19 << 20)).await.unwrap();
        let read = async {
            while reader.chunk().await?.is_some() {}
            anyhow::Ok(())
        };
        read.await.unwrap_err();
    });
}

#[test]
fn parts_of_objects_are_read_up_to_their_end() {
    let google = S3Server::start_google();
    block_on(async {
        for configured in both(&google) {
            let store = Store::open(&configured).await.unwrap();
            store.put("a/object", b"0123456789".to_vec()).await.unwrap();
            for (range, expected) in [(0..4, "0123"), (8..99, "89"), (3..3, "")] {
                let mut reader = store.read_range("a/object", range).await.unwrap().unwrap();
                let mut read = Vec::new();
                while let Some(chunk) = reader.chunk().await.unwrap() {
                    read.extend_from_slice(&chunk);
                }
                assert_eq!(read, expected.as_bytes());
            }
            assert!(store.read_range("a/none", 3..3).await.unwrap().is_none());
        }
    });
}

#[test]
fn all_pages_of_a_list_of_google_are_read() {
    let google = S3Server::start_google();
    google.quirks().page.store(3, std::sync::atomic::Ordering::Relaxed);
    block_on(async {
        let store = Store::open(&google_config(&google)).await.unwrap();
        let names: Vec<String> = (0..7).map(|number| format!("a/{number}")).collect();
        for name in &names {
            store.put(name, b"x".to_vec()).await.unwrap();
        }
        assert_eq!(keys(&store, "a/").await.unwrap(), names);
    });
}

#[test]
fn pages_of_a_list_that_come_again_in_turns_end_it() {
    let google = S3Server::start_google();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut buffer) = (String::new(), [0; 4096]);
            while !head.contains("\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                head.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            let next = if head.contains("continuation-token=first") { "second" } else { "first" };
            let page = format!(
                "<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
            );
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
            stream.write_all((head + &page).as_bytes()).unwrap();
        }
    });
    let configured = changed(google_config(&google), |cloud| cloud.endpoint = Some(endpoint.clone()));
    block_on(async {
        let store = Store::open(&configured).await.unwrap();
        let error = format!("{:#}", keys(&store, "a/").await.unwrap_err());
        assert!(error.contains("the same page of its list again"), "{error}");
    });
}

#[test]
fn a_blob_whose_name_is_no_path_hides_no_set() {
    let container = new_container();
    let server = server(18);
    let scenario = Scenario::with_database(server, &server.new_database())
        .config(&format!(
            "[stores.azure]\ncontainer = \"{container}\"\naccount = \"{}\"\nendpoint = \"{}\"\ncredentials_env = \"AZURE_KEY\"\n",
            crate::support::azurite::ACCOUNT,
            azurite().endpoint(),
        ))
        .env("AZURE_KEY", crate::support::azurite::KEY)
        .backup_job("azure", "verify = 'checksum'");
    scenario.run(&["run-job", "nightly"]).succeeded();
    for name in ["exports//report.csv", "app/nightly//x", "app//nightly/x"] {
        azurite().put_blob(&container, name, "x");
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["backups", "list"]).succeeded().prints(&["app/nightly/"]);
    scenario.run(&["backups", "verify", "latest"]).succeeded();
}

#[test]
fn an_access_tier_or_a_storage_class_is_given_to_objects_of_one_part_and_of_many() {
    let google = S3Server::start_google();
    let [azure, google] = both(&google);
    let azure = changed(azure, |cloud| cloud.storage_class = Some("Cool".to_owned()));
    let google = changed(google, |cloud| cloud.storage_class = Some("NEARLINE".to_owned()));
    block_on(async {
        for configured in [azure.clone(), google] {
            let store = Store::open(&configured).await.unwrap();
            let large = content(20 << 20);
            upload(&store, "a/large", &large).await.unwrap();
            assert!(store.get("a/large").await.unwrap() == Some(large));
            store.put("a/small", b"x".to_vec()).await.unwrap();
        }
        let wrong = changed(azure, |cloud| cloud.storage_class = Some("Lukewarm".to_owned()));
        let error = Store::open(&wrong).await.unwrap().put("a/small", b"x".to_vec()).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Configuration), "{error:#}");
    });
}

#[test]
fn an_answer_of_a_cloud_that_stays_away_runs_into_the_parts_own_timeout() {
    let google = S3Server::start_google();
    let configured = changed(google_config(&google), |cloud| cloud.part_timeout = Some(Span(Duration::from_millis(700))));
    block_on(async {
        let store = Store::open(&configured).await.unwrap();
        google.break_with(rule(Method::PUT, "object", Fault::Slow(Duration::from_secs(30)), 1));
        upload(&store, "slow/object", &content(1000)).await.expect("the second attempt is answered");
        google.break_with(rule(Method::PUT, "object", Fault::Slow(Duration::from_secs(30)), u32::MAX));
        let error = upload(&store, "slow/object", &content(1000)).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Unreachable), "{error:#}");
        assert!(format!("{error:#}").contains("did not answer in time"), "{error:#}");
    });
}

#[test]
fn errors_of_the_way_to_a_cloud_name_the_server_and_the_cause() {
    let google = S3Server::start_google();
    let port = google.endpoint().rsplit(':').next().unwrap().to_owned();
    let cases = [
        ("http://127.0.0.1:1".to_owned(), "the connection was refused"),
        ("http://no-such-host.invalid".to_owned(), "its name is unknown (DNS)"),
        (format!("https://127.0.0.1:{port}"), "does not speak TLS: try `http://`"),
    ];
    let google = &google;
    block_on(async {
        let tried = cases.into_iter().map(|(endpoint, words)| async move {
            let configured = changed(google_config(google), |cloud| cloud.endpoint = Some(endpoint.clone()));
            let error = Store::open(&configured).await.unwrap().list("").await.unwrap_err();
            let said = format!("{error:#}");
            assert_eq!(failure::kind_of(&error), Some(Kind::Unreachable), "{said}");
            assert!(said.contains(words) && said.contains(&endpoint), "{said}");
        });
        futures_util::future::join_all(tried).await;
    });
}

#[test]
fn keys_that_a_kind_of_store_does_not_have_are_mistakes() {
    let scenario = Scenario::empty()
        .config("[stores.nameless]\ncontainer = \"a\"\n")
        .config("[stores.azure]\ncontainer = \"a\"\naccount = \"b\"\nregion = \"eu\"\nlock = \"30d\"\n")
        .config("[stores.s3]\nbucket = \"a\"\naccount = \"b\"\n")
        .config("[stores.two]\ngcs_bucket = \"a\"\nbucket = \"b\"\n")
        .config("[stores.fast]\npath = \"a\"\nmax_upload = \"50MB\"\n")
        .config("[stores.secret]\ngcs_bucket = \"a\"\nendpoint = \"https://me:hidden@example.com\"\n");
    let checked = scenario.run(&["check"]).exited(78).says(&[
        "store `nameless` has a `container` and no `account`",
        "store `azure` is an Azure container, which has no `region`",
        "store `azure` is an Azure container, which has no `lock`",
        "store `s3` is an S3 bucket, which has no `account`",
        "store `two` has a `bucket` and a `gcs_bucket`",
        "`50MB` is not a rate",
        "its endpoint holds credentials",
    ]);
    assert!(!checked.stderr.contains("hidden"), "{}", checked.stderr);
}

#[test]
fn one_dump_goes_to_a_folder_and_both_clouds_and_comes_back_from_each() {
    let server = server(18);
    let database = large_database(server);
    let google = S3Server::start_google();
    let scenario = Scenario::with_database(server, &database)
        .azure(azurite(), &new_container())
        .config(SMALL_PARTS)
        .google(&google)
        .config(SMALL_PARTS)
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"azure\", \"google\"]\nkeep = { last = 1 }\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    std::thread::sleep(Duration::from_millis(1100));
    // The lease in each store is taken, the first set pruned.
    scenario.run(&["run-job", "nightly"]).succeeded();
    for store in ["local", "azure", "google"] {
        let sets = in_store(&scenario, store);
        assert_eq!(sets.iter().map(|(_, bytes)| bytes.as_str()).collect::<Vec<_>>(), ["intact"], "{store}");
        scenario.run(&["backups", "verify", "latest", "--store", store]).succeeded();
        let copy = format!("{database}_{store}");
        let restore = ["backups", "restore", "latest", "--store", store, "--create", "--into", &server.url(&copy)];
        scenario.run(&restore).succeeded();
        let sum = |name: &str| server.sql(name, "SELECT count(*), sum(hashtext(t::text)::bigint) FROM big t");
        assert_eq!(sum(&copy), sum(&database), "{store}");
    }
    assert_eq!(google.unfinished_uploads(), Vec::<String>::new());
}

#[test]
fn a_backup_keeps_to_the_max_upload_of_its_stores() {
    let server = server(18);
    let database = large_database(server);
    let google = S3Server::start_google();
    let scenario = Scenario::with_database(server, &database)
        .config("max_upload = \"4MB/s\"\n")
        .google(&google)
        .config(SMALL_PARTS)
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"google\"]\nverify = \"none\"\n");
    let started = Instant::now();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let took = started.elapsed();
    let files = scenario.files("store");
    let dump = files.iter().find(|file| file.ends_with("dump.sql.gz")).unwrap();
    let bytes = std::fs::metadata(scenario.path("store").join(dump)).unwrap().len();
    assert!(bytes > 8_000_000, "{bytes}");
    assert!(took.as_secs_f64() > bytes as f64 / 4_000_000.0 * 0.8, "{bytes} bytes in {took:?}");
}

/// How long it takes to write so many objects of a megabyte to a store, side by side.
async fn written_in(configured: &config::Store, objects: usize) -> Result<Duration> {
    let started = Instant::now();
    let writes = (0..objects).map(|number| async move {
        // Each opens the store anew, as runs do.
        let store = Store::open(configured).await?;
        upload(&store, &format!("paced/{number}"), &content(1_000_000)).await
    });
    futures_util::future::try_join_all(writes).await?;
    Ok(started.elapsed())
}

#[test]
fn max_upload_holds_for_all_uploads_to_a_store_together_and_for_no_other_store() {
    let (folder, s3, google) = (TempDir::new().unwrap(), S3Server::start(), S3Server::start_google());
    let dir = |name: &str, max_upload| config::Store::Dir {
        path: folder.path().join(name),
        sign_key: None,
        age: Arc::default(),
        max_upload,
    };
    let rate = Some(Rate(2_000_000));
    let mut paced_s3 = s3_config(&s3, "backups");
    if let config::Store::S3(s3) = &mut paced_s3 {
        s3.max_upload = rate;
    }
    let paced = [
        dir("paced", rate),
        paced_s3,
        changed(azure_config(&new_container()), |cloud| cloud.max_upload = rate),
        changed(google_config(&google), |cloud| cloud.max_upload = rate),
    ];
    block_on(async {
        for configured in paced {
            let beside = dir("beside", None);
            let (took, took_beside) = tokio::join!(written_in(&configured, 4), written_in(&beside, 4));
            let (took, took_beside) = (took.unwrap(), took_beside.unwrap());
            // 4 MB at 2 MB a second, but for the last piece and a tenth of a second.
            assert!(took >= Duration::from_millis(1300), "{configured:?}: {took:?}");
            assert!(took_beside < took, "{configured:?}: {took_beside:?} of {took:?}");
        }
    });
}
