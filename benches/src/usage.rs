//! What a process took: CPU and memory.

use std::{mem::MaybeUninit, process::ExitStatus};

use anyhow::Context;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system, of all threads.
    pub cpu_seconds: f64,
    pub peak_rss_mb: u64,
}

impl Usage {
    fn of(usage: &libc::rusage) -> Usage {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Usage {
            cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            // KiB on Linux.
            peak_rss_mb: usage.ru_maxrss as u64 / 1024,
        }
    }
}

/// Of this process, until now.
pub(crate) fn own() -> Usage {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: the call fills `usage` when it gives 0, which it does for RUSAGE_SELF.
    unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        Usage::of(&usage.assume_init())
    }
}

/// Waits for a child, and says what it took with all its own children that it waited for.
pub(crate) fn wait(child: std::process::Child) -> anyhow::Result<(ExitStatus, Usage)> {
    use std::os::unix::process::ExitStatusExt as _;
    let (mut status, mut usage) = (0, MaybeUninit::uninit());
    // SAFETY: the pid is our child's, which nobody has waited for; both places are valid, and filled when it gives the pid.
    unsafe {
        let pid = libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr());
        anyhow::ensure!(pid == child.id() as libc::pid_t, "a stage cannot be waited for");
        Ok((ExitStatus::from_raw(status), Usage::of(&usage.assume_init())))
    }
}

/// CPU seconds of a process that goes on; `/proc/PID/stat`, fields 14 and 15.
pub(crate) fn cpu_seconds_of(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a server has gone")?;
    let fields = stat.rsplit(") ").next().context("/proc is not as it should be")?;
    let mut ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let (user, system) = (ticks.next().context("no user time")??, ticks.next().context("no system time")??);
    // SAFETY: a plain call.
    Ok((user + system) / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64)
}

/// Where the machine's CPU time went, since it was started: all of it, what was stolen by other machines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    all: f64,
    stolen: f64,
}

impl Machine {
    /// Now; the first line of `/proc/stat`.
    pub(crate) fn now() -> anyhow::Result<Machine> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guest times are in user's already.
        Ok(Machine { all: ticks.iter().take(8).sum(), stolen: ticks.get(7).copied().unwrap_or(0.0) })
    }

    /// Of the CPU time since then, per cent.
    pub(crate) fn stolen_percent_since(&self) -> anyhow::Result<f64> {
        let now = Machine::now()?;
        Ok(100.0 * (now.stolen - self.stolen) / (now.all - self.all).max(1.0))
    }
}
