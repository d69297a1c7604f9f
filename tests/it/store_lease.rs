//! Writes under a condition, and what stands on them: a lock object that is a lease.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use pgtend::base::fault::Kind;
use pgtend::base::process_identity::ProcessIdentity;
use pgtend::pg::failure;
use pgtend::store::dir::Dir;
use pgtend::store::lease::{self, Lease, Taken};
use pgtend::store::{Precondition, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::store::{keys, on_all, on_all_but_moto, on_s3, on_servers};

const KEY: &str = "app/nightly/prune.lease";

#[test]
fn of_many_that_write_what_must_be_absent_one_succeeds_and_its_content_stays() {
    on_all_but_moto(&async |store: &Store| {
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            async move { store.put_if("a/lock", format!("writer {writer}").into_bytes(), Precondition::Absent).await }
        });
        let answers: Vec<_> = futures_util::future::try_join_all(writers).await?;
        let winners: Vec<_> = (0..8).filter(|writer| answers[*writer].is_some()).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let (content, version) = store.get_versioned("a/lock").await?.context("it was written")?;
        assert_eq!(content, format!("writer {}", winners[0]).into_bytes());
        assert_eq!(Some(version), answers[winners[0]]);
        assert_eq!(keys(store, "").await?, ["a/lock"], "nothing is left beside it");
        assert_eq!(store.unfinished("").await?.len(), 0);
        Ok(())
    });
}

#[test]
fn a_write_over_what_was_read_happens_only_while_it_is_still_that() {
    on_all(async |store| {
        assert_eq!(store.get_versioned("a/lock").await?, None);
        let first = store.put_if("a/lock", b"1".to_vec(), Precondition::Absent).await?.context("absent")?;
        let second = store.put_if("a/lock", b"2".to_vec(), Precondition::Unchanged(&first)).await?.context("unchanged")?;
        assert_ne!(first, second);
        assert_eq!(store.put_if("a/lock", b"3".to_vec(), Precondition::Unchanged(&first)).await?, None);
        assert_eq!(store.get_versioned("a/lock").await?, Some((b"2".to_vec(), second.clone())));
        store.delete("a/lock").await?;
        assert_eq!(store.put_if("a/lock", b"4".to_vec(), Precondition::Unchanged(&second)).await?, None, "it is gone");
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_store_that_can_write_under_a_condition_is_found_out_and_nothing_is_left() {
    on_all(async |store| {
        assert!(store.can_put_if().await?);
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_server_that_ignores_or_refuses_conditions_is_found_out_and_holds_no_lease() {
    for quirk in ["ignores", "refuses"] {
        on_s3(async |store, server| {
            let quirks = server.quirks();
            if quirk == "ignores" { &quirks.ignores_conditions } else { &quirks.refuses_conditions }.store(true, Relaxed);
            assert!(!store.can_put_if().await?, "{quirk}");
            let Taken::Impossible(why) = lease::take(store, KEY, None).await? else { panic!("{quirk}: was taken") };
            assert!(why.contains("If-None-Match") && why.contains("[ledger]"), "{why}");
            assert_eq!(keys(store, "").await?, Vec::<String>::new());
            if quirk == "refuses" {
                let error = store.put_if(KEY, b"x".to_vec(), Precondition::Absent).await.unwrap_err();
                assert_eq!(failure::kind_of(&error), Some(Kind::Configuration), "{error:#}");
            }
            Ok(())
        });
    }
}

#[test]
fn an_answer_that_is_lost_after_the_write_is_not_taken_for_a_refusal() {
    use crate::support::s3::{Fault, Rule};
    on_servers(async |store, server| {
        let lost = Rule { method: hyper::Method::PUT, contains: "lock", skip: 0, times: 1, fault: Fault::LostAnswer };
        server.break_with(lost.clone());
        let first = store.put_if("a/lock", b"1".to_vec(), Precondition::Absent).await?.context("we wrote it")?;
        server.break_with(lost);
        assert!(store.put_if("a/lock", b"2".to_vec(), Precondition::Unchanged(&first)).await?.is_some(), "we wrote it");
        Ok(())
    });
}

async fn held(store: &Store) -> Result<Lease> {
    match lease::take(store, KEY, None).await? {
        Taken::Held(lease) => Ok(lease),
        Taken::HeldByOther(who) => anyhow::bail!("held by {who}"),
        Taken::Impossible(why) => anyhow::bail!("impossible: {why}"),
    }
}

async fn other(store: &Store, seen: Option<&lease::Seen>) -> Result<String> {
    match lease::take(store, KEY, seen).await? {
        Taken::HeldByOther(who) => Ok(who),
        Taken::Held(_) => anyhow::bail!("was taken"),
        Taken::Impossible(why) => anyhow::bail!("impossible: {why}"),
    }
}

#[test]
fn of_two_that_ask_for_a_lease_one_has_it_until_it_lets_go() {
    on_all(async |store| {
        let ours = held(store).await?;
        ours.check()?;
        let who = other(store, None).await?;
        assert!(who.contains(&format!("process {} on", std::process::id())) && who.contains("since 20"), "{who}");
        // Unchanged for 15 minutes would be needed; it was a moment.
        let seen = lease::look(store, KEY).await?.context("it is held")?;
        other(store, Some(&seen)).await?;
        ours.release().await?;
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        assert!(lease::look(store, KEY).await?.is_none());
        held(store).await?.release().await?;
        Ok(())
    });
}

/// A lease as another process wrote it.
async fn write_lease(store: &Store, holder: &ProcessIdentity, more: Value) -> Result<()> {
    let mut content = json!({ "holder": holder, "nonce": "of another", "renewed": 3, "taken_at": "2026-11-28T01:00:00Z" });
    if let (Value::Object(content), Value::Object(more)) = (&mut content, more) {
        content.extend(more);
    }
    store.put(KEY, content.to_string().into_bytes()).await
}

fn elsewhere() -> ProcessIdentity {
    ProcessIdentity { host: "elsewhere".to_owned(), pid: 7, ..ProcessIdentity::default() }
}

#[test]
fn the_lease_of_a_process_that_was_killed_here_is_taken_over_at_once() {
    on_all(async |store| {
        let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
        let ticks = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        let ticks = ticks.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().to_owned();
        let holder = ProcessIdentity { pid: child.id(), start_ticks: ticks, ..ProcessIdentity::own() };
        write_lease(store, &holder, json!({})).await?;
        other(store, None).await?;
        child.kill()?;
        child.wait()?;
        held(store).await?.release().await
    });
}

#[test]
fn a_lease_that_did_not_change_for_15_minutes_is_taken_over() {
    on_all(async |store| {
        write_lease(store, &elsewhere(), json!({})).await?;
        let who = other(store, None).await?;
        assert!(who.contains("process 7 on elsewhere") && who.contains("2026-11-28 01:00"), "{who}");
        let mut seen = lease::look(store, KEY).await?.context("it is held")?;
        let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(15 * 60)) else { return Ok(()) };
        seen.at = long_ago + Duration::from_secs(60);
        other(store, Some(&seen)).await?;
        write_lease(store, &elsewhere(), json!({ "renewed": 4 })).await?;
        seen.at = long_ago;
        other(store, Some(&seen)).await.context("it was renewed meanwhile")?;
        seen = lease::look(store, KEY).await?.context("it is held")?;
        seen.at = long_ago;
        let Taken::Held(lease) = lease::take(store, KEY, Some(&seen)).await? else { panic!("not taken over") };
        lease.check()?;
        lease.release().await
    });
}

#[test]
fn a_lease_that_did_not_change_for_a_day_by_the_stores_clock_is_taken_over() {
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    let age = |file: &std::path::Path| {
        std::fs::File::options().write(true).open(file).and_then(|file| file.set_modified(yesterday)).unwrap();
    };
    on_s3(async |store, server| {
        write_lease(store, &elsewhere(), json!({})).await?;
        age(&server.file_of("some/prefix/app/nightly/prune.lease"));
        held(store).await?.release().await?;
        assert_eq!(keys(store, "").await?, Vec::<String>::new());
        Ok(())
    });
    let folder = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::Dir(Dir::new(folder.path()));
        write_lease(&store, &elsewhere(), json!({})).await.unwrap();
        age(&folder.path().join(KEY));
        held(&store).await.unwrap().release().await.unwrap();
        assert_eq!(keys(&store, "").await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn who_lost_a_lease_is_told_so_and_does_not_take_it_from_its_new_holder() {
    on_all(async |store| {
        let ours = held(store).await?;
        ours.renew().await;
        ours.check()?;
        write_lease(store, &elsewhere(), json!({})).await?;
        ours.check()?;
        ours.renew().await;
        let error = ours.check().unwrap_err();
        assert_eq!(failure::kind_of(&error), Some(Kind::Busy), "{error:#}");
        assert!(format!("{error:#}").contains("process 7 on elsewhere"), "{error:#}");
        ours.release().await?;
        assert!(other(store, None).await?.contains("elsewhere"));
        Ok(())
    });
}

#[test]
fn a_lease_that_may_not_be_deleted_is_free_all_the_same_once_it_was_let_go() {
    on_servers(async |store, server| {
        server.quirks().refuses_deletes.store(true, Relaxed);
        held(store).await?.release().await?;
        assert!(lease::look(store, KEY).await?.is_none(), "nobody holds it");
        held(store).await?.release().await?;
        server.quirks().refuses_deletes.store(false, Relaxed);
        held(store).await?.release().await?;
        Ok(())
    });
}
