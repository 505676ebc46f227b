//! A ClickHouse that does not answer, or cannot take more.

use std::process::Command;

use crate::{
    OFTEN, post,
    support::{Place, get, wait_for, write_as},
    text, write,
};

#[test]
fn a_clickhouse_that_is_away_is_said_with_since_when_and_is_waited_for() {
    // One weir whose ClickHouse the other one uses.
    let server = Place::new("");
    let url = format!("http://127.0.0.1:{}", server.clickhouse);
    let dir = server.dir.path().join("data/clickhouse");
    std::fs::create_dir_all(&dir).unwrap();
    let password = "of-this-test";
    std::fs::write(dir.join("writer-password"), password).unwrap();
    let place = Place::new(OFTEN);
    let set = [
        format!("clickhouse.url={url}"),
        format!("clickhouse.password={password}"),
        "clickhouse.database=other".to_owned(),
    ];
    let args: Vec<&str> = ["serve"].into_iter().chain(set.iter().flat_map(|set| ["--set", set])).collect();
    let serve = place.start_part(&args);
    wait_for("the collector", || {
        get(&format!("http://{}/readyz", place.collector)).filter(|(status, _)| *status == 200)
    });
    let waits = |what: &str| {
        wait_for(what, || {
            let waiting = place.status()?["runs"][0]["progress"]["waiting"].clone();
            (waiting["reason"].as_str()?.contains("clickhouse") && waiting["since_ms"].as_i64()? > 0).then_some(())
        });
        let status = place.weir(&["status"]);
        assert!(
            status.status.success() && text(&status).contains("\n  WAITING for "),
            "nobody is needed: {}",
            text(&status)
        );
    };
    waits("the status of a run that cannot begin");
    let mut sent = post(&place, "/a", 2);
    let counted = |sent: u64| {
        place.wait_complete();
        let sql = "SELECT sum(page_views) FROM other.stats_v1 WHERE dimension = 'site'";
        assert_eq!(write_as(server.clickhouse, password, sql).trim(), sent.to_string());
        let status = place.status().unwrap();
        assert!(status["runs"][0]["progress"]["waiting"].is_null(), "{status}");
    };

    let clickhouse = server.start();
    counted(sent);
    assert_eq!(clickhouse.stop(), Some(0));
    sent += post(&place, "/b", 1);
    waits("the status of a run that cannot go on");
    let clickhouse = server.start();
    counted(sent);
    assert_eq!(serve.stop(), Some(0));
    assert_eq!(clickhouse.stop(), Some(0));
}

/// A small file system of its own on `path`; `None` for who may not mount one.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: std::path::PathBuf, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Disk(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn batches_wait_while_clickhouses_disk_is_full_and_none_is_lost_or_doubled() {
    let place = Place::new(OFTEN);
    let Some(disk) = Disk::mount(place.dir.path().join("data/clickhouse"), "256m") else {
        eprintln!("SKIPPED: no file system can be mounted here");
        return;
    };
    let serve = place.start();
    let mut sent = post(&place, "/a", 3);
    place.wait_complete();
    let filler = disk.0.join("filler");
    let filled = Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output();
    assert!(!filled.unwrap().status.success(), "it ends when the disk is full");
    sent += post(&place, "/b", 2);
    wait_for("the status of a run that cannot write", || {
        let waiting = place.status()?["runs"][0]["progress"]["waiting"].clone();
        waiting["reason"].as_str()?.to_lowercase().contains("space").then_some(())
    });
    sent += post(&place, "/b", 1);
    let status = place.weir(&["status"]);
    assert!(text(&status).contains("\n  WAITING for "), "{}", text(&status));
    std::fs::remove_file(&filler).unwrap();
    place.wait_complete();
    assert_eq!(place.page_views(), Some(sent));
    let b = "SELECT sum(page_views) FROM weir.stats_v1 WHERE dimension = 'page' AND value = '/b'";
    assert_eq!(write(&place, b).trim(), "3");
    assert_eq!(serve.stop(), Some(0));
}
