//! Imports are taken back, and generations dropped, beside everything else: the statements that do it may take long, and
//! nothing waits for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use anyhow::Context;
use tokio::task::JoinHandle;
use tracing::info;

/// Those that are being taken back, as they are told of.
#[derive(Debug, Default)]
pub(crate) struct Undos {
    at_work: BTreeMap<String, JoinHandle<anyhow::Result<()>>>,
    /// What was taken back; that may not have been read back from the control topic yet.
    done: BTreeSet<String>,
}

impl Undos {
    /// Begins, if nobody is at it.
    pub(crate) fn begin<T>(&mut self, what: &str, taking_back: impl FnOnce() -> T)
    where
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        if !self.done.contains(what) && !self.at_work.contains_key(what) {
            self.at_work.insert(what.to_owned(), tokio::spawn(taking_back()));
        }
    }

    /// Tells of those that are over. Errors: the first that failed; it may be begun again.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let over: Vec<String> =
            self.at_work.iter().filter(|(_, task)| task.is_finished()).map(|(what, _)| what.clone()).collect();
        let mut failed = Ok(());
        for what in over {
            let Some(task) = self.at_work.remove(&what) else { continue };
            match task.await.map_err(anyhow::Error::from).flatten() {
                Ok(()) => {
                    info!(what, "taken back");
                    self.done.insert(what);
                }
                Err(error) => {
                    let error = Err(error).with_context(|| format!("{what} cannot be taken back yet"));
                    failed = failed.and(error);
                }
            }
        }
        failed
    }

    /// What has been begun may be cut anywhere; the next start does the rest.
    pub(crate) fn abort(&self) {
        self.at_work.values().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_one_that_takes_long_and_one_that_failed_is_begun_again() {
        let (mut undos, begun, go) = (Undos::default(), Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let taking_back = |fails: bool| {
            let (begun, go) = (begun.clone(), go.clone());
            move || async move {
                begun.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                if fails { Err(anyhow::anyhow!("the table is away")) } else { Ok(()) }
            }
        };
        let look = async |undos: &mut Undos, fails| {
            undos.begin("import a", taking_back(fails));
            tokio::task::yield_now().await;
            undos.ended().await
        };
        for _ in 0..3 {
            look(&mut undos, true).await.unwrap();
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1, "once at a time");
        go.notify_one();
        while !undos.at_work["import a"].is_finished() {
            tokio::task::yield_now().await;
        }
        let failed = format!("{:#}", undos.ended().await.unwrap_err());
        assert_eq!(failed, "import a cannot be taken back yet: the table is away");
        look(&mut undos, false).await.unwrap();
        go.notify_one();
        while !undos.at_work["import a"].is_finished() {
            tokio::task::yield_now().await;
        }
        undos.ended().await.unwrap();
        look(&mut undos, false).await.unwrap();
        assert_eq!((begun.load(Ordering::SeqCst), undos.at_work.len()), (2, 0), "what is done is not begun again");
    }
}
