//! Processes that end with us, whatever ends us.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// How long a process may take to stop that was asked to: its own limits come before it.
const STOP_PATIENCE: Duration = Duration::from_secs(120);

/// A process that was started here, with its output in a file; killed, and waited for, when dropped.
pub struct Process {
    child: Child,
    name: String,
    said: PathBuf,
}

impl Process {
    /// Starts `command`; what it says is added to `said`. The process dies with the thread that starts it, so that it does
    /// not outlive one that was killed: call it on the main thread, or a test's own.
    pub fn spawn(name: &str, command: &mut Command, said: &Path) -> anyhow::Result<Process> {
        let file = File::options().create(true).append(true).open(said)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Process { child: spawn(name, command)?, name: name.to_owned(), said: said.to_owned() })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// An error, with what it said last, if it has ended by itself.
    pub fn lives(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended by itself, {status}:\n{}", self.name, last_lines(&self.said));
        }
        Ok(())
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has ended well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let status = self.end_with()?;
        ensure!(
            status.success(),
            "{} was asked to stop, and ended with {status}:\n{}",
            self.name,
            last_lines(&self.said)
        );
        Ok(())
    }

    /// SIGTERM, and waits until it has ended, well or not: Java tells that it was asked to.
    pub fn end(&mut self) -> anyhow::Result<()> {
        self.end_with().map(drop)
    }

    fn end_with(&mut self) -> anyhow::Result<ExitStatus> {
        signal(self.pid(), libc::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < STOP_PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} was asked to stop {} s ago, and goes on", self.name, STOP_PATIENCE.as_secs())
    }

    /// Process ids of its children that were started as this subcommand.
    pub fn children(&self, subcommand: &str) -> Vec<i32> {
        let is = |pid: &i32| command_line(*pid).get(1).is_some_and(|argument| argument == subcommand);
        children_of(self.pid()).into_iter().filter(is).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that dies with the thread that starts it.
pub(crate) fn spawn(name: &str, command: &mut Command) -> anyhow::Result<Child> {
    // SAFETY: prctl is async-signal-safe, and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().with_context(|| format!("{name} cannot be started: {:?}", command.get_program()))
}

/// Whatever a process leaves behind that we start becomes a child of ours, and ends when this is dropped: a run, say, whose
/// supervisor was killed while it was stopped.
pub struct Orphans(());

impl Orphans {
    pub fn adopt() -> Orphans {
        // SAFETY: a plain call.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        Orphans(())
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        loop {
            let children = children_of(std::process::id() as i32);
            if children.is_empty() {
                return;
            }
            for pid in children {
                signal(pid, libc::SIGKILL);
                // SAFETY: a child of ours that nobody else waits for: who owns one has dropped it before.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        }
    }
}

pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill has no memory to get wrong.
    unsafe { libc::kill(pid, signal) };
}

pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // "pid (name) state …"; a zombie is dead.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z'))
}

pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// Those that have not ended, or that nobody has waited for.
pub fn children_of(parent: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state parent …"
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok()) == Some(parent)
    })
    .collect()
}

/// The end of what a process said.
pub(crate) fn last_lines(said: &Path) -> String {
    let text = std::fs::read(said).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
