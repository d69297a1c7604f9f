//! A directory as a store: file systems that are otherwise than a local disk, disks that are not mounted, files of others.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use pgtend::store::Store;
use pgtend::store::dir::Dir;
use tempfile::TempDir;

use crate::store::{content, on_all};
use crate::support::Scenario;

/// fsync of a folder answers what FSYNC_OF_FOLDERS says, as on a network share.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
int fsync(int fd) {
    struct stat status;
    char *answer = getenv("FSYNC_OF_FOLDERS");
    if (answer && fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) { errno = atoi(answer); return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

#[test]
fn a_share_that_cannot_sync_folders_is_a_store_and_a_disk_in_trouble_is_none() {
    let scenario = Scenario::empty().config("[stores.nas]\npath = \"nas\"\n");
    std::fs::write(scenario.path("shim.c"), SHIM).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]).current_dir(scenario.path("")).output();
    let compiled = compiled.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // EINVAL, ENOTSUP, EBADF; EIO, ENOSPC.
    for (errno, is_store) in [(22, true), (95, true), (9, true), (5, false), (28, false)] {
        let output = scenario
            .command(&["check", "--connect"])
            .env("LD_PRELOAD", scenario.path("shim.so"))
            .env("FSYNC_OF_FOLDERS", errno.to_string())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), is_store, "{errno}: {printed}");
        assert_eq!(printed.contains("wrote, read, listed and deleted"), is_store, "{errno}: {printed}");
    }
}

#[test]
fn a_store_whose_disk_is_not_mounted_is_neither_written_nor_read() {
    let scenario = Scenario::empty().config("[stores.disk]\npath = \"store\"\n");
    for folder in ["disk", "store"] {
        std::fs::create_dir(scenario.path(folder)).unwrap();
    }
    let output = scenario.in_mount_namespace(
        "export HOME=$PWD; mount --bind disk store && $pgtend check --connect && umount store &&
         ! $pgtend check --connect >refused && rmdir store && ! $pgtend check --connect >>refused && cat refused; ls -A store;
         mkdir -p store; mount --bind disk store && $pgtend check --connect >again && echo mounted again",
    );
    assert!(output.stdout.contains("mounted again"), "{output:?}");
    assert_eq!(output.stdout.matches("check whether its disk is mounted").count(), 2, "{output:?}");
    assert!(output.stdout.contains("create the file .pgtend-store.json in it"), "{output:?}");
    assert_eq!(scenario.files("store"), Vec::<String>::new());
}

#[test]
fn what_was_written_under_a_mount_point_is_not_taken_for_the_disk() {
    let scenario = Scenario::empty().config("[stores.disk]\npath = \"store\"\n");
    std::fs::create_dir(scenario.path("store")).unwrap();
    let output = scenario.in_mount_namespace(
        "export HOME=$PWD; $pgtend check --connect && mount -t tmpfs none store && touch store/.pgtend-store.json &&
         $pgtend check --connect && umount store && ! $pgtend check --connect && rm .local/state/pgtend/stores/*.json &&
         $pgtend check --connect >again && echo moved for good",
    );
    assert!(output.stdout.contains("moved for good"), "{output:?}");
    assert!(output.stdout.contains("was a mount point and no longer is one"), "{output:?}");
}

#[test]
fn a_host_that_cannot_remember_stores_has_them_all_the_same() {
    let scenario = Scenario::empty().config("[stores.disk]\npath = \"store\"\n");
    for state in ["/dev/null/state", "/proc/nothing"] {
        let output = scenario.command(&["check", "--connect"]).env("STATE_DIRECTORY", state).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn two_that_write_one_object_at_a_time_each_write_a_whole_one() {
    on_all(async |store| {
        let (one, two) = (content(9 << 20), vec![7; 9 << 20]);
        let mut first = store.upload("a/object", 0).await?;
        first.write(one[..5 << 20].to_vec().into()).await?;
        let mut second = store.upload("a/object", 0).await?;
        second.write(two.clone().into()).await?;
        first.write(one[5 << 20..].to_vec().into()).await?;
        first.finish().await?;
        assert!(store.get("a/object").await? == Some(one.clone()));
        // Azure keeps one upload of a blob at a time: the later one is told so, and the object stays whole.
        match second.finish().await {
            Ok(()) => assert!(store.get("a/object").await? == Some(two.clone())),
            Err(error) => {
                assert!(format!("{error:#}").contains("another upload of the same blob was completed"), "{error:#}");
                assert!(store.location("").starts_with("http"), "only Azure: {error:#}");
                assert!(store.get("a/object").await? == Some(one.clone()));
                second.abort().await;
            }
        }
        Ok(())
    });
}

#[test]
fn files_of_a_store_are_for_their_owner_only() {
    let folder = TempDir::new().unwrap();
    let store = Store::Dir(Dir::new(&folder.path().join("new/store")));
    tokio::runtime::Runtime::new().unwrap().block_on(store.put("a/object", b"x".to_vec())).unwrap();
    for (file, mode) in
        [("new/store", 0o700), ("new/store/a", 0o700), ("new/store/a/object", 0o600), ("new/store/.pgtend-store.json", 0o600)]
    {
        let metadata = std::fs::metadata(folder.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn a_link_that_a_stranger_laid_is_neither_written_through_nor_read() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (root, victim) = (folder.path().join("store"), elsewhere.path().join("victim"));
    std::fs::create_dir_all(root.join("a")).unwrap();
    std::fs::write(&victim, "secret").unwrap();
    let link = |name: &str, to: &std::path::Path| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    let store = Store::Dir(Dir::new(&root));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        link("a/object", &victim);
        let read = format!("{:#}", store.get("a/object").await.unwrap_err());
        assert!(read.contains("is a symbolic link"), "{read}");
        assert!(store.exists_for_certain("a/object").await.is_err(), "neither a yes nor a no");
        assert!(store.list_readable("").await.unwrap().objects.is_empty());
        // It is replaced, and what it led to is left alone.
        store.put("a/object", b"ours".to_vec()).await.unwrap();
        assert_eq!(store.get("a/object").await.unwrap().unwrap(), b"ours");
        std::fs::remove_file(root.join("a/object")).unwrap();

        link("a/object", &elsewhere.path().join("not there"));
        let new = store.put_if("a/object", b"ours".to_vec(), pgtend::store::Precondition::Absent).await;
        assert!(new.is_err(), "the name is taken, by no object");
        store.delete("a/object").await.unwrap();

        link("b", elsewhere.path());
        for done in
            [store.put("b/new", b"x".to_vec()).await, store.put("b/victim", b"x".to_vec()).await, store.delete("b/victim").await]
        {
            let said = format!("{:#}", done.unwrap_err());
            assert!(said.contains("b is a symbolic link") && said.contains("mount --bind"), "{said}");
        }
        assert!(store.get("b/victim").await.is_err());
        let listed = store.list_readable("").await.unwrap();
        assert_eq!((listed.objects.len(), listed.unread[0].key.as_str(), listed.unread[0].hides_folder), (0, "b", true));
        assert!(format!("{:#}", store.list("").await.unwrap_err()).contains("b: it is a symbolic link"));
    });
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn a_pipe_in_the_place_of_an_object_stops_nobody() {
    let folder = TempDir::new().unwrap();
    let made = Command::new("mkfifo").arg(folder.path().join("series.json")).status().unwrap();
    assert!(made.success());
    let store = Store::Dir(Dir::new(folder.path()));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let read = format!("{:#}", store.get("series.json").await.unwrap_err());
        assert!(read.contains("is not a regular file"), "{read}");
        assert!(store.list("").await.unwrap().is_empty());
    });
}

#[test]
fn an_object_that_is_larger_than_it_may_be_is_not_read_to_its_end() {
    on_all(async |store| {
        store.put("a/marker.json", vec![b' '; 5 << 20]).await?;
        let said = format!("{:#}", store.get_at_most("a/marker.json", 4 << 20).await.unwrap_err());
        assert!(said.contains("a/marker.json is larger than 4"), "{said}");
        assert_eq!(store.get_at_most("a/marker.json", 5 << 20).await?.map(|content| content.len()), Some(5 << 20));
        Ok(())
    });
}
