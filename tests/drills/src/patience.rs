//! Waits that end: when what is waited for is there, when nothing moves any more, or when somebody asks us to stop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};

/// How long nothing may move before something is broken: a run that failed often is started again after half a minute, and
/// a machine that others use too is slow.
const STILL_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(50);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM end the wait under way, and with it the drill, which ends what it has started.
pub(crate) fn heed_signals(runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _entered = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)?;
        runtime.spawn(async move {
            signals.recv().await;
            INTERRUPTED.store(true, Ordering::SeqCst);
        });
    }
    Ok(())
}

pub(crate) fn not_interrupted() -> anyhow::Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
    Ok(())
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    wait_while_it_moves(what, || Ok(ask()?.ok_or(())))
}

/// Asks until there is an answer; `Err` tells where it stands, and as long as that changes there is no hurry.
pub(crate) fn wait_while_it_moves<T, At: PartialEq>(
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Result<T, At>>,
) -> anyhow::Result<T> {
    let mut stands: Option<(At, Instant)> = None;
    loop {
        not_interrupted()?;
        let at = match ask()? {
            Ok(answer) => return Ok(answer),
            Err(at) => at,
        };
        match &stands {
            Some((before, since)) if *before == at => {
                if since.elapsed() > STILL_MAX {
                    bail!("waited for {what}, and nothing moved for {} s", STILL_MAX.as_secs());
                }
            }
            _ => stands = Some((at, Instant::now())),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

pub(crate) fn sleep(duration: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        not_interrupted()?;
        std::thread::sleep(LOOK_EVERY.min(duration.saturating_sub(begin.elapsed())));
    }
    Ok(())
}
