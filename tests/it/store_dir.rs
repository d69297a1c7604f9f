//! A directory as a store: file systems that are otherwise than a local disk, disks that are not mounted, files of others.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use pgtend::store::Store;
use pgtend::store::dir::Dir;
use tempfile::TempDir;

use crate::store::{content, on_both};
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
    assert_eq!(output.stdout.matches("is its disk mounted?").count(), 2, "{output:?}");
    assert!(output.stdout.contains("make the file .pgtend-store.json in it"), "{output:?}");
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
    assert!(output.stdout.contains("was a mount point and is none now"), "{output:?}");
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
    on_both(async |store| {
        let (one, two) = (content(9 << 20), vec![7; 9 << 20]);
        let mut first = store.upload("a/object", 0).await?;
        first.write(one[..5 << 20].to_vec().into()).await?;
        let mut second = store.upload("a/object", 0).await?;
        second.write(two.clone().into()).await?;
        first.write(one[5 << 20..].to_vec().into()).await?;
        first.finish().await?;
        assert!(store.get("a/object").await? == Some(one.clone()));
        second.finish().await?;
        assert!(store.get("a/object").await? == Some(two.clone()));
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
