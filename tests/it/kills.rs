//! The demo's traffic, an import and a generator at once, while everything that weir is gets killed.

use std::{
    net::TcpListener,
    process::{Child, Stdio},
};

use crate::support::{Place, Serve, TOKEN, repository, signal, token_hash, wait_for};
use serde_json::Value;

#[test]
fn the_demos_sums_agree_over_kills_of_serve_and_each_of_its_children() {
    let place = Place::new(&sites());
    let mut serve = place.start();
    let log = repository().join("examples/blog-access.log").display().to_string();
    let rejects = place.dir.path().join("rejects").display().to_string();
    let url = format!("http://{}", place.collector);
    let generate = ["generate", "--json", "--to", &url, "--token", TOKEN, "--rate", "300", "--for", "10m"];
    let generate = spawn(&place, &generate);
    let import = spawn(&place, &["import", "--json", "--rejects", &rejects, "--site", "one.example", &log]);

    // The live run, and ClickHouse, while events come in and the import is being written.
    kill(&serve, "run", 1);
    kill(&serve, "clickhouse", 1);
    let import = finish(import);
    // The import's run as well, as soon as there is one. It may just have been done: then only live comes again.
    kill(&serve, "run", 2);
    kill(&serve, "clickhouse", 1);
    // And serve itself, with all that it started. It comes back after the generator has met somebody who hangs up.
    serve.kill();
    drop(TcpListener::bind(&place.collector).unwrap().accept().unwrap());
    serve = place.start();
    kill(&serve, "run", 1);
    signal(generate.id() as i32, libc::SIGINT);
    let generated = finish(generate);

    place.wait_complete();
    wait_for("the import to be counted", || (place.status()?["imports"][0]["state"].as_str()? == "done").then_some(()));
    let number = |from: &Value, name: &str| from[name].as_u64().unwrap_or_else(|| panic!("{name} of {from}"));
    assert_eq!(number(&generated, "unanswered"), 0, "{generated}");
    assert!(number(&generated, "retries") > 0, "no kill was felt: {generated}");
    let (imported, sent) = (number(&import, "page_views"), number(&generated, "page_views"));
    assert!(imported > 0 && sent > 0);
    assert_eq!(place.page_views(), Some(imported + sent), "{imported} imported, {sent} acknowledged");
    assert_eq!(serve.stop(), Some(0));
}

/// The sites that the generator sends for.
fn sites() -> String {
    let hash = token_hash();
    let site = |name: String| {
        format!("[[ingest.sites]]\nname = \"{name}\"\nhosts = [\"{name}\"]\nwrite_token_sha256 = \"{hash}\"\n")
    };
    weir_generate::sites().map(site).collect()
}

fn spawn(place: &Place, args: &[&str]) -> Child {
    place.command(args).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for a command that must succeed, and reads its last line as JSON.
fn finish(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{text}"))
}

/// Kills all children of a kind, when there are so many, and waits until one that is none of them is in their place.
fn kill(serve: &Serve, kind: &str, least: usize) {
    let killed = wait_for(kind, || Some(serve.children(kind)).filter(|pids| pids.len() >= least));
    killed.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
    wait_for("others in their place", || {
        let now = serve.children(kind);
        (!now.is_empty() && now.iter().all(|pid| !killed.contains(pid))).then_some(())
    });
}
