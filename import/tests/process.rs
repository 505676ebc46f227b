//! Imports in processes of their own: stdin, kills, Ctrl-C. The program is its own child: with `WEIR_IMPORT_CHILD` set
//! it imports what its arguments say.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use weir_import::{Environment, ImportCommand, LiveDays, State};
use weir_log::{EmbeddedLog, Log, SystemClock};
use weir_schemas::{control::CONTROL_TOPIC, rules::Rules};

#[path = "support/hooked.rs"]
mod hooked;

const CHILD: &str = "WEIR_IMPORT_CHILD";
/// Set: appends to an import's topic say `stuck` on stderr and end, in vain, with Ctrl-C.
const STUCK: &str = "WEIR_IMPORT_STUCK";
/// On a busy machine a child may take its time.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    // `cargo test NAME` and `--list` reach this program, too.
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with("--"));
    type Test = (&'static str, fn(&Path));
    let tests: [Test; 4] = [
        ("stdin_equals_the_file", stdin_equals_the_file),
        ("a_killed_import_is_taken_back_by_the_next", a_killed_import_is_taken_back_by_the_next),
        ("ctrl_c_while_reading_says_that_nothing_was_imported", ctrl_c_while_reading),
        ("ctrl_c_while_writing_takes_back_what_was_begun", ctrl_c_while_writing),
    ];
    for (name, test) in tests {
        if filter.as_ref().is_none_or(|filter| name.contains(&**filter)) {
            let dir = tempfile::tempdir().expect("a directory");
            test(dir.path());
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn stdin_equals_the_file(dir: &Path) {
    let content = std::fs::read(sample()).expect("the sample");
    let mut child = start(dir, &["--site", "blog", "--json", "-"], false);
    child.stdin.take().expect("a pipe").write_all(&content).expect("the child reads");
    let from_stdin = summary(child);
    let again = finish(start(dir, &["--site", "blog", "--json", &sample().display().to_string()], false));
    assert!(!again.0 && again.2.contains("was imported before"), "stdin is known to be the file: {}", again.2);
    let file = &sample().display().to_string();
    let from_file = summary(start(dir, &["--site", "other", "--json", file], false));
    assert_eq!(from_stdin["classes"], from_file["classes"]);
    assert_eq!(from_stdin["days"], from_file["days"]);
    assert_eq!(from_stdin["lines"], 10_000);

    // Grown, it goes on; what is known is gone over.
    let grown = [&content[..], &content[..5_000]].concat();
    let mut child = start(dir, &["--site", "blog", "--json", "-"], false);
    child.stdin.take().expect("a pipe").write_all(&grown).expect("the child reads");
    let more = summary(child);
    let whole_lines = content[..5_000].iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(
        (more["lines"].as_u64(), more["bytes_held"].as_u64()),
        (Some(whole_lines as u64), Some(content.len() as u64))
    );
}

fn a_killed_import_is_taken_back_by_the_next(dir: &Path) {
    let file = sample().display().to_string();
    let mut child = start(dir, &["--site", "blog", &file], true);
    wait_until_stuck(&mut child);
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
    assert_eq!(states(dir), [State::Unfinished]);
    let summary = summary(start(dir, &["--site", "blog", "--json", &file], false));
    assert_eq!(states(dir), [State::Undone, State::Written]);
    assert_eq!(summary["lines"], 10_000);
    let log = EmbeddedLog::open(dir.join("log"), Arc::new(SystemClock)).expect("the log");
    let topics = log.topics().expect("topics");
    let imports = topics.iter().filter(|topic| topic.starts_with("weir.import."));
    assert_eq!(imports.count(), 1, "the topic of the killed one is gone");
}

fn ctrl_c_while_reading(dir: &Path) {
    let mut child = start(dir, &["--site", "blog", "-"], false);
    let mut stdin = child.stdin.take().expect("a pipe");
    // It has read all of this only when it listens to Ctrl-C, too: a pipe holds far less.
    stdin.write_all(&b"nonsense\n".repeat(100_000)).expect("the child reads");
    interrupt(&child);
    let (ok, _, said) = finish(child);
    assert!(!ok && said.contains("nothing was imported"), "{said}");
    assert_eq!(states(dir), []);
    drop(stdin);
}

fn ctrl_c_while_writing(dir: &Path) {
    let content: String = (0..60_000)
        .map(|line| format!("192.0.2.1 - - [17/May/2015:10:00:00 +0000] \"GET /{line} HTTP/1.1\" 200 1\n"))
        .collect();
    let file = dir.join("a.log");
    std::fs::write(&file, content).expect("a file");
    let mut child = start(dir, &["--site", "blog", &file.display().to_string()], true);
    wait_until_stuck(&mut child);
    interrupt(&child);
    let (ok, _, said) = finish(child);
    assert!(!ok && said.contains("was taken back, nothing of it is counted"), "{said}");
    assert_eq!(states(dir), [State::Undone]);
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blog-access.log")
}

fn start(dir: &Path, arguments: &[&str], stuck: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a program"));
    command.args(arguments).env(CHILD, dir.join("log")).current_dir(dir);
    if stuck {
        command.env(STUCK, "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child")
}

fn wait_until_stuck(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().expect("a pipe")).read_line(&mut line).expect("the child says");
    assert_eq!(line, "stuck\n");
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Whether it ended well, and what it said on stdout and stderr.
fn finish(mut child: Child) -> (bool, String, String) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().expect("a child");
            panic!("the child did not end");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    (status.success(), out, err)
}

fn summary(mut child: Child) -> serde_json::Value {
    drop(child.stdin.take());
    let (ok, out, err) = finish(child);
    assert!(ok, "{err}");
    serde_json::from_str(out.trim()).expect("one JSON object")
}

fn states(dir: &Path) -> Vec<State> {
    let environment = environment(&dir.join("log"));
    weir_import::list(&environment).expect("a list").iter().map(|past| past.state).collect()
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    command: ImportCommand,
}

struct NoDays;

impl LiveDays for NoDays {
    fn live_days<'a>(&'a self, _: &'a str, _: Date, _: Date) -> BoxFuture<'a, anyhow::Result<Vec<Date>>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn environment(log: &Path) -> Environment {
    let inner: Arc<dyn Log> = Arc::new(EmbeddedLog::open(log, Arc::new(SystemClock)).expect("the log"));
    let stuck = std::env::var_os(STUCK).is_some();
    let hook: hooked::Hook = Box::new(move |topic, _| {
        (stuck && topic != CONTROL_TOPIC).then(|| {
            let interrupted = interrupted();
            eprintln!("stuck");
            async {
                let _ = interrupted.await;
                Err(weir_log::LogError::Unavailable("stuck until Ctrl-C".into()))
            }
            .boxed()
        })
    });
    let log: Arc<dyn Log> = Arc::new(hooked::Hooked { inner, hook });
    Environment {
        log,
        clock: Arc::new(SystemClock),
        who: "child@test".to_owned(),
        sites: Vec::new(),
        accept_any_site: true,
        mmdb: None,
        rules: Rules::version(1).expect("there is one"),
        live_days: Arc::new(NoDays),
        patience: Duration::from_millis(300),
    }
}

/// Resolves when this process got its Ctrl-C. Listens when this returns.
fn interrupted() -> futures::channel::oneshot::Receiver<()> {
    let (tell, told) = futures::channel::oneshot::channel();
    let (listens, listening) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let kind = tokio::signal::unix::SignalKind::interrupt();
            let mut signal = tokio::signal::unix::signal(kind).expect("a signal");
            let _ = listens.send(());
            signal.recv().await;
        });
        let _ = tell.send(());
    });
    listening.recv().expect("it listens");
    told
}

fn child() -> ExitCode {
    let cli = Cli::parse();
    let log = PathBuf::from(std::env::var_os(CHILD).expect("a place"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    match runtime.block_on(weir_import::run(cli.command, environment(&log))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
