//! Servers and credentials that are otherwise than AWS's with everything allowed: what they do is put right, or said.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use chrono::{DateTime, Utc};
use hyper::Method;
use pgtend::base::fault::Kind;
use pgtend::config::{self, Checksums};
use pgtend::pg::failure;
use pgtend::store::{Locked, Precondition, Store};

use crate::store::{content, keys, on_all, on_s3, on_servers, rule, s3_config, s3_config_at, upload};
use crate::support::moto::Moto;
use crate::support::postgres::server;
use crate::support::s3::{Fault, S3Server};
use crate::support::{Scenario, faketime};

/// Opened anew with something else in its configuration.
async fn open(server: &S3Server, change: impl FnOnce(&mut config::S3)) -> Result<Store> {
    let config::Store::S3(mut s3) = s3_config(server, "backups") else { unreachable!() };
    change(&mut s3);
    Store::open(&config::Store::S3(s3)).await
}

#[test]
fn a_read_that_breaks_goes_on_at_the_right_byte_whatever_the_server_makes_of_range() {
    on_s3(async |store, server| {
        let content = content(20 << 20);
        upload(store, "a/object", &content).await?;
        let quirks = server.quirks();
        for (ignores_ranges, starts_before) in [(false, 0), (true, 0), (false, 1), (false, 3 << 20)] {
            quirks.ignores_ranges.store(ignores_ranges, Relaxed);
            quirks.starts_before.store(starts_before, Relaxed);
            server.heal();
            server.break_with(rule(Method::GET, "object", Fault::CutBody(7 << 20), 2));
            let read = store.get("a/object").await?;
            assert!(read.as_ref() == Some(&content), "{ignores_ranges} {starts_before}: {:?} bytes", read.map(|read| read.len()));
        }
        Ok(())
    });
}

#[test]
fn a_read_that_breaks_is_an_error_when_the_server_does_not_say_which_content_it_was() {
    on_s3(async |store, server| {
        upload(store, "a/object", &content(20 << 20)).await?;
        for quirk in [&server.quirks().has_no_etags, &server.quirks().has_weak_etags] {
            quirk.store(true, Relaxed);
            server.heal();
            server.break_with(rule(Method::GET, "object", Fault::CutBody(7 << 20), 1));
            let error = store.get("a/object").await.unwrap_err();
            assert_eq!(failure::kind_of(&error), Some(Kind::Unreachable), "{error:#}");
            assert!(format!("{error:#}").contains("no strong ETag"), "{error:#}");
            assert!(store.get("a/object").await?.is_some(), "an unbroken read needs none");
            quirk.store(false, Relaxed);
        }
        Ok(())
    });
}

#[test]
fn all_pages_of_a_list_are_read_and_one_that_loses_its_way_is_an_error() {
    on_s3(async |store, server| {
        let names: Vec<String> = (0..7).map(|number| format!("a/{number}")).collect();
        for name in &names {
            store.put(name, b"x".to_vec()).await?;
        }
        server.quirks().page.store(3, Relaxed);
        assert_eq!(keys(store, "a/").await?, names);
        server.quirks().loses_tokens.store(true, Relaxed);
        let error = store.list("a/").await.unwrap_err();
        assert!(format!("{error:#}").contains("returned an incomplete list"), "{error:#}");
        let error = store.unfinished("a/").await.unwrap_err();
        assert!(format!("{error:#}").contains("returned an incomplete list"), "{error:#}");
        Ok(())
    });
}

#[test]
fn only_an_answer_that_the_object_is_not_there_says_so() {
    on_all(async |store| {
        store.put("a/there", b"x".to_vec()).await?;
        assert!(store.exists_for_certain("a/there").await?);
        assert!(!store.exists_for_certain("a/missing").await?);
        store.put("a/empty", Vec::new()).await?;
        assert!(store.exists_for_certain("a/empty").await?);
        Ok(())
    });
    on_servers(async |store, server| {
        for status in [403, 404, 500] {
            server.quirks().get_answers.store(status, Relaxed);
            let error = store.exists_for_certain("a/missing").await.unwrap_err();
            assert!(format!("{error:#}").contains("cannot tell whether"), "{error:#}");
        }
        Ok(())
    });
    let folder = tempfile::TempDir::new().unwrap();
    let gone = Store::Dir(pgtend::store::dir::Dir::new(&folder.path().join("gone")));
    tokio::runtime::Runtime::new().unwrap().block_on(gone.exists_for_certain("a")).unwrap_err();
}

#[test]
fn a_server_that_cannot_list_uploads_has_none_however_it_says_so() {
    on_s3(async |store, server| {
        for status in [400, 405, 501] {
            server.quirks().uploads_answer.store(status, Relaxed);
            assert_eq!(store.unfinished("a/").await?.len(), 0, "{status}");
        }
        server.quirks().uploads_answer.store(403, Relaxed);
        let error = store.unfinished("a/").await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Permission), "{error:#}");
        Ok(())
    });
}

#[test]
fn a_bucket_that_wants_checksums_gets_them_once_it_has_said_so_or_the_key_does() {
    on_s3(async |_, server| {
        server.quirks().wants_checksums.store(true, Relaxed);
        let large = content(20 << 20);
        let all = [None, Some(Checksums::WhenRequired), Some(Checksums::Md5), Some(Checksums::Always)];
        for (number, checksums) in all.into_iter().enumerate() {
            // What a store has asked for is remembered by its prefix.
            let store = open(server, |s3| {
                s3.checksums = checksums;
                s3.prefix = format!("store-{number}");
            });
            let store = store.await?;
            upload(&store, "a/large", &large).await?;
            store.put("a/small", b"x".to_vec()).await?;
            assert!(store.get("a/large").await? == Some(large.clone()), "{checksums:?}");
            assert!(store.can_put_if().await?, "{checksums:?}");
            store.probe().await?;
        }
        Ok(())
    });
}

#[test]
fn a_locked_object_says_until_when_and_one_that_may_not_be_deleted_what_is_to_be_allowed() {
    on_s3(async |store, server| {
        store.put("a/object", b"x".to_vec()).await?;
        let until: DateTime<Utc> = "2099-01-02T03:04:00Z".parse()?;
        server.quirks().locked_until.store(until.timestamp(), Relaxed);
        let error = store.delete("a/object").await.unwrap_err();
        assert_eq!(error.downcast_ref::<Locked>(), Some(&Locked { until: Some(until) }), "{error:#}");
        assert!(format!("{error:#}").contains("is locked until 2099-01-02 03:04 UTC"), "{error:#}");

        server.quirks().locked_until.store(0, Relaxed);
        server.quirks().refuses_deletes.store(true, Relaxed);
        let error = store.delete("a/object").await.unwrap_err();
        assert_eq!(error.downcast_ref::<Locked>(), None, "{error:#}");
        assert_eq!(failure::kind_of(&error), Some(Kind::Permission), "{error:#}");
        let said = format!("{error:#}");
        assert!(said.contains("s3:DeleteObject") && said.contains("some/prefix/a/object"), "{said}");
        Ok(())
    });
}

#[test]
fn a_probe_says_what_does_not_work_and_fails_only_of_what_a_backup_needs() {
    on_s3(async |store, server| {
        let probed = store.probe().await?;
        assert_eq!((probed.warnings, probed.can_delete), (Vec::new(), true));

        server.quirks().keeps_versions.store(true, Relaxed);
        let probed = store.probe().await?;
        assert!(probed.warnings[0].contains("lifecycle rule"), "{:?}", probed.warnings);
        server.quirks().keeps_versions.store(false, Relaxed);

        server.quirks().refuses_deletes.store(true, Relaxed);
        let probed = store.probe().await?;
        assert!(!probed.can_delete);
        assert!(probed.warnings[0].contains("`keep` and the sweep will not work here"), "{:?}", probed.warnings);
        server.quirks().refuses_deletes.store(false, Relaxed);

        server.quirks().get_answers.store(403, Relaxed);
        assert!(store.probe().await.is_err(), "what cannot be read back is no backup");
        Ok(())
    });
    on_s3(async |store, server| {
        server.quirks().ignores_conditions.store(true, Relaxed);
        let probed = store.probe().await?;
        assert!(probed.warnings[0].contains("without a [ledger]"), "{:?}", probed.warnings);
        Ok(())
    });
}

#[test]
fn check_says_that_credentials_may_not_delete_and_that_versions_stay_and_is_content() {
    let server = S3Server::start();
    server.quirks().keeps_versions.store(true, Relaxed);
    server.quirks().refuses_deletes.store(true, Relaxed);
    let checked = Scenario::empty().s3(&server).run(&["check", "--connect"]).succeeded();
    checked.prints(&["store bucket", "cannot delete, so `keep` and the sweep", "s3:DeleteObject", "the bucket keeps versions"]);
}

#[test]
fn a_clock_that_is_off_is_named_and_stops_nothing() {
    let s3 = S3Server::start();
    for (offset, said) in [("+20m", "behind this host's"), ("-20m", "ahead of this host's")] {
        let database = server(18).new_database();
        let scenario = Scenario::with_database(server(18), &database).s3(&s3);
        let output = scenario
            .command(&["check", "--connect"])
            .env("LD_PRELOAD", faketime())
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success(), "{offset}: {printed}");
        for whose in ["the store's clock is", "the database server's clock is"] {
            assert!(printed.contains(whose) && printed.contains(said), "{offset}: {printed}");
        }
    }
}

#[test]
fn errors_name_the_server_the_cause_and_what_to_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = S3Server::start();
    let port = server.endpoint().rsplit(':').next().unwrap().to_owned();
    // What answers to everything in a language of its own.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1000]);
            let _ = std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    runtime.block_on(async {
        for (endpoint, kind, words) in [
            ("http://127.0.0.1:1".to_owned(), Kind::Unreachable, "the connection was refused"),
            ("http://no-such-host.invalid".to_owned(), Kind::Unreachable, "its name is unknown (DNS)"),
            (format!("https://127.0.0.1:{port}"), Kind::Unreachable, "does not speak TLS: try `http://`"),
            (other, Kind::Unreachable, "does not speak HTTP"),
        ] {
            let store = open(&server, |s3| s3.endpoint = Some(endpoint.clone())).await.unwrap();
            let error = store.list("").await.unwrap_err();
            let said = format!("{error:#}");
            assert_eq!(failure::kind_of(&error), Some(kind), "{said}");
            assert!(said.contains(words) && said.contains(&endpoint), "{said}");
            for empty in ["dispatch failure", "unhandled error", "service error"] {
                assert!(!said.contains(empty), "{said}");
            }
        }
        // Answers without a body: of HEAD.
        let store = open(&server, |s3| s3.bucket = "no-such-bucket".to_owned()).await.unwrap();
        assert!(store.stat("a").await.unwrap().is_none());
        server.break_with(rule(Method::HEAD, "object", Fault::InternalError, u32::MAX));
        let error = open(&server, |_| ()).await.unwrap().stat("object").await.unwrap_err();
        assert!(format!("{error:#}").contains("HTTP 500"), "{error:#}");
    });
}

#[test]
fn a_bucket_with_versions_or_object_lock_is_a_store_in_which_what_is_deleted_is_hidden() {
    let moto = Moto::start();
    moto.create_versioned_bucket("versioned");
    moto.create_locked_bucket("locked", 30);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for bucket in ["versioned", "locked"] {
            let store = Store::open(&s3_config_at(moto.endpoint(), bucket)).await.unwrap();
            let probed = store.probe().await.unwrap();
            assert!(probed.can_delete, "{probed:?}");
            let large = content(20 << 20);
            upload(&store, "a/large", &large).await.unwrap();
            assert!(store.get("a/large").await.unwrap() == Some(large));
            // What is deleted is hidden.
            store.delete("a/large").await.unwrap();
            assert!(!store.exists_for_certain("a/large").await.unwrap());
            assert!(store.put_if("a/large", b"new".to_vec(), Precondition::Absent).await.unwrap().is_some());
        }
    });
    // (Its answer to GetBucketVersioning has another root element than AWS's: what `check` says of versions is tested above.)
    assert!(moto.versions("versioned").contains("a/large"), "an older version stays");
}
