//! `weir demo`: the main job on sample data, in a folder that goes when it ends.
//!
//! ```text
//!  weir serve (a process of its own) ◀── weir import examples/blog-access.log
//!            ▲                       ◀── weir generate, over HTTP
//!            └── ClickHouse: what was counted, compared with what importer and generator say they sent
//! ```

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Ends by itself when everything is counted
    #[arg(long)]
    once: bool,
    /// The last line is one JSON object
    #[arg(long)]
    json: bool,
    /// Over this Kafka broker instead of the embedded log
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// The access log to import
    #[arg(long, default_value = "examples/blog-access.log", value_name = "FILE")]
    access_log: PathBuf,
    /// Generated events a second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long events are generated
    #[arg(long = "for", default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Where everything is kept; without it a folder that goes when the demo ends
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// How long the numbers may take to be complete after the last event: a window, its lateness, and a slow machine.
const COMPLETE_WAIT: Duration = Duration::from_secs(180);

/// The site that the access log is imported as.
const BLOG: &str = "blog.example";
/// The host that the sample log's blog had: visits from its own pages are no entries.
const BLOG_HOST: &str = "semicomplete.com";

/// The last line of `weir demo --once --json`.
#[derive(Debug, Clone, Default, Serialize)]
struct Outcome {
    /// Lines of the access log that became events.
    imported: u64,
    /// Events that the generator made.
    generated: u64,
    /// Events that were acknowledged to the generator.
    accepted: u64,
    /// Events that were not, by reason.
    rejected: BTreeMap<String, u64>,
    import_page_views: u64,
    generator_page_views: u64,
    page_views_in_clickhouse: u64,
    visitors: u64,
    windows: u64,
    late: u64,
    seconds: f64,
}

impl Outcome {
    /// What does not add up, one sentence each.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let sent = self.import_page_views + self.generator_page_views;
        if self.page_views_in_clickhouse != sent {
            faults.push(format!("ClickHouse holds {} page views, {sent} were sent", self.page_views_in_clickhouse));
        }
        let answered = self.accepted + self.rejected.values().sum::<u64>();
        if answered != self.generated {
            faults.push(format!("{answered} of {} generated events were answered", self.generated));
        }
        if sent == 0 {
            faults.push("nothing was sent".to_owned());
        }
        faults
    }
}

pub(crate) async fn main(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    if !args.access_log.is_file() {
        bail!(
            "there is no access log {} (run it where weir was cloned, or give --access-log)",
            args.access_log.display()
        );
    }
    let (dir, _temporary) = match &args.dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let temporary = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let place = Place::set_up(&dir, args.kafka.as_deref())?;
    println!("starting weir in {} …", dir.display());
    let mut serve = Serve::start(&place).await?;

    println!(
        "importing {} and generating {} events a second for {} beside it …",
        args.access_log.display(),
        args.rate,
        humantime::format_duration(args.duration)
    );
    let (rejects, access_log) = (dir.join("import.rejects"), args.access_log.display().to_string());
    let rejects = rejects.display().to_string();
    let importing = place.weir(&["import", "--json", "--rejects", &rejects, "--site", BLOG, &access_log])?;
    let (url, rate) = (place.collector_url(), args.rate.to_string());
    let duration = format!("{}ms", args.duration.as_millis());
    let traffic = ["--to", &url, "--token", &place.token, "--rate", &rate, "--for", &duration];
    let generating = place.weir(&[&["generate", "--json"], traffic.as_slice()].concat())?;
    let (import, generate) = tokio::try_join!(importing, generating)?;

    let mut outcome = Outcome {
        imported: number(&import, "events")?,
        import_page_views: number(&import, "page_views")?,
        generated: number(&generate, "generated")?,
        accepted: number(&generate, "accepted")?,
        generator_page_views: number(&generate, "page_views")?,
        rejected: serde_json::from_value(generate["rejected"].clone()).context("generate said no `rejected`")?,
        ..Outcome::default()
    };
    let sent_ms = jiff::Timestamp::now().as_millisecond();
    println!("the window of the last event closes in about a minute; waiting for it …");
    let snapshot = complete(&place, &mut serve, sent_ms).await?;
    let query = place.analyst();
    let total = query.numbers(
        "SELECT sum(page_views), uniqCombined64Merge(visitors), uniqExact(emitted_in) FROM stats WHERE dimension = 'site'",
    );
    let total = total.await?;
    (outcome.page_views_in_clickhouse, outcome.visitors, outcome.windows) = (total[0], total[1], total[2]);
    outcome.late = snapshot.runs.iter().filter_map(|run| run.progress.as_ref()).map(|run| run.events_late).sum();
    outcome.seconds = begin.elapsed().as_secs_f64();

    println!();
    for (title, sql) in EXAMPLES {
        println!("{title}\n\n{}", query.table(sql).await?);
    }
    println!("{}", place.what_next());
    let faults = outcome.faults();
    for fault in &faults {
        println!("DOES NOT ADD UP: {fault}");
    }
    if faults.is_empty() {
        println!(
            "it adds up: {} page views imported + {} generated = {} in ClickHouse",
            outcome.import_page_views, outcome.generator_page_views, outcome.page_views_in_clickhouse
        );
    }
    if !args.once {
        println!("Ctrl-C ends it.");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = serve.ended() => bail!("weir serve has ended by itself"),
        }
    }
    serve.stop()?;
    if args.json {
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an analyst would type first; the README shows the same.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "Page views and visitors by site",
        "SELECT site, sum(page_views) AS page_views, uniqCombined64Merge(visitors) AS visitors
           FROM stats WHERE dimension = 'site' GROUP BY site ORDER BY page_views DESC LIMIT 8",
    ),
    (
        "Top pages of the imported blog",
        "SELECT page, sum(page_views) AS page_views, uniqCombined64Merge(visitors) AS visitors
           FROM pages WHERE site = 'blog.example' GROUP BY page ORDER BY page_views DESC, page LIMIT 8",
    ),
    (
        "Where its readers came from",
        "SELECT source, sum(page_views) AS page_views FROM sources
           WHERE site = 'blog.example' GROUP BY source ORDER BY page_views DESC, source LIMIT 8",
    ),
    (
        "And from which countries",
        "SELECT country, sum(page_views) AS page_views, uniqCombined64Merge(visitors) AS visitors
           FROM countries WHERE site = 'blog.example' GROUP BY country ORDER BY page_views DESC, country LIMIT 8",
    ),
];

fn number(json: &serde_json::Value, key: &str) -> anyhow::Result<u64> {
    json[key].as_u64().with_context(|| format!("`{key}` is missing in {json}"))
}

/// Waits until every import is done and live is complete through `sent_ms`.
async fn complete(place: &Place, serve: &mut Serve, sent_ms: i64) -> anyhow::Result<weir_console::Snapshot> {
    let begin = Instant::now();
    loop {
        let url = format!("http://{}/status.json", place.console);
        let view: weir_console::View = reqwest::get(&url).await?.error_for_status()?.json().await?;
        let snapshot = &view.snapshot;
        let live = snapshot.runs.iter().find(|run| run.run == "live").and_then(|run| run.progress.as_ref());
        let imports = !snapshot.imports.is_empty()
            && snapshot.imports.iter().all(|import| import.state == weir_console::ImportState::Done);
        if imports && live.is_some_and(|live| live.complete_through_ms.is_some_and(|through| through > sent_ms)) {
            return Ok(view.snapshot);
        }
        if let Some(reason) = snapshot.runs.iter().find_map(|run| run.progress.as_ref()?.stopped.clone()) {
            bail!("a run has stopped: {reason}");
        }
        if begin.elapsed() > COMPLETE_WAIT {
            bail!("not complete after {} s:\n{}", COMPLETE_WAIT.as_secs(), weir_console::render(&view));
        }
        serve.must_live()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Where the demo's weir keeps its things and listens.
struct Place {
    config: PathBuf,
    collector: String,
    console: String,
    clickhouse: String,
    token: String,
}

impl Place {
    fn set_up(dir: &Path, kafka: Option<&str>) -> anyhow::Result<Place> {
        let [collector, console, clickhouse] = [8080, 8081, 8123].map(free_port);
        let (collector, console, clickhouse) = (collector?, console?, clickhouse?);
        let token = uuid::Uuid::new_v4().simple().to_string();
        let log = match kafka {
            Some(bootstrap) => format!("[log]\nkind = \"kafka\"\n\n[kafka]\nbootstrap = \"{bootstrap}\"\n"),
            None => "[log]\nkind = \"embedded\"\n".to_owned(),
        };
        let mut text = format!(
            "data_dir = \"{}\"\n\n{log}\n[listen]\ncollector = \"127.0.0.1:{collector}\"\nconsole = \"127.0.0.1:{console}\"\n\n[clickhouse]\nhttp_port = {clickhouse}\n",
            dir.join("data").display()
        );
        let hash = token_hash(&token);
        let sites = weir_generate::sites().map(|site| (site.clone(), site));
        for (site, host) in sites.chain([(BLOG.to_owned(), BLOG_HOST.to_owned())]) {
            text.push_str(&format!(
                "\n[[ingest.sites]]\nname = \"{site}\"\nhosts = [\"{host}\"]\nwrite_token_sha256 = \"{hash}\"\n"
            ));
        }
        let config = dir.join("weir.toml");
        std::fs::write(&config, text).with_context(|| format!("{} cannot be written", config.display()))?;
        Ok(Place {
            config,
            collector: format!("127.0.0.1:{collector}"),
            console: format!("127.0.0.1:{console}"),
            clickhouse: format!("127.0.0.1:{clickhouse}"),
            token,
        })
    }

    fn collector_url(&self) -> String {
        format!("http://{}", self.collector)
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--config").arg(&self.config);
        Ok(command)
    }

    /// Starts a weir command that prints a JSON object as its last line; resolves to that when it has ended.
    fn weir(&self, args: &[&str]) -> anyhow::Result<impl Future<Output = anyhow::Result<serde_json::Value>> + use<>> {
        let name = args[0].to_owned();
        let mut command = tokio::process::Command::from(self.command()?);
        let child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        Ok(async move {
            let output = child.wait_with_output().await?;
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().last().unwrap_or_default();
            for line in text.lines().filter(|line| *line != last) {
                println!("{line}");
            }
            if !output.status.success() {
                bail!("weir {name} ended with {}", output.status);
            }
            serde_json::from_str(last).with_context(|| format!("weir {name} said {last:?}"))
        })
    }

    fn analyst(&self) -> Analyst {
        Analyst { url: format!("http://{}/", self.clickhouse) }
    }

    fn what_next(&self) -> String {
        format!(
            "collector   http://{0}            (POST /v1/events, GET /pixel.gif, /weir.js)\n\
             status      weir --config {3} status     or http://{1}/status.json\n\
             ClickHouse  http://{2}/play?user=analyst  (type SQL in the browser)\n\
             ask more    curl 'http://{2}/?user=analyst&database=weir' --data 'SELECT * FROM pages LIMIT 5 FORMAT Pretty'\n",
            self.collector,
            self.console,
            self.clickhouse,
            self.config.display(),
        )
    }
}

/// A token as the configuration has it.
fn token_hash(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `wanted` if it is free, else any that is.
fn free_port(wanted: u16) -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.port())
}

/// ClickHouse as an analyst sees it.
struct Analyst {
    url: String,
}

impl Analyst {
    async fn text(&self, sql: &str, format: &str) -> anyhow::Result<String> {
        let url = format!("{}?user=analyst&database=weir&default_format={format}", self.url);
        let answer = reqwest::Client::new().post(url).body(sql.to_owned()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("ClickHouse: {text}");
        }
        Ok(text)
    }

    async fn numbers(&self, sql: &str) -> anyhow::Result<Vec<u64>> {
        let text = self.text(sql, "TabSeparated").await?;
        text.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    }

    async fn table(&self, sql: &str) -> anyhow::Result<String> {
        self.text(sql, "PrettyCompactNoEscapes").await
    }
}

/// The demo's `weir serve`; ended when dropped.
struct Serve {
    child: Child,
}

impl Serve {
    async fn start(place: &Place) -> anyhow::Result<Serve> {
        let child =
            place.command()?.arg("serve").env("RUST_LOG", "warn").spawn().context("weir serve cannot be started")?;
        let mut serve = Serve { child };
        let begin = Instant::now();
        let ready = format!("{}/readyz", place.collector_url());
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success())
            || reqwest::get(format!("http://{}/healthz", place.console)).await.is_err()
        {
            serve.must_live()?;
            if begin.elapsed() > Duration::from_secs(60) {
                bail!("weir serve is not ready after 60 s");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(serve)
    }

    fn must_live(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("weir serve has ended with {status}"),
            None => Ok(()),
        }
    }

    async fn ended(&mut self) {
        while self.must_live().is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// SIGTERM, and waits: it finishes what it has accepted.
    fn stop(&mut self) -> anyhow::Result<()> {
        // SAFETY: kill has no memory to get wrong; the child has not been waited for, so the id is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait()?;
        if !status.success() {
            bail!("weir serve ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_do_not_agree_are_said() {
        let even = Outcome {
            generated: 5,
            accepted: 4,
            rejected: BTreeMap::from([("malformed".to_owned(), 1)]),
            import_page_views: 3,
            generator_page_views: 4,
            page_views_in_clickhouse: 7,
            ..Outcome::default()
        };
        assert!(even.faults().is_empty());
        assert_eq!(Outcome { page_views_in_clickhouse: 8, ..even.clone() }.faults().len(), 1);
        assert_eq!(Outcome { accepted: 5, ..even.clone() }.faults().len(), 1);
        assert!(!Outcome::default().faults().is_empty(), "nothing sent, nothing shown");
    }
}
