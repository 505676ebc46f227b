//! A ClickHouse of our own: a process that is started, watched, started again when it dies, and ended with us.
//!
//! ```text
//!  weir ──spawns──▶ weir clickhouse … (libchdb.so, or `clickhouse server`) ──▶ http://127.0.0.1:PORT
//!       ──stdin pipe: ends when weir does, however it ended──▶ the child ends too
//! ```
//!
//! Invariants
//! - no child outlives the process that started it
//! - the analyst can select from the public views and nothing else, and cannot raise its limits
//! - the embedded server's process can open no file outside its directory, but libraries and a few system files
//!
//! A server that somebody else runs needs none of this: make a [`crate::Target`] of its URL.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::events::{ServerDied, ServerStarted, ServerUnconfined};
use crate::{SinkError, Target};

mod child;
mod config;
mod confine;

pub use child::child_main;

/// The user that weir writes as.
pub const WRITER: &str = "weir";
/// The user that people query as.
pub const ANALYST: &str = "analyst";

/// How long a server may take until it answers: 1 s is usual; an unclean end with many parts takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between a death and the next start, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A server that lived this long died of something new: the backoff begins again.
const LIVED: Duration = Duration::from_secs(60);

/// Which ClickHouse it is.
#[derive(Debug, Clone)]
pub enum Program {
    /// `libchdb.so`, a whole ClickHouse in one library.
    Embedded { lib: PathBuf },
    /// The `clickhouse` program.
    Clickhouse { path: PathBuf },
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    pub program: Program,
    /// The command that becomes the child, the child's own words are added: `[weir, "clickhouse"]`. It must call
    /// [`child_main`] with them.
    pub child_command: Vec<OsString>,
    /// Absolute. Holds configuration, data and logs; made if need be, readable by us only.
    pub dir: PathBuf,
    /// Absolute. Where copies go; made if need be.
    pub backups: PathBuf,
    /// Host to listen on; `127.0.0.1` unless the analyst has a password.
    pub listen_host: String,
    /// 0: any free port, the same one over restarts of the child.
    pub http_port: u16,
    /// The database whose views the analyst may read.
    pub database: String,
    /// Empty: no password, which is allowed on loopback only.
    pub analyst_password: String,
    /// The most memory the server takes for its queries and caches, bytes.
    pub memory_bytes: u64,
}

impl ServerSpec {
    /// What keeps it from starting, and a person must mend: no such program, an open door.
    pub fn check(&self) -> Result<(), SinkError> {
        let loopback = matches!(self.listen_host.as_str(), "127.0.0.1" | "::1" | "localhost");
        if !loopback && self.analyst_password.is_empty() {
            return Err(SinkError::Server(format!(
                "clickhouse is to listen on {}, and its analyst has no password (set clickhouse.analyst_password, or listen on 127.0.0.1)",
                self.listen_host
            )));
        }
        if !self.dir.is_absolute() {
            return Err(SinkError::Server(format!("the directory {} is not absolute", self.dir.display())));
        }
        if self.dir.to_str().is_none() {
            return Err(SinkError::Server(format!(
                "the directory {} is not UTF-8, which ClickHouse's configuration must be (choose another data_dir)",
                self.dir.display()
            )));
        }
        let (path, how) = match &self.program {
            Program::Embedded { lib } => (lib, "run ./dev once, or set WEIR_CHDB_LIB to libchdb.so"),
            Program::Clickhouse { path } => (path, "install ClickHouse, or give clickhouse.url"),
        };
        if !path.is_file() {
            return Err(SinkError::Server(format!("{} is not there ({how})", path.display())));
        }
        Ok(())
    }
}

/// A quarter of the machine's memory, within 512 MiB and 8 GiB: the rest is for the pipeline and the page cache.
pub fn memory_default_bytes() -> u64 {
    // SAFETY: plain calls.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGE_SIZE)) };
    let bytes = u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0);
    (bytes / 4).clamp(512 << 20, 8 << 30)
}

/// The `clickhouse` program on the PATH.
pub fn clickhouse_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("clickhouse")).find(|program| program.is_file())
}

/// A running server. Dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    target: Target,
    pid: watch::Receiver<Option<u32>>,
    stop: watch::Sender<bool>,
    watcher: JoinHandle<()>,
}

impl Server {
    /// Writes the configuration, starts the server and waits until it answers its writer.
    ///
    /// Errors: [`SinkError::Server`] when it does not start, with what it said.
    pub async fn start(spec: ServerSpec) -> Result<Server, SinkError> {
        spec.check()?;
        let cannot =
            |what: &Path, why: std::io::Error| SinkError::Server(format!("cannot write {}: {why}", what.display()));
        for dir in [spec.dir.join("data"), spec.dir.join("log"), spec.backups.clone()] {
            make_private_dir(&dir).map_err(|why| cannot(&dir, why))?;
        }
        let port = if spec.http_port == 0 { free_port(&spec.listen_host)? } else { spec.http_port };
        let password = writer_password_made(&spec.dir)
            .map_err(|why| SinkError::Server(format!("{}: {why}", spec.dir.join(WRITER_PASSWORD).display())))?;
        for (name, text) in
            [("config.xml", config::config_xml(&spec, port)), ("users.xml", config::users_xml(&spec, &password))]
        {
            let path = spec.dir.join(name);
            write_private(&path, &text).map_err(|why| cannot(&path, why))?;
        }
        let target = Target {
            url: url(&spec.listen_host, port),
            database: spec.database.clone(),
            user: WRITER.to_owned(),
            password,
        };
        let (mut child, stdin) = spawn(&spec)?;
        if let Err(why) = wait_until_it_answers(&target, &mut child).await {
            let _ = child.kill().await;
            return Err(SinkError::Server(format!("{why} ({})", last_words(&spec.dir))));
        }
        ServerStarted { url: &target.url, pid: child.id().unwrap_or(0) }.emit();
        if last_words(&spec.dir).contains("not confined") {
            ServerUnconfined { reason: &last_words(&spec.dir) }.emit();
        }
        let (pid_tx, pid) = watch::channel(child.id());
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(watch_over(spec, target.clone(), (child, stdin), pid_tx, stopped));
        Ok(Server { target, pid, stop, watcher })
    }

    /// How the writer reaches it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The child's process id; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Ends the process and waits until it is gone.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.watcher).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is killed when its handle goes with the task.
        self.watcher.abort();
    }
}

async fn watch_over(
    spec: ServerSpec,
    target: Target,
    (mut child, mut held): (Child, Option<ChildStdin>),
    pid: watch::Sender<Option<u32>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = tokio::time::Instant::now();
        let status = tokio::select! {
            status = child.wait() => status,
            () = told(&mut stopped) => {
                let _ = child.kill().await;
                return;
            }
        };
        let _ = pid.send(None);
        drop(held.take());
        if started.elapsed() > LIVED {
            backoff = BACKOFF_MIN;
        }
        let how = status.map_or_else(|why| why.to_string(), |status| status.to_string());
        ServerDied { how: &how, last_words: &last_words(&spec.dir), again_in: backoff }.emit();
        // A start that fails ends like one that dies at once: the loop comes back here.
        loop {
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = told(&mut stopped) => return,
            }
            backoff = (2 * backoff).min(BACKOFF_MAX);
            match spawn(&spec) {
                Ok(again) => {
                    (child, held) = again;
                    break;
                }
                Err(why) => ServerDied { how: &why.to_string(), last_words: "", again_in: backoff }.emit(),
            }
        }
        if wait_until_it_answers(&target, &mut child).await.is_ok() {
            ServerStarted { url: &target.url, pid: child.id().unwrap_or(0) }.emit();
            let _ = pid.send(child.id());
        } else {
            // Hung, or dead again: either way the next round finds it ended.
            let _ = child.start_kill();
        }
    }
}

/// Resolves when the server is to end.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The process, and the end of its stdin: closing it ends the process. (It is kept apart because `Child::wait` would.)
fn spawn(spec: &ServerSpec) -> Result<(Child, Option<ChildStdin>), SinkError> {
    let cannot = |why: std::io::Error| SinkError::Server(format!("cannot start clickhouse: {why}"));
    let said = std::fs::File::create(spec.dir.join("log/child.log")).map_err(cannot)?;
    let (program, leading) = spec.child_command.split_first().expect("a child command has a program");
    let (kind, path) = match &spec.program {
        Program::Embedded { lib } => (child::EMBEDDED, lib),
        Program::Clickhouse { path } => (child::PROGRAM, path),
    };
    let mut command = Command::new(program);
    command
        .args(leading)
        .args(child::words(kind, path, &spec.dir, &spec.backups))
        .current_dir(&spec.dir)
        // What an analyst's `file('/proc/self/environ')` could read.
        .env_clear()
        .envs(
            ["PATH", "TZ", "LANG", "LD_LIBRARY_PATH"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .stdin(Stdio::piped())
        .stdout(said.try_clone().map_err(cannot)?)
        .stderr(said)
        // A Ctrl-C at the terminal is weir's to handle: it writes what it has first.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(cannot)?;
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

async fn wait_until_it_answers(target: &Target, child: &mut Child) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    let mut last = String::new();
    while tokio::time::Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("clickhouse ended while starting: {status}"));
        }
        match target.ping().await {
            Ok(()) => return Ok(()),
            Err(why) => last = why.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("clickhouse does not answer after {} s: {last}", START_TIMEOUT.as_secs()))
}

/// What the child said on its stdout and stderr, else in its log: the last 600 bytes or so, in one line.
fn last_words(dir: &Path) -> String {
    let tail = |name: &str| {
        let said = std::fs::read(dir.join("log").join(name)).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(600)..]).into_owned();
        tail.lines().filter(|line| !line.starts_with("Logging ")).collect::<Vec<_>>().join(" · ")
    };
    let said = tail("child.log");
    // Our own last line says only that it ended.
    if said.is_empty() || said.contains("ended by itself") {
        format!("{said} · {}", tail("clickhouse.err.log"))
    } else {
        said
    }
}

fn free_port(host: &str) -> Result<u16, SinkError> {
    let listener = std::net::TcpListener::bind((host, 0))
        .map_err(|why| SinkError::Server(format!("cannot listen on {host}: {why}")))?;
    listener.local_addr().map(|addr| addr.port()).map_err(|why| SinkError::Server(why.to_string()))
}

/// The password of [`WRITER`] on the server of this directory, by which other weir processes on the machine reach a server
/// that one of them started. [`NotFound`](std::io::ErrorKind::NotFound) if none was started yet.
pub fn writer_password(dir: &Path) -> std::io::Result<String> {
    let password = std::fs::read_to_string(dir.join(WRITER_PASSWORD))?;
    if password.trim().is_empty() {
        let what = format!("{} is empty (remove it, and start weir again)", dir.join(WRITER_PASSWORD).display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    Ok(password.trim().to_owned())
}

/// The same, made at the first start: 122 random bits. One that is there and cannot be read is left alone.
fn writer_password_made(dir: &Path) -> std::io::Result<String> {
    match writer_password(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let password = uuid::Uuid::new_v4().simple().to_string();
            let path = dir.join(WRITER_PASSWORD);
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(password.as_bytes())?;
            file.sync_all()?;
            Ok(password)
        }
        read => read,
    }
}

const WRITER_PASSWORD: &str = "writer-password";

/// Where a server that listens on `host` is reached from its own machine.
pub fn url(host: &str, port: u16) -> String {
    match host {
        "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "::" => format!("http://[::1]:{port}"),
        host if host.parse::<std::net::Ipv6Addr>().is_ok() => format!("http://[{host}]:{port}"),
        host => format!("http://{host}:{port}"),
    }
}

fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Whole or not at all, and readable by us only.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_where_it_listens() {
        let urls = ["127.0.0.1", "localhost", "0.0.0.0", "::", "::1", "fd00::7"].map(|host| url(host, 8123));
        assert_eq!(
            urls,
            [
                "http://127.0.0.1:8123",
                "http://localhost:8123",
                "http://127.0.0.1:8123",
                "http://[::1]:8123",
                "http://[::1]:8123",
                "http://[fd00::7]:8123"
            ]
        );
    }

    #[test]
    fn a_password_is_made_once_and_one_that_cannot_be_read_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(WRITER_PASSWORD);
        assert_eq!(writer_password(dir.path()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert!(!path.exists(), "who looks makes none");
        let made = writer_password_made(dir.path()).unwrap();
        assert_eq!(
            (writer_password_made(dir.path()).unwrap(), writer_password(dir.path()).unwrap()),
            (made.clone(), made)
        );
        for unreadable in [&b"\xff\xfe"[..], b"\n"] {
            std::fs::write(&path, unreadable).unwrap();
            assert!(writer_password_made(dir.path()).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), unreadable);
        }
    }
}
