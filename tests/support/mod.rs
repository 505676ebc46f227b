//! A weir of its own for a test: real processes, real ClickHouse, real Kafka where asked, all in one temporary folder.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
pub(crate) use weir_drills::process::{children_of, command_line, is_alive, signal};

pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");
pub(crate) const TOKEN: &str = "a-write-token-of-a-test";

/// A deadline for things that take milliseconds on a quiet machine; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Asks until there is an answer; panics, saying what for, when there is none in time.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder, configuration and addresses of one weir.
pub(crate) struct Place {
    pub dir: tempfile::TempDir,
    pub collector: String,
    pub console: String,
    pub clickhouse: u16,
}

impl Place {
    /// Sites `one.example` and `two.example`; windows of a second, so that a test need not wait a minute.
    pub(crate) fn new(more: &str) -> Place {
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
            collector: format!("127.0.0.1:{}", free_port()),
            console: format!("127.0.0.1:{}", free_port()),
            clickhouse: free_port(),
        };
        std::fs::write(place.dir.path().join("quick.toml"), version(1, 1, 1, 1)).unwrap();
        let dir = place.dir.path().display();
        let hash = token_hash();
        let config = format!(
            "data_dir = \"{dir}/data\"\n\
             [schema]\nfile = \"{dir}/quick.toml\"\n\
             [listen]\ncollector = \"{}\"\nconsole = \"{}\"\n\
             [clickhouse]\nhttp_port = {}\n\
             [[ingest.sites]]\nname = \"one.example\"\nhosts = [\"one.example\"]\nwrite_token_sha256 = \"{hash}\"\n\
             [[ingest.sites]]\nname = \"two.example\"\nhosts = [\"two.example\"]\nwrite_token_sha256 = \"{hash}\"\n\
             {more}\n",
            place.collector, place.console, place.clickhouse
        );
        std::fs::write(place.config(), config).unwrap();
        place
    }

    /// Other windows than those of a second; before it is started.
    pub(crate) fn set_windows(&self, width_s: u64, lateness_s: u64) {
        let path = self.dir.path().join("quick.toml");
        let quick = std::fs::read_to_string(&path).unwrap();
        let quick = quick.replace("width = \"1s\"", &format!("width = \"{width_s}s\""));
        let quick = quick.replace("lateness = \"1s\"", &format!("lateness = \"{lateness_s}s\""));
        std::fs::write(path, quick).unwrap();
    }

    /// The file of a version to convert to: one that the binary carries, with another number, width and lateness.
    pub(crate) fn version(&self, carried: u32, number: u32, width_s: u64, lateness_s: u64) -> String {
        let path = self.dir.path().join(format!("v{number}.toml"));
        std::fs::write(&path, version(carried, number, width_s, lateness_s)).unwrap();
        path.display().to_string()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("weir.toml")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(WEIR);
        command.arg("--config").arg(self.config()).args(args).env("RUST_LOG", "warn").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and gives what it printed.
    pub(crate) fn weir(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed, and reads its last line as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.weir(args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "weir {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("weir {args:?}: {text}"))
    }

    pub(crate) fn start(&self) -> Serve {
        let serve = self.start_part(&["serve"]);
        let url = format!("http://{}/readyz", self.collector);
        wait_for("the collector", || get(&url).filter(|(status, _)| *status == 200));
        serve
    }

    /// A part of weir in a process of its own.
    pub(crate) fn start_part(&self, args: &[&str]) -> Serve {
        Serve { child: self.command(args).spawn().unwrap() }
    }

    /// One POST of events; the answer's status and body. An error is a connection that gave no answer.
    pub(crate) fn post(&self, body: &str) -> Result<(u16, Value), String> {
        let answer = http("POST", &format!("http://{}/v1/events", self.collector), Some(body), Some(TOKEN))?;
        Ok((answer.0, serde_json::from_str(&answer.1).unwrap_or(Value::Null)))
    }

    /// So many hits of a page of `one.example`, which must be acknowledged; their number.
    pub(crate) fn hits(&self, page: &str, hits: u64) -> u64 {
        let hit = serde_json::json!({
            "site": "one.example", "url": format!("https://one.example{page}"), "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        });
        let body = Value::Array((0..hits).map(|_| hit.clone()).collect()).to_string();
        assert_eq!(self.post(&body).unwrap().0, 202, "the collector goes on");
        hits
    }

    /// What an analyst sees: rows of tab-separated values; `None` while ClickHouse is away.
    pub(crate) fn query(&self, sql: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:{}/?user=analyst&database=weir", self.clickhouse);
        match http("POST", &url, Some(sql), None) {
            Ok((200, text)) => Some(text),
            Ok((status, text)) => {
                assert!(!text.contains("SYNTAX_ERROR"), "{status} {text}");
                None
            }
            Err(_) => None,
        }
    }

    pub(crate) fn page_views(&self) -> Option<u64> {
        self.query("SELECT sum(page_views) FROM stats WHERE dimension = 'site'")?.trim().parse().ok()
    }

    /// Page views of live traffic.
    pub(crate) fn live_views(&self) -> Option<u64> {
        let sql = "SELECT sum(page_views) FROM stats WHERE dimension = 'site' AND site = 'one.example'";
        self.query(sql)?.trim().parse().ok()
    }

    /// Imports an access log of a line, until it is counted.
    pub(crate) fn import_line(&self) {
        let file = self.dir.path().join("access.log");
        let line = "203.0.113.7 - - [01/Mar/2020:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"Mozilla/5.0 Firefox/128.0\"\n";
        std::fs::write(&file, line).unwrap();
        went_well(self, &["import", "--site", "two.example", &file.display().to_string()]);
        wait_for("the import to be counted", || {
            (self.status()?["imports"][0]["state"].as_str()? == "done").then_some(())
        });
    }

    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_str(&get(&format!("http://{}/status.json", self.console))?.1).ok()
    }

    /// Waits until live is complete through now, so that all that was acknowledged before is in the table.
    pub(crate) fn wait_complete(&self) {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        wait_for("live to be complete", || {
            let status = self.status()?;
            let through = status["runs"][0]["progress"]["complete_through_ms"].as_i64()?;
            (through > now_ms).then_some(())
        });
    }
}

/// The text of a version that the binary carries, with another number, width and lateness.
fn version(carried: u32, number: u32, width_s: u64, lateness_s: u64) -> String {
    let path = repository().join(format!("schemas/versions/v{carried}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| match line.split('=').next().map(str::trim) {
        Some("width") => format!("width = \"{width_s}s\"\n"),
        Some("lateness") => format!("lateness = \"{lateness_s}s\"\n"),
        Some("number") => format!("number = {number}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

pub(crate) fn token_hash() -> String {
    use sha2::Digest;
    sha2::Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `weir serve`, or a part of it; killed when dropped.
pub(crate) struct Serve {
    pub child: Child,
}

impl Serve {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Process ids of the children, by the subcommand that they were started with.
    pub(crate) fn children(&self, subcommand: &str) -> Vec<i32> {
        children_of(self.pid())
            .into_iter()
            .filter(|pid| command_line(*pid).get(1).is_some_and(|argument| argument == subcommand))
            .collect()
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal(self.pid(), libc::SIGTERM);
        self.child.wait().unwrap().code()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn get(url: &str) -> Option<(u16, String)> {
    http("GET", url, None, None).ok()
}

/// A request by curl-like means, without a runtime in the test.
pub(crate) fn http(method: &str, url: &str, body: Option<&str>, token: Option<&str>) -> Result<(u16, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().map_err(|e| e.to_string())?;
        let mut request = client.request(method.parse().expect("a method"), url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    })
}

/// So many hits of a page, acknowledged; their number.
pub(crate) fn post(place: &Place, page: &str, hits: u64) -> u64 {
    let hit = serde_json::json!({
        "site": "one.example", "url": format!("https://one.example{page}"), "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    });
    let body = Value::Array((0..hits).map(|_| hit.clone()).collect()).to_string();
    assert_eq!(place.post(&body).unwrap().0, 202, "the collector goes on, whatever has stopped");
    hits
}

/// What a command printed that must end well.
pub(crate) fn went_well(place: &Place, args: &[&str]) -> String {
    let output = place.weir(args);
    assert!(output.status.success(), "weir {args:?}: {}", text(&output));
    text(&output)
}

/// What a command printed that must be refused, by more than the shape of its arguments.
pub(crate) fn refused(place: &Place, args: &[&str]) -> String {
    let output = place.weir(args);
    assert_eq!(output.status.code(), Some(1), "weir {args:?}: {}", text(&output));
    text(&output)
}

/// What a command printed, either way.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Pauses a generation's gap run before there is a gap, which no verb does: it fills none until it is resumed.
pub(crate) fn hold_gap(place: &Place, run: &str) {
    use weir_log::{Clock as _, ControlLog, EmbeddedLog, SystemClock};
    use weir_schemas::control::{Action, ControlRecord};
    let log = EmbeddedLog::open(place.dir.path().join("data/log"), std::sync::Arc::new(SystemClock)).unwrap();
    let (run, at_ms) = (run.to_owned(), SystemClock.now_ms());
    let action = Action::Pause { run, id: at_ms, until_ms: None, allow_loss: false };
    let record = ControlRecord { at_ms, who: "test".into(), reason: "a test".into(), action };
    futures::executor::block_on(ControlLog::open(std::sync::Arc::new(log)).unwrap().append(&record)).unwrap();
}

/// A statement by the writer on the ClickHouse of `place`.
pub(crate) fn write(place: &Place, sql: &str) -> String {
    write_as(place.clickhouse, &password(&place.dir.path().join("data/clickhouse")), sql)
}

pub(crate) fn password(dir: &Path) -> String {
    weir_sink::server::writer_password(dir).unwrap()
}

pub(crate) fn write_as(port: u16, password: &str, sql: &str) -> String {
    wait_for("clickhouse", || {
        let url = format!("http://127.0.0.1:{port}/?user=weir&password={password}");
        let (status, text) = http("POST", &url, Some(sql), None).ok()?;
        assert_eq!(status, 200, "{sql}: {text}");
        Some(text)
    })
}

/// A real Kafka broker in a folder of its own; ended when dropped.
pub(crate) struct Broker {
    broker: weir_drills::parts::Broker,
    _dir: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        let dir = tempfile::tempdir().unwrap();
        Broker { broker: weir_drills::parts::Broker::start(dir.path()).unwrap(), _dir: dir }
    }

    /// Ends the process as its operator would, and starts another one on the same folder and port.
    pub(crate) fn restart(&mut self) {
        self.broker.restart().unwrap();
    }

    /// Ends the process as its operator would.
    pub(crate) fn stop(&mut self) {
        self.broker.stop().unwrap();
    }

    /// The folder of its partitions.
    pub(crate) fn data(&self) -> PathBuf {
        self.broker.data()
    }

    /// SIGKILL: nobody answers on its port any more.
    pub(crate) fn kill(&mut self) {
        self.broker.kill().unwrap();
    }

    /// Another process on the same folder and port, after [`kill`](Self::kill).
    pub(crate) fn start_again(&mut self) {
        self.broker.start_again().unwrap();
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.broker.bootstrap()
    }
}

/// A broker; without one the test says that it was skipped, and fails where Kafka is required.
pub(crate) fn kafka() -> Option<Broker> {
    if repository().join(".weir/kafka/lib").is_dir() || std::env::var_os("WEIR_KAFKA_LIB").is_some() {
        return Some(Broker::start());
    }
    assert!(std::env::var_os("WEIR_TEST_KAFKA").is_none(), "Kafka is required and not there (run `./dev test`)");
    eprintln!("SKIPPED: Kafka is not there (run `./dev test`)");
    None
}
